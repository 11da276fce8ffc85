"""Types of command-line arguments that argparse has no name for, and options that several commands have."""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from nnunet_ext.errors import UserError
from nnunet_ext.nnunet_names import FINAL, PLANS

T = TypeVar("T")

DEVICES = ("auto", "cpu", "cuda", "mps")
MOST_FOLDS = 1000  # each is a training
RESAMPLES = 2000  # enough for the second digit of a 95 % interval


def _number(kind: Callable[[str], T], fits: Callable[[T], bool], expected: str) -> Callable[[str], T]:
    """A type of argument: numbers of a kind that are in a range, which the error names."""

    def parse(text: str) -> T:
        value = kind(text)
        if not fits(value):
            raise argparse.ArgumentTypeError(f"{text} is not {expected}")
        return value

    parse.__name__ = kind.__name__  # argparse names it for what is no number
    return parse


positive = _number(int, lambda value: value >= 1, "at least 1")
not_negative = _number(int, lambda value: value >= 0, "at least 0")
not_negative_number = _number(float, lambda value: 0 <= value < float("inf"), "a number of at least 0")
positive_number = _number(float, lambda value: 0 < value < float("inf"), "a number above 0")
share = _number(float, lambda value: 0 < value <= 1, "above 0 and at most 1")
fraction = _number(float, lambda value: 0 <= value <= 1, "from 0 to 1")
probability = _number(float, lambda value: 0 < value < 1, "above 0 and below 1")
number_of_folds = _number(int, lambda value: 1 <= value <= MOST_FOLDS, f"from 1 to {MOST_FOLDS}")


def dataset_and_cases(text: str) -> tuple[str, str | None]:
    """``DATASET`` or ``DATASET:CASES``."""
    dataset, colon, selection = text.partition(":")
    if not dataset or (colon and selection not in ("test", "val", "all")):
        raise argparse.ArgumentTypeError(f"{text} is not DATASET, DATASET:test, DATASET:val or DATASET:all")
    return dataset, selection or None


def fold_name(text: str) -> int | str:
    """A fold: its number, or ``all``."""
    if text == "all":
        return text
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text} is neither the number of a fold nor all")
    return int(text)


def add_interval_options(parser: argparse.ArgumentParser, *, purpose: str) -> None:
    """The options of commands that show bootstrap intervals: ``--patients``, for a purpose, and ``--bootstrap``."""
    patients = f'for {purpose}: JSON, {{"CASE": "PATIENT", ...}} or a pairs.json of nnunet_ext pair. The cases of one '
    patients += "patient are drawn together (default: each case is a patient)"
    parser.add_argument("--patients", type=Path, metavar="FILE", help=patients)
    resamples = "resamples for the intervals, 0 for no intervals (default: %(default)s)"
    parser.add_argument("--bootstrap", type=not_negative, default=RESAMPLES, metavar="N", help=resamples)


def add_new_dataset_options(parser: argparse.ArgumentParser) -> None:
    """The options of commands that write a raw dataset: ``-o`` and ``--force``."""
    parser.add_argument(
        "-o", "--output", "--out", required=True, metavar="DatasetXXX_Name", help="raw dataset to write"
    )
    parser.add_argument("--force", action="store_true", help="replace a dataset of that name that this package made")


def add_teacher_options(
    parser: argparse.ArgumentParser, *, never_seen: bool = False, several: str = "are an ensemble"
) -> None:
    """The options of commands that predict a dataset's own cases.

    Args:
        parser: gets them.
        never_seen: whether a fold never predicts its own cases.
        several: what is said of several folds.
    """
    folds = f"folds of the model; several {several} (default: 0)"
    if never_seen:
        folds = "folds of the model (default: all that are trained)"
    default = None if never_seen else [0]
    parser.add_argument("-f", "--folds", type=fold_name, nargs="+", default=default, metavar="FOLD", help=folds)
    unseen = "predict each case by those of the folds that have not trained on it: a fold has learned that what is "
    unseen += "un-annotated in its own cases is background, or knows its own pseudo labels by heart"
    if not never_seen:
        parser.add_argument("--out-of-fold", action="store_true", help=unseen)
    parser.add_argument("--checkpoint", default=FINAL, help="file in each fold (default: %(default)s)")
    parser.add_argument("--device", choices=DEVICES, default="auto", help="device to predict on (default: %(default)s)")
    parser.add_argument("--disable-tta", action="store_true", help="predict without mirroring: faster, less accurate")


def teacher_options(args: argparse.Namespace) -> dict[str, Any]:
    """What `add_teacher_options` adds, for `load_teacher`, but for ``--out-of-fold``."""
    chosen = {name: getattr(args, name) for name in ("folds", "checkpoint", "device")}
    return {**chosen, "mirroring": not args.disable_tta}


def add_largest_component_option(add: Callable[..., argparse.Action], *, purpose: str) -> None:
    """The option ``--largest-component``, for a purpose, of commands that take a body for one piece."""
    keep = f"{purpose}; one body is the foreground as a whole, or each label"
    add("--largest-component", choices=["foreground", "labels"], help=keep)


def add_plans_options(parser: argparse.ArgumentParser) -> None:
    """The options of commands that read a plans file: ``-d`` and ``-p``."""
    parser.add_argument("-d", "--dataset", required=True, help="id or name of the dataset")
    parser.add_argument("-p", "--plans", default=PLANS, help="plans identifier (default: %(default)s)")


def add_source_options(parser: argparse.ArgumentParser) -> None:
    """The options of commands that read public weights: ``--source``, ``--parts`` and ``--stem``."""
    names = ["nnssl", "stunet", "totalsegmentator", "multitalent", "vocomni", "nnunet", "weights"]
    reader = f"how SOURCE is read: {', '.join(names)} (default: told from its content)"
    parser.add_argument("--source", dest="reader", choices=names, metavar="READER", help=reader)
    parts = "what to take of it: its encoder, or all (default: what it is good for)"
    parser.add_argument("--parts", choices=["encoder", "all"], help=parts)
    stem = "of a network with several stems (MultiTalent), the one to take"
    parser.add_argument("--stem", metavar="NAME", help=stem)


def parse_settings(assignments: list[str]) -> dict[str, Any]:
    """Turn ``["num_epochs=5", "mixup.alpha=0.2"]`` into ``{"num_epochs": 5, "mixup": {"alpha": 0.2}}``."""
    result: dict[str, Any] = {}
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        if not equals or not key:
            raise UserError(f"{assignment!r} is no setting. Expected: KEY=VALUE, e.g. num_epochs=50.")
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):  # no JSON, a number of thousands of digits, or thousands of brackets
            value = text
        *sections, name = key.split(".")
        block = result
        for section in sections:
            block = block.setdefault(section, {})
            if not isinstance(block, dict):
                raise UserError(f"{section!r} is given both a value and settings of its own. Leave one out.")
        if name in block:
            raise UserError(f"The setting {key!r} is given twice. Leave one out.")
        block[name] = value
    return result
