"""Set nnUNet_extTrainer for good: in this environment, or in a shell's start-up file.

With --environment, the conda or virtual environment that this command runs in sets the variable when it is activated
(bash, zsh, fish, csh, PowerShell, cmd) and takes it back when it is left. With --start-up, a shell sets it when it
starts. A value that the variable has already is kept and extended. The command prints which files it wrote; running it
again changes nothing, and --undo takes exactly that back. Examples:

    nnunet_ext register --environment
    nnunet_ext register --start-up ~/.bashrc
    nnunet_ext register --environment --undo
"""

import argparse
import os
import sys
from pathlib import Path

from nnunet_ext.claims import only_run
from nnunet_ext.registration import VARIABLE


def add_arguments(parser: argparse.ArgumentParser) -> None:
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--environment", action="store_true", help="the environment that this command runs in")
    where.add_argument(
        "--start-up",
        type=Path,
        metavar="FILE",
        help="a shell's start-up file, such as ~/.bashrc, ~/.zshrc, ~/.config/fish/config.fish, ~/.cshrc or $PROFILE",
    )
    parser.add_argument("--undo", action="store_true", help="take back what this command wrote there")


def run(args: argparse.Namespace) -> int:
    from nnunet_ext.activation import edit_of_start_up_file, edits_of_environment

    place = Path(sys.prefix if args.environment else os.path.abspath(args.start_up.expanduser()))
    with only_run(place):
        if args.environment:
            edits = edits_of_environment(place, undo=args.undo)
        else:
            edits = [edit_of_start_up_file(place, undo=args.undo)]
        changing = [edit for edit in edits if edit.before != edit.after]
        for edit in changing:
            edit.make()
            print(f"{'removed' if edit.after is None else 'wrote'} {edit.file}")
    told = "no longer set" if args.undo else "set"
    if not changing:
        print(f"{place}: nothing to {'take back' if args.undo else 'do, it sets the variable already'}.")
    elif args.environment:
        print(f"\n{VARIABLE} is {told} when {place} is activated the next time: deactivate and activate it.")
    else:
        print(f"\n{VARIABLE} is {told} when a shell starts the next time.")
    if changing and not args.undo and VARIABLE not in os.environ:
        print(f'For this shell: export {VARIABLE}="$(nnunet_ext path)"')
    return 0
