"""What to try with a dataset, in which order, and what is known about it.

Reads every image and label map of a raw dataset but those of imagesTs, which `nnunet_ext check` reads, too, and prints
what to try: the baseline of stock nnU-Net first, then the techniques that the data are made for, each with its
commands, the expected time, the reason, and what was measured so far. Where a technique has not been shown to beat the
baseline, it says so. Times come from a probe of some seconds on this machine or, with --gpu on a machine without one,
from published step times. On a machine without a GPU, such as a cluster's login node, the commands are for the CPU
unless --gpu is given.

Of a dataset that `nnunet_ext unlabelled` made it says what images without labels are for.

It changes nothing. Exit status 0 if the files have no problem, 1 if they have one. Examples:

    nnunet_ext advise -d 5
    nnunet_ext advise -d 5 --hours 24 --gpu 12
"""

from __future__ import annotations

import argparse
import json
import textwrap
from typing import TYPE_CHECKING

from nnunet_ext.arguments import positive_number
from nnunet_ext.errors import UserError
from nnunet_ext.findings import WIDTH

if TYPE_CHECKING:
    from nnunet_ext.diagnosis.advising import Step

ELSEWHERE = "This advice is for one dataset. For images without labels elsewhere see docs/techniques/pretraining.md."
PAGES = "Pages that begin with docs/ are in the repository of this package."
NO_LABELS = """It has no labels: those in its files are placeholders of `nnunet_ext unlabelled`, which let nnU-Net's
commands read the images. No segmentation can be learned from it alone. This is what it is for, beside a dataset with
labels of the same channels (TARGET):"""
MANY = 3  # components of a label in a case: enough to ask whether all were annotated


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-d", "--dataset", required=True, help="id or name of the dataset")
    hours = "time for one training in hours (default: as long as nnU-Net takes, up to a week)"
    parser.add_argument("--hours", type=positive_number, metavar="H", help=hours)
    gpu = "memory in GB of the GPU that trains (default: the one here, with nnU-Net's plans for 8 GB)"
    parser.add_argument("--gpu", type=positive_number, metavar="GB", help=gpu)
    missing = "some instances, such as lesions, are missing in the labels, which no file can tell"
    parser.add_argument("--missing-instances", action="store_true", help=missing)
    wrong = "some of the dense labels are wrong, which no file can tell either"
    parser.add_argument("--wrong-labels", action="store_true", help=wrong)
    parser.add_argument("--no-times", action="store_true", help="leave out the probe, and with it all times")
    parser.add_argument("--json", action="store_true", help="print the advice as JSON, for programs")


def run(args: argparse.Namespace) -> int:
    from nnunet_ext.diagnosis import advising
    from nnunet_ext.diagnosis.step_times import benchmarked, probed
    from nnunet_ext.machine import choose_device
    from nnunet_ext.preprocessing.checks import check_dataset
    from nnunet_ext.preprocessing.checks.facts import FactsCheck
    from nnunet_ext.preprocessing.checks.foreground import ForegroundCheck
    from nnunet_ext.preprocessing.raw.raw_dataset import read_raw_dataset
    from nnunet_ext.registry import TECHNIQUES, user_techniques

    dataset = read_raw_dataset(args.dataset)
    check = FactsCheck(dataset, missing_instances=args.missing_instances, wrong_labels=args.wrong_labels)
    found_in_data = check_dataset(dataset, [check, ForegroundCheck], with_test=False)
    problems = [finding for finding in found_in_data if finding.severity == "problem"]
    if not check.shapes:
        raise UserError(f"No case of {dataset.folder} can be read:\n" + "\n".join(map(str, problems)))
    facts, name = check.facts(), dataset.folder.name
    advice = advising.advice_for(facts, [*TECHNIQUES, *user_techniques()[0]])
    here = choose_device("auto")
    has_gpu = args.gpu is not None or here != "cpu"
    probe = None
    if not args.no_times:
        elsewhere = args.gpu is not None and here == "cpu"
        probe = (
            (lambda dims, _: benchmarked(dims)) if elsewhere else (lambda dims, wide: probed(dims, here, features=wide))
        )
    found, note = [], ""
    if advice:
        schedule = advising.schedule_for(
            advice,
            network=advising.planned_network(name, facts) or advising.usual_network(facts),
            probe=probe,
            hours=args.hours,
            gpu_gb=args.gpu,
            on_cpu=not has_gpu,
        )
        cases = advising.cases_of(advice, facts)
        if advising.has_folds(dataset.folder):
            cases.pop("", None)
        schedule = advising.with_folds(schedule, cases)
        found, note = advising.steps(advice, schedule, name=name), schedule.note
        if args.gpu is not None and (most := max(step.memory_gb or 0 for step in found)) > args.gpu:
            note += f" The largest training needs about {most:.1f} GB of GPU memory, more than there is."
    uses = advising.uses_of_images(name, facts, on_cpu=not has_gpu) if facts.placeholders else []
    if args.json:
        told = {"problems": [problem.detail for problem in problems], **advising.as_json(facts, found, uses, note)}
        print(json.dumps({"dataset": name, **told}, indent=2))
        return 1 if problems else 0
    print(_wrapped(f"{name}: {advising.described(facts)}"))
    if problems:
        print("\nFix this first:\n" + "\n".join(map(str, problems)))
    if not facts.missing_instances and facts.instances >= MANY:
        print(
            _wrapped("\nCases have several instances of a label. If some were not annotated, add --missing-instances.")
        )
    if uses:
        print("\n" + _wrapped(NO_LABELS))
    for number, use in enumerate(uses, 1):
        print(f"\n{number}. {use.why}", f"   See {use.page}", *(f"   $ {line}" for line in use.commands), sep="\n")
    if not found and not uses:
        print("\nNo technique here is made for such data.")
    for number, step in enumerate(found, 1):
        print(f"\n{number}. {step.trainer}{' (baseline)' * step.is_baseline}")
        verdict = "" if step.is_baseline else f" ({step.verdict})"
        lines = [step.why, f"It needs {step.needs}." if step.needs else ""]
        lines += [_cost(step, in_gpu_memory=has_gpu), f"Evidence{verdict}: {step.evidence}"]
        print(*(_wrapped(line, "   ") for line in lines if line), f"   See {step.results}", sep="\n")
        print(*(f"   $ {command}" for command in step.commands), sep="\n")
    if note:
        print("\n" + _wrapped(note))
    if len(found) > 1:
        print("\n" + _wrapped("Score all on the same cases with nnunet_ext evaluate, and see docs/choose.md."))
    if not facts.unlabelled:
        print(f"\n{ELSEWHERE}")
    print(f"\n{PAGES}")
    return 1 if problems else 0


def _cost(step: Step, *, in_gpu_memory: bool) -> str:
    """What a training is expected to take, in a sentence; empty if nothing was estimated."""
    from nnunet_ext.diagnosis.advising import in_words

    cost = [] if step.hours is None else [f"about {in_words(step.hours)} for one fold"]
    if step.memory_gb is None:
        cost = [f"{time}, if the source's network is as large as the planned one" for time in cost]
    if in_gpu_memory and step.memory_gb is None:
        cost.append("the GPU memory that the source was planned for (less with a smaller patch: plan --like --patch)")
    elif in_gpu_memory:
        cost.append(f"about {step.memory_gb:.0f} GB of GPU memory")
    return f"Expect {' and '.join(cost)}." if cost else ""


def _wrapped(text: str, indent: str = "") -> str:
    return textwrap.fill(
        text, WIDTH, initial_indent=indent, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )
