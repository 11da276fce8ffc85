"""Experiments: ``python -m benchmarks run|status|render|picture``.

Example:

    python -m benchmarks run scribbles --out scribbles_run --nice --results benchmarks/results
    python -m benchmarks run scribbles --out scribbles_run --progress benchmarks/progress/scribbles.zip
    python -m benchmarks status scribbles --out scribbles_run
    python -m benchmarks render scribbles --results benchmarks/results
    python -m benchmarks picture scribbles --out scribbles_run --methods stock TDNet --picture scribbles.png
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.engine.children import WORKERS
from benchmarks.engine.evidence import evidence_page, primary_lines, primary_results
from benchmarks.engine.experiment import Experiment, experiment_names, load_experiment
from benchmarks.engine.journal import Journal, OutOfTime, open_folder
from benchmarks.engine.progress import Progress
from benchmarks.engine.provenance import machine_line
from benchmarks.engine.results import is_rendered, render, write_results
from benchmarks.engine.runner import Runner
from nnunet_ext.arguments import DEVICES, positive
from nnunet_ext.cli import FINE, INTERRUPTED, PROBLEM, WRONG_USAGE
from nnunet_ext.errors import UserError
from nnunet_ext.files import link_or_copy, write_text
from nnunet_ext.machine import available_cores, choose_device
from nnunet_ext.programs import child_environment
from nnunet_ext.stopping import stopping_signals_interrupt

RESULTS = Path(__file__).parent / "results"
EVIDENCE = Path(__file__).parents[1] / "docs" / "evidence.md"


def build_parser() -> argparse.ArgumentParser:
    """The commands' arguments."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="run what is missing; the same command goes on where it was stopped")
    status = commands.add_parser("status", help="print what is done, running, waiting and failed")
    rendering = commands.add_parser("render", help="render pages of results from their tables")
    picture = commands.add_parser("picture", help="draw what methods make of a test case, the one of the median gain")
    experiment = f"one of {', '.join(experiment_names())}, or a .py file that defines EXPERIMENT"
    for command in (run, status, picture):
        command.add_argument("experiment", help=experiment)
        command.add_argument("--out", type=Path, required=True, help="folder for everything; give it again to resume")
    run.add_argument("--device", default="auto", choices=DEVICES)
    run.add_argument("--at-once", type=positive, default=1, metavar="N", help="trainings at a time (default: 1)")
    run.add_argument("--nice", action="store_true", help="run at low priority")
    only = "names of methods that are trained for now, with what they need (default: all)"
    run.add_argument("--methods", nargs="+", default=[], metavar="NAME", help=only)
    run.add_argument("--max-minutes", type=float, help="begin no step after this time; results are written then")
    run.add_argument("--results", type=Path, help="folder for NAME.csv.gz and NAME.md (default: OUT)")
    progress = "file of all scores, for another machine: what OUT lacks is taken from it, and what OUT has is added"
    run.add_argument("--progress", type=Path, metavar="FILE", help=progress)
    run.add_argument("--dry-run", action="store_true", help="print the plan")
    methods = "names of methods that have been scored; the gain is that of the last over the first"
    picture.add_argument("--methods", nargs="+", required=True, metavar="NAME", help=methods)
    picture.add_argument("--test", default="", metavar="NAME", help="name of the test (default: the first)")
    picture.add_argument("--picture", type=Path, required=True, metavar="PNG", help="file to write")
    rendering.add_argument("experiments", nargs="*", help=f"{experiment}; all whose pages are there by default")
    rendering.add_argument("--results", type=Path, default=RESULTS, help="folder of the tables (default: %(default)s)")
    return parser


def set_environment(experiment: Experiment, out: Path) -> None:
    """Make nnU-Net's folders those of the experiment, for this process and its children, and link the originals.

    Raises:
        UserError: if an original is missing.
    """
    root = os.environ.get("nnUNet_raw")
    for name in experiment.originals:
        link = out / "nnUNet_raw" / name
        if link.exists():
            continue
        if not root or not (Path(root) / name / "dataset.json").is_file():
            raise UserError(f"{experiment.name} is made from {name}, which is not in nnUNet_raw ({root or 'not set'}).")
        link_or_copy(Path(root).resolve() / name, link)
    os.environ.setdefault(WORKERS, os.environ.get("nnUNet_n_proc_DA", ""))
    os.environ.update(child_environment(out, os.environ, cores=available_cores()))
    # what pays only in long trainings, unless the user wants it
    os.environ.setdefault("nnUNet_compile", "f")


def planned(experiment: Experiment, out: Path, device: str, methods: Sequence[str] = ()) -> Journal:
    """The plan of an experiment, or of some methods with what they need, and what has been done of it."""
    journal = Journal(out, is_dry=True)
    Runner(experiment, journal, device).run(methods=methods)
    return journal


def run(args: argparse.Namespace) -> int:
    """Run what is missing, and write the results also of a part where something ends it early."""
    experiment, out = load_experiment(args.experiment), args.out.resolve()
    experiment.check_methods(args.methods)
    if args.dry_run:
        if args.progress:
            raise UserError("--dry-run prints what OUT lacks and takes nothing from --progress. Leave one out.")
        journal = planned(experiment, out, args.device, args.methods)
        for name, command in journal.planned.items():
            print(f"{'done' if journal.is_finished(name) else '    '} {name}: {command}")
        print(f"{len(journal.planned)} steps; the pilot tries further rates while the best is at the edge.")
        return FINE
    device = choose_device(args.device)
    open_folder(out, {"experiment": experiment.name})
    set_environment(experiment, out)
    deadline = None if args.max_minutes is None else time.monotonic() + 60 * args.max_minutes
    journal = Journal(out, deadline=deadline, machine=machine_line(device))
    if not journal.lock():
        raise UserError(f"Another run works in {out}. Wait for it, or choose another folder.")
    if args.nice and hasattr(os, "nice"):
        os.nice(15)  # children inherit it
    runner = Runner(experiment, journal, device)
    progress = Progress(runner, args.progress) if args.progress else None
    if progress is not None:
        begin_progress(progress)
    try:
        with stopping_signals_interrupt():
            runner.run(at_once=args.at_once, methods=args.methods)
    except OutOfTime:
        print("The time is over; the same command goes on from here.", flush=True)
    finally:
        shown = ["python", "-m", "benchmarks", "run", Path(args.experiment).name, "--out", "$OUT", "--device", device]
        try:
            if progress is not None:
                progress.update()
        finally:
            write_results(runner, args.results or out, shown)
    for name, reason in journal.state["failed"].items():
        print(f"failed: {name}: {reason}", file=sys.stderr)
    return PROBLEM if journal.state["failed"] else FINE


def begin_progress(progress: Progress) -> None:
    """Take over what has been scored elsewhere, and let each model be added when it is scored.

    Raises:
        UserError: see `Progress.update`.
    """
    if not progress.file.exists():
        print(f"{progress.file} is not there yet. It is written when a model has been scored.", flush=True)
    if taken := progress.update():
        print(f"{taken} models were scored elsewhere, as {progress.file} says.", flush=True)

    def add() -> None:
        try:
            progress.update()
        except (OSError, UserError) as error:  # the run is not lost by it, and tries again after the next model
            print(f"{progress.file} was not written: {error}", file=sys.stderr, flush=True)

    progress.runner.on_scored = add


def status(args: argparse.Namespace) -> int:
    """Print what is done, running, waiting and failed."""
    journal = planned(load_experiment(args.experiment), args.out.resolve(), "auto")
    states = journal.status()
    print(", ".join(f"{len(names)} {state}" for state, names in states.items()))
    for state in ("running", "failed", "waiting"):
        for name in states[state]:
            reason = f": {journal.state['failed'][name]}" if state == "failed" else ""
            print(f"{state:8}{name}{reason}")
    return FINE


def picture(args: argparse.Namespace) -> int:
    """Draw what methods make of a test case."""
    from benchmarks.engine.picture import draw_picture

    experiment, out = load_experiment(args.experiment), args.out.resolve()
    if not (out / "steps.json").is_file():
        raise UserError(f"{out} has no run of {experiment.name}: steps.json is not there.")
    set_environment(experiment, out)
    case = draw_picture(Runner(experiment, Journal(out, is_dry=True), "cpu"), args.methods, args.picture, args.test)
    print(f"Wrote {args.picture}, case {case}")
    return FINE


def render_all(args: argparse.Namespace) -> int:
    """Render pages anew, and print all primary comparisons."""
    names = args.experiments or [name for name in experiment_names() if is_rendered(args.results / f"{name}.md")]
    experiments = [load_experiment(name) for name in names]
    for experiment in experiments:
        print("\n".join(render(experiment, args.results)))
    print(
        "\n".join(
            [
                "# All primary comparisons",
                "",
                *primary_lines([primary_results(one, args.results) for one in experiments]),
            ]
        )
    )
    if args.results.resolve() == RESULTS.resolve():
        write_text(EVIDENCE, evidence_page([load_experiment(name) for name in experiment_names()], RESULTS))
        print(f"Wrote {EVIDENCE}")
    return FINE


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; 1 if a step failed, 2 for wrong usage, 130 if it was interrupted."""
    args = build_parser().parse_args(argv)
    try:
        return {"run": run, "status": status, "render": render_all, "picture": picture}[args.command](args)
    except UserError as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return WRONG_USAGE
    except KeyboardInterrupt:
        print("benchmarks: interrupted; the same command goes on from here.", file=sys.stderr)
        return INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
