"""Kill trainings many times at random moments: ``python -m faults KILLS [--first SEED]``.

Prints when they were killed and whether the final weights are those of a training that nobody interrupted.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from pathlib import Path

from support.standalone import prepared_workspace


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kills", type=int)
    parser.add_argument("--first", type=int, default=0, help="the first seed (default: %(default)s)")
    options = parser.parse_args()
    with prepared_workspace() as root:
        return kill(options.kills, root, options.first)


def kill(kills: int, root: Path, first: int) -> int:
    """Kill trainings of some trainers; the exit status."""
    from faults.killed_training import TRAINERS, KilledTraining
    from support.workspace import Workspace

    wrong = 0
    phases: Counter[str] = Counter()
    for number, trainer in enumerate(TRAINERS):
        folder = root / trainer
        folder.mkdir()
        share = kills // len(TRAINERS) + (number < kills % len(TRAINERS))
        killed = KilledTraining(trainer, Workspace(root).preprocessed, folder, seed=first + number)
        while killed.kills < share:
            for line in killed.kill_until_it_ends(share - killed.kills):
                wrong += 1
                print(f"{trainer}: {line}", flush=True)
        phases += killed.phases
        print(f"{trainer}: {killed.kills} kills in {killed.trainings} trainings of {killed.seconds:.0f} s", flush=True)
    print(f"{sum(phases.values())} kills: " + ", ".join(f"{count} {phase}" for phase, count in phases.most_common()))
    print(f"{wrong} differences from trainings that nobody interrupted" if wrong else "Every final state bit-identical")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
