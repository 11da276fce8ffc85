"""Write folds: few-shot ones, drawn from a seed, or a cross-validation of whole patients.

Writes nnU-Net's own splits_final.json. --shots draws a few training cases for each fold, and the validation cases. The
draws of one seed are nested: 1 shot is among 5 shots, 5 are among 10, with the same validation cases for the same
--val. --cross-validation divides the dataset into folds: each case is in the validation of one of them, and in the
training of the others. Without --group, --folds and --seed these are nnU-Net's own five folds,
unless `nnunet_ext pair` made the dataset.

With --append the folds that are there stay as they were. With --group, shots, --val and the parts of a cross-validation
are of patients, each with all of its cases, so that no patient is in both parts of a fold. Of datasets that
`nnunet_ext pair` made the patients are known, and always kept together. Example:

    nnunet_ext split -d 4 --shots 5 --val 20 --append
    nnunet_ext split -d 27 --shots 3 --seed 1 --folds 3 --group "patient[0-9]+"
    nnunet_ext split -d 27 --cross-validation --folds 3 --group "patient[0-9]+" --force
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from contextlib import nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from nnunet_ext.arguments import not_negative, number_of_folds, positive
from nnunet_ext.claims import only_run
from nnunet_ext.errors import UserError
from nnunet_ext.files import read_json, write_json
from nnunet_ext.messages import counted
from nnunet_ext.nnunet_folders import dataset_folder
from nnunet_ext.nnunet_names import PLANS
from nnunet_ext.plans import plans_file

if TYPE_CHECKING:
    from nnunet_ext.formats.splits import Fold

SHOWN = 10  # training cases that are named one by one


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-d", "--dataset", required=True, help="id or name of the dataset")
    kind = parser.add_mutually_exclusive_group(required=True)
    kind.add_argument("--shots", type=positive, metavar="K", help="draw folds of so many training cases")
    divide = "divide the dataset into folds, of which each validates other cases"
    kind.add_argument("--cross-validation", action="store_true", help=divide)
    seed = "random seed (default: 0; of a cross-validation that of nnU-Net's own folds)"
    parser.add_argument("--seed", type=not_negative, metavar="S", help=seed)
    number = "number of folds (default: 1; of a cross-validation 5)"
    parser.add_argument("--folds", type=number_of_folds, metavar="F", help=number)
    parser.add_argument("--group", metavar="REGEX", help="pattern in a case's name whose first group is the patient")
    validation = "for --shots: validation cases of a fold (default: all the rest)"
    parser.add_argument("--val", type=positive, metavar="N", help=validation)
    parser.add_argument("--append", action="store_true", help="add the folds behind those that are there")
    parser.add_argument("--force", action="store_true", help="replace a splits_final.json that is there")


def run(args: argparse.Namespace) -> int:
    from nnunet_ext.preprocessing.raw import patients, splits

    if args.append and args.force:
        raise UserError("--append keeps what is there and --force replaces it: give one of them.")
    if args.cross_validation and args.val is not None:
        raise UserError("--val is for --shots: a cross-validation validates each case once. Leave --val out.")
    folder, cases = splits.find_dataset(args.dataset)
    file = folder / splits.SPLITS
    raw = dataset_folder("nnUNet_raw", folder.name) if os.environ.get("nnUNet_raw") else None
    groups = patients.groups_of_cases(cases, args.group, raw)
    drawn = drawn_folds(args, groups)
    with only_run(file, patience_s=plans_file.PATIENCE_S):
        existing = []
        with suppress(UserError) if args.force else nullcontext():  # what is no split is replaced
            existing = splits.read_splits(file) if file.is_file() else []
        folds, numbers = drawn, list(range(len(drawn)))
        if args.append:
            if not existing:
                raise UserError(
                    f"{file} has no folds to append to. nnU-Net writes its five folds when the first training starts; "
                    "leave --append out to have the new folds alone."
                )
            splits.check_known(existing, cases, file=file)
            folds, numbers = splits.appended(existing, drawn)
        elif existing and folds != existing and not args.force:
            raise UserError(f"{file} has other folds. Add --append to keep them, or --force to replace them.")
        if folds != existing:
            folder.mkdir(parents=True, exist_ok=True)
            write_json(file, folds)
    print(f"{'Wrote' if folds != existing else 'Already there:'} {file}")
    for number, fold in zip(numbers, drawn):
        is_there = number < len(existing) and splits.same_fold(existing[number], fold)
        note = ", already there" if is_there else ""
        print(f"\nFold {number}{note}\n  training: {cases_and_patients(fold['train'], groups, named=True)}")
        print(f"  validation: {cases_and_patients(fold['val'], groups)}")
        if left := sorted(set(cases).difference(fold["train"], fold["val"])):
            print(f"  in neither part: {cases_and_patients(left, groups)}")
        print(f"  nnUNetv2_train {args.dataset} {usual_training(folder, number)}")
    kept = [splits.same_fold(*pair) for pair in zip(existing, folds)]
    others = [number for number in range(len(existing)) if not (number < len(kept) and kept[number])]
    if trained := trained_folds(folder.name, others):
        print(
            f"\nModels of {folder.name} were trained on other folds {', '.join(map(str, trained))}. They may have "
            "trained on the validation cases of the new ones. Train anew, or give the new folds other numbers with "
            "--append.",
            file=sys.stderr,
        )
    if (source := splits.refused_by_planning(folder.name, folds)) is not None:
        print(
            f"\n{source} has other folds: nnUNetv2_plan_and_preprocess and nnUNetv2_plan_experiment will stop at the "
            "difference. Move that file away before planning again.",
            file=sys.stderr,
        )
    return 0


def drawn_folds(args: argparse.Namespace, groups: Mapping[str, Sequence[str]]) -> list[Fold]:
    """The folds that are asked for, of the cases of each patient."""
    from nnunet_ext.preprocessing.raw import splits

    if args.cross_validation:
        asked = {"folds": args.folds, "seed": args.seed}
        return splits.divide(groups, **{name: value for name, value in asked.items() if value is not None})
    draw = partial(splits.draw_fold, groups, shots=args.shots, seed=args.seed or 0, validation=args.val)
    return [draw(fold=fold) for fold in range(args.folds or 1)]


def cases_and_patients(cases: Sequence[str], groups: Mapping[str, Sequence[str]], *, named: bool = False) -> str:
    """How many cases, and of how many patients where these have several; their names too if asked and they are few."""
    patients = sum(any(case in cases for case in members) for members in groups.values())
    text = counted(len(cases), "case")
    if any(len(members) > 1 for members in groups.values()):
        text = f"{counted(patients, 'patient')} = {text}"
    return f"{text}: {', '.join(cases)}" if named and len(cases) <= SHOWN else text


def usual_training(folder: Path, number: int) -> str:
    """Configuration, fold and plans to name in an example: 3d_fullres, unless the plans were made without it."""
    plans = folder / f"{PLANS}.json"
    if not plans.is_file() and len(others := list(folder.glob("*Plans*.json"))) == 1:
        (plans,) = others
    content = read_json(plans) if plans.is_file() else {}
    configurations = content.get("configurations") if isinstance(content, dict) else None
    name = "2d" if isinstance(configurations, dict) and "3d_fullres" not in configurations else "3d_fullres"
    return f"{name} {number}" + ("" if plans.stem == PLANS else f" -p {shlex.quote(plans.stem)}")


def trained_folds(dataset: str, numbers: Sequence[int]) -> list[int]:
    """Those of some folds that a model of a dataset was trained on."""
    results = os.environ.get("nnUNet_results")
    there = Path(results, dataset).glob("*/fold_*") if results else ()
    names = {path.name for path in there}
    return [number for number in numbers if f"fold_{number}" in names]
