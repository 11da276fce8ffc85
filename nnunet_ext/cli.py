"""The command ``nnunet_ext``: one module of `nnunet_ext.commands` for each subcommand (``-`` in a name is ``_``)."""

import argparse
import codecs
import errno
import io
import os
import sys
from contextlib import suppress
from importlib import import_module

from nnunet_ext.errors import UserError
from nnunet_ext.files import NO_ROOM, out_of_room
from nnunet_ext.folders import COMMAND
from nnunet_ext.stopping import leave_quickly, no_interrupt_is_lost, stopping_signals_interrupt
from nnunet_ext.version import __version__

COMMANDS = (
    *("path", "register", "list", "doctor", "configure", "plan", "split", "simulate", "unlabelled", "pair", "merge"),
    *("check", "advise", "jobs", "evaluate", "report", "review", "complete", "pseudo-label", "self-train"),
    *("adapt-weights", "export-stock", "demo"),
)

WRONG_NAME = (errno.ENAMETOOLONG, errno.ELOOP, errno.EISDIR, errno.ENOTDIR)
FINE, PROBLEM, WRONG_USAGE, INTERRUPTED, READER_LEFT = 0, 1, 2, 130, 141
SHOWN = 300  # characters of a file's name in a message
# of the machine, not of the program: a full disk, a used-up quota, a file system or file that is read-only
NO_ROOM_OR_RIGHT = (*NO_ROOM, errno.EROFS, errno.EACCES, errno.EPERM)


def build_parser() -> argparse.ArgumentParser:
    """The parser of the whole command.

    A command's module has a docstring (its first line is the short help, the rest the description with an example),
    ``add_arguments(parser)`` and ``run(args) -> int``. Its heavy imports belong inside ``run``.
    """
    parser = argparse.ArgumentParser(
        prog="nnunet_ext",
        description="Label-efficient training techniques for nnU-Net v2. Training and prediction run by nnU-Net's own "
        "commands; this one prepares, checks and shows.",
        epilog="Exit status: 0 fine, 1 a problem was found or the disk is full, 2 wrong usage, 3 trainings are "
        "still at work (jobs status), 130 interrupted, 141 who reads the output has left.",
    )
    parser.add_argument("--version", action="version", version=f"nnunet_ext {__version__}")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name in COMMANDS:
        module = import_module(f"nnunet_ext.commands.{name.replace('-', '_')}")
        summary, _, description = (module.__doc__ or "").partition("\n\n")
        subparser = subparsers.add_parser(
            name,
            help=summary,
            description=f"{summary}\n\n{description}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        module.add_arguments(subparser)
        subparser.set_defaults(run=module.run)
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit status instead of leaving the process."""
    _show_what_the_output_lacks()
    try:
        with stopping_signals_interrupt():
            status = _run(build_parser().parse_args(argv))
    except KeyboardInterrupt:
        print("nnunet_ext: interrupted.", file=sys.stderr)
        status = INTERRUPTED
    if status == INTERRUPTED and argv is None:  # the program: who has pressed Ctrl-C waits for its end
        leave_quickly(status)
    return status


def _show_what_the_output_lacks() -> None:
    """Have characters that the terminal or file has no code for printed as escapes, as on stderr, not end a command."""
    output = sys.stdout
    if not isinstance(output, io.TextIOWrapper):  # a program without a console has none
        return
    loses_nothing = output.errors == "surrogateescape" and codecs.lookup(output.encoding).name == "utf-8"
    if not loses_nothing:
        with suppress(OSError):  # of an output that cannot take what is still in it, which the command will meet
            output.reconfigure(errors="backslashreplace")


def reader_has_left() -> bool:
    """Whether who reads the output, such as head, has enough of it. Then the rest goes nowhere."""
    try:
        print(flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return True
    return False


def _run(args: argparse.Namespace) -> int:
    running = COMMAND.set(args.command)
    try:
        with no_interrupt_is_lost():
            status = args.run(args)
            if sys.stdout is not None:  # a program without a console has none
                sys.stdout.flush()
            return status
    except UserError as error:
        print(f"nnunet_ext {args.command}: {error}", file=sys.stderr)
        return PROBLEM if out_of_room(error) else WRONG_USAGE
    except BrokenPipeError:
        if not reader_has_left():
            raise
        return READER_LEFT
    except Exception as error:
        cause = out_of_room(error) or error
        if str(error).startswith("Symlink loop"):  # what Path.resolve raises before Python 3.13
            print(f"nnunet_ext {args.command}: {error}. Name what the link was to lead to.", file=sys.stderr)
            return WRONG_USAGE
        if not isinstance(cause, OSError) or cause.errno not in (*NO_ROOM_OR_RIGHT, *WRONG_NAME):
            raise
        name = cause.filename or getattr(args, "out", None) or getattr(args, "output", None)
        file = f"{str(name)[:SHOWN]}: " if name else ""
        fix = " Make room or get the right to it, and repeat the command." if cause.errno in NO_ROOM_OR_RIGHT else ""
        print(f"nnunet_ext {args.command}: {file}{cause.strerror}.{fix}", file=sys.stderr)
        return PROBLEM if cause.errno in NO_ROOM else WRONG_USAGE
    except KeyboardInterrupt:
        print(f"nnunet_ext {args.command}: interrupted.", file=sys.stderr)
        return INTERRUPTED
    finally:
        COMMAND.reset(running)
