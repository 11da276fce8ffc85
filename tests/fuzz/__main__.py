"""Go on with damaged inputs for some minutes: ``python -m fuzz MINUTES [--first SEED] [--out FOLDER]``.

Prints what was found by kind, and leaves the workspace of every run that went wrong in the folder.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from pathlib import Path

from support.standalone import prepared_workspace


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("minutes", type=float)
    parser.add_argument("--first", type=int, default=1000, help="the first seed (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=Path("fuzz_output"), help="folder (default: %(default)s)")
    options = parser.parse_args()
    with prepared_workspace() as root:
        return fuzz_for(options.minutes, root, options.first, options.out)


def fuzz_for(minutes: float, root: Path, first: int, out: Path) -> int:
    """Run commands for some minutes; the exit status."""
    from fuzz.runs import GOOD, fuzz

    out.mkdir(parents=True, exist_ok=True)
    kinds: Counter[str] = Counter()
    end = time.monotonic() + 60 * minutes
    seed = first
    with (out / "found.txt").open("a") as found:
        while time.monotonic() < end:
            run = fuzz(seed, root / "valid", out / str(seed))
            kinds[f"{GOOD}, exit status {run.status}" if run.verdict == GOOD else run.verdict.partition(":")[0]] += 1
            if run.verdict != GOOD:
                text = f"seed {run.seed}: nnunet_ext {run.command}\n  damage: {run.damage}\n  {run.verdict}\n"
                print(text, flush=True)
                found.write(text)
                found.flush()
            seed += 1
    print(f"{seed - first} runs, seeds {first} to {seed - 1}")
    for kind, count in kinds.most_common():
        print(f"{count:6d}  {kind}")
    return int(any(not kind.startswith(GOOD) for kind in kinds))


if __name__ == "__main__":
    sys.exit(main())
