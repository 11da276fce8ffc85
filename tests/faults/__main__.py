"""Kill trainings, and each command that writes, many times at random moments: ``python -m faults KILLS``.

Prints when the trainings were killed, and whether all ends as if nobody had interrupted it.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from pathlib import Path

from support.standalone import prepared_workspace

KILLS_OF_TRAININGS = 10  # for one of each command
EPOCHS = 30  # so that most kills strike an epoch, and not the start or the final validation


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kills", type=int)
    parser.add_argument("--first", type=int, default=0, help="the first seed (default: %(default)s)")
    options = parser.parse_args()
    with prepared_workspace() as root:
        wrong = kill_commands(max(1, options.kills // KILLS_OF_TRAININGS), root, options.first)
        return int(wrong + kill_trainings(options.kills, root, options.first) > 0)


def kill_commands(kills: int, root: Path, first: int) -> int:
    """Kill each command some times; how much is wrong."""
    from faults.commands import WRITING, kill_and_repeat, undisturbed_run

    total, found = 0, 0
    for number, command in enumerate(WRITING):
        valid, folder = root / "valid", root / f"{number}"
        expected = undisturbed_run(command, valid, folder / "undisturbed")
        done, wrong = kill_and_repeat(command, valid, folder, expected, kills=kills, seed=first + number)
        total, found = total + done, found + len(wrong)
        for line in wrong:
            print(f"{command.line}: {line}", flush=True)
    print(f"{total} kills of {len(WRITING)} commands, {found} faults", flush=True)
    return found


def kill_trainings(kills: int, root: Path, first: int) -> int:
    """Kill trainings of some trainers; how much is wrong."""
    from faults.killed_training import TRAINERS, KilledTraining
    from support.workspace import Workspace

    wrong = 0
    phases: Counter[str] = Counter()
    for number, trainer in enumerate(TRAINERS):
        folder = root / trainer
        folder.mkdir()
        share = kills // len(TRAINERS) + (number < kills % len(TRAINERS))
        killed = KilledTraining(trainer, Workspace(root).preprocessed, folder, seed=first + number, epochs=EPOCHS)
        while killed.kills < share:
            for line in killed.kill_until_it_ends(share - killed.kills):
                wrong += 1
                print(f"{trainer}: {line}", flush=True)
        phases += killed.phases
        print(f"{trainer}: {killed.kills} kills in {killed.trainings} trainings of {killed.seconds:.0f} s", flush=True)
    print(f"{sum(phases.values())} kills: " + ", ".join(f"{count} {phase}" for phase, count in phases.most_common()))
    print(f"{wrong} differences from trainings that nobody interrupted" if wrong else "Every final state bit-identical")
    return wrong


if __name__ == "__main__":
    sys.exit(main())
