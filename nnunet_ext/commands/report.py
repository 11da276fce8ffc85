"""Show trained models side by side on one HTML page: scores, tests, training curves, pictures, settings.

RESULTS are folders, each a run, in any mixture: a model folder TRAINER__PLANS__CONFIGURATION (the validation cases of
all its folds together: a cross-validation), a fold_X in it, an output folder of nnunet_ext evaluate (with all metrics
that it holds), or a folder of predictions with the summary.json of nnUNetv2_evaluate_folder. NAME=FOLDER gives a run a
name. The same NAME several times makes the folders seeds of one method: figures are means over the seeds, intervals
are over seeds and cases.

Every figure has a 95 % bootstrap interval over cases, or over patients with --patients. Each run is compared with the
first one case by case: mean difference with its interval, Wilcoxon's signed-rank test, and Holm's correction for
several tests. Pictures of the worst, the median and the best case need the raw dataset: it is looked for in nnUNet_raw
and beside the results. The page is one file that loads nothing from elsewhere. Example:

    nnunet_ext report nnUNet_results/Dataset004_Hippocampus/nnUNetTrainer*__nnUNetPlans__3d_fullres -o report.html
    nnunet_ext report stock=EVALUATION_1 stock=EVALUATION_2 MixUp=EVALUATION_3 MixUp=EVALUATION_4 -o report.html
    nnunet_ext report EVALUATION_A EVALUATION_B --baseline EVALUATION_B --patients pairs.json -o report.html
"""

import argparse
import shlex
from pathlib import Path

from nnunet_ext.arguments import RESAMPLES, add_interval_options
from nnunet_ext.claims import only_run
from nnunet_ext.errors import UserError
from nnunet_ext.files import check_new_file

MEGABYTE = 1_000_000
MARK = b'<meta name="generator" content="nnunet_ext report">'
"""In the head of every page."""


def named_path(text: str) -> tuple[str | None, Path]:
    """``NAME=PATH`` or ``PATH``; what exists as it stands is a path, with whatever ``=`` in it."""
    name, equals, path = text.partition("=")
    if not equals or Path(text).exists():
        return None, Path(text)
    if not name or not path:
        raise argparse.ArgumentTypeError(f"{text} is neither a folder nor NAME=FOLDER")
    return name, Path(path).expanduser()  # behind a name the shell leaves ~ as it is


def add_arguments(parser: argparse.ArgumentParser) -> None:
    results = "folder with results; see above"
    parser.add_argument("results", type=named_path, nargs="+", metavar="[NAME=]RESULTS", help=results)
    parser.add_argument(
        "-o", "--output", "--out", dest="out", type=Path, required=True, help="file to write, ending in .html"
    )
    parser.add_argument("--title", help="heading of the page (default: the name of the dataset)")
    parser.add_argument("--baseline", metavar="NAME", help="run to compare the others with (default: the first)")
    add_interval_options(parser, purpose="intervals and tests")
    parser.add_argument("--force", action="store_true", help="replace the file, if this command made it")


def run(args: argparse.Namespace) -> int:
    with only_run(args.out):
        return report(args)


def report(args: argparse.Namespace) -> int:
    """Read the results, and write the page."""
    check_new_file(args.out, ending=".html", force=args.force, is_own=_is_report)

    from tqdm import tqdm

    from nnunet_ext.evaluation.patients import read_patients
    from nnunet_ext.report.page import write_report
    from nnunet_ext.report.runs import as_runs, every_case_a_patient
    from nnunet_ext.report.sources import read_results_folder

    progress = tqdm(args.results, desc="Reading results", unit="folder", disable=None, leave=False)
    runs = as_runs([(name, read_results_folder(path)) for name, path in progress])
    names = [run.name for run in runs]
    if args.baseline not in (None, *names):
        raise UserError(f"--baseline {args.baseline} is none of the runs. They are called: {'; '.join(names)}.")
    patients = every_case_a_patient(runs)
    if args.patients is not None:
        patients = read_patients(args.patients, patients)
    sets = dict.fromkeys(outcome.cases_of for one in runs for source in one.sources for outcome in source.outcomes)
    try:
        missing = write_report(
            args.out,
            runs,
            title=args.title or ", ".join(sets),
            patients=patients,
            resamples=args.bootstrap,
            baseline=0 if args.baseline is None else names.index(args.baseline),
            report_command=command_line(args),
        )
    except OSError as error:
        raise UserError(f"{args.out} cannot be written ({error.strerror}).") from None
    for line in missing:
        print(line)
    print(f"Wrote {args.out} ({args.out.stat().st_size / MEGABYTE:.1f} MB)")
    return 0


def _is_report(file: Path) -> bool:
    """Whether this command has written a page."""
    with file.open("rb") as handle:
        return MARK in handle.read(1000)


def command_line(args: argparse.Namespace) -> str:
    """The command that makes the same page again."""
    results = [str(path) if name is None else f"{name}={path}" for name, path in args.results]
    command = ["nnunet_ext", "report", *results, "-o", str(args.out)]
    for option in ("title", "baseline", "patients", "bootstrap"):
        value = getattr(args, option)
        command += [] if value in (None, RESAMPLES) else [f"--{option}", str(value)]
    return shlex.join(command)
