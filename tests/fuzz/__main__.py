"""Go on with damaged inputs for some minutes: ``python -m fuzz MINUTES [--first SEED] [--out FOLDER]``.

Prints what was found by kind, and leaves the workspace of every run that went wrong in the folder.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

PREPARED = "NNUNET_EXT_TEST_WORKSPACE"  # a workspace that was made before, see tests/README.md
VARIABLES = ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("minutes", type=float)
    parser.add_argument("--first", type=int, default=1000, help="the first seed (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=Path("fuzz_output"), help="folder (default: %(default)s)")
    options = parser.parse_args()
    # nnU-Net reads its variables when it is imported
    root = Path(tempfile.mkdtemp(prefix="fuzz ")) / "work space"
    prepared = os.environ.get(PREPARED)
    if prepared:
        shutil.copytree(prepared, root)
    os.environ.update({name: str(root / name) for name in VARIABLES}, OMP_NUM_THREADS="1", nnUNet_n_proc_DA="1")
    import nnunet_ext
    from fuzz.commands import make_workspace
    from fuzz.runs import GOOD, fuzz
    from support.workspace import prepare

    nnunet_ext.register()
    if not prepared:
        prepare(root)
    os.environ["nnUNet_n_proc_DA"] = "0"  # planning needs one
    make_workspace(root / "valid", root)
    options.out.mkdir(parents=True, exist_ok=True)
    kinds: Counter[str] = Counter()
    end = time.monotonic() + 60 * options.minutes
    seed = options.first
    with (options.out / "found.txt").open("a") as found:
        while time.monotonic() < end:
            run = fuzz(seed, root / "valid", options.out / str(seed))
            kinds[f"{GOOD}, exit status {run.status}" if run.verdict == GOOD else run.verdict.partition(":")[0]] += 1
            if run.verdict != GOOD:
                text = f"seed {run.seed}: nnunet_ext {run.command}\n  damage: {run.damage}\n  {run.verdict}\n"
                print(text, flush=True)
                found.write(text)
                found.flush()
            seed += 1
    print(f"{seed - options.first} runs, seeds {options.first} to {seed - 1}")
    for kind, count in kinds.most_common():
        print(f"{count:6d}  {kind}")
    return int(any(not kind.startswith(GOOD) for kind in kinds))


if __name__ == "__main__":
    sys.exit(main())
