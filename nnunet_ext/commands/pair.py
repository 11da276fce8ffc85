"""Make a dataset of current scans with their priors, or the same for prediction.

Channel 0 is the current image, channel 1 the prior image on its grid, the others are the prior labels, one binary
channel for each. A prior may be missing: its channels are 0 then. The table has the columns patient, current_image,
prior_image, prior_label, current_label and, where a patient has several lines, case; its paths are relative to it, and
empty cells say that there is no prior. Folders have files of the same names instead. With --registration none a prior
stays where its header has it, and is resampled only if its grid is another. A registration that diverges stops the
command when all others are done. pairs.json in the dataset says for each case what was done, and the folder pictures
shows each registration. Patients are never in two parts of a fold. A run that was interrupted goes on if the same is
asked again. Example:

    nnunet_ext pair --table pairs.csv --labels RV=1 MYO=2 LV=3 -o Dataset811_Heart --registration affine
    nnunet_ext pair --current now --current-segmentations now_labels \\
        --prior before --prior-segmentations before_labels --labels tumour=1 -o Dataset812_Tumour
    nnunet_ext pair --predict --like MODEL_FOLDER --table new.csv -o new_images
    nnUNetv2_predict -i new_images -o predictions -d 811 -c 3d_fullres -tr nnUNetTrainerDualEncoder
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, get_args

from nnunet_ext.arguments import not_negative_number
from nnunet_ext.errors import UserError
from nnunet_ext.files import check_apart
from nnunet_ext.formats.pairing import RegistrationKind
from nnunet_ext.messages import SHOWN, counted, some
from nnunet_ext.nnunet_folders import folder_of_variable, raw_folder
from nnunet_ext.nnunet_names import FINAL

if TYPE_CHECKING:
    from nnunet_ext.preprocessing.pairs.longitudinal_dataset import PreparedPairs
    from nnunet_ext.preprocessing.pairs.paired_case import Pairing
    from nnunet_ext.preprocessing.pairs.pairing import Pair

FOLDERS = ("current", "prior", "prior_segmentations", "current_segmentations", "group")
PREPARATION = ("labels", "modality", "registration", "no_prior_image", "no_prior_labels", "crop_to_body")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-o", "--output", "--out", required=True, help="DatasetXXX_Name; with --predict a folder of images"
    )
    where = parser.add_argument_group("where the scans are: a table, or folders with files of the same names")
    where.add_argument("--table", type=Path, metavar="CSV", help="table of files")
    where.add_argument("--current", type=Path, metavar="DIR", help="current images")
    where.add_argument("--prior", type=Path, metavar="DIR", help="prior images")
    where.add_argument("--prior-segmentations", type=Path, metavar="DIR", help="label maps of the prior images")
    where.add_argument("--current-segmentations", type=Path, metavar="DIR", help="label maps of the current images")
    where.add_argument("--group", metavar="REGEX", help="pattern in a file's name whose first group is the patient")
    what = parser.add_argument_group("what is made of them; with --predict this is what it was for the model")
    what.add_argument("--labels", nargs="+", type=label, metavar="NAME=VALUE", help="all labels but background")
    what.add_argument("--modality", help="name of the current channel, e.g. CT (default: MRI)")
    what.add_argument(
        "--registration",
        choices=get_args(RegistrationKind),
        help="registration of priors to current scans (default: none)",
    )
    what.add_argument("--no-prior-image", action="store_true", help="use the prior labels alone")
    what.add_argument("--no-prior-labels", action="store_true", help="use the prior image alone")
    margin = "crop to the current body and a margin around it"
    what.add_argument("--crop-to-body", type=not_negative_number, metavar="MM", help=margin)
    matched = "match the intensities of all images to this one, e.g. those of CT to an MRI; with --predict where it is "
    matched += "now, if it is no longer where dataset.json says"
    what.add_argument("--match-histogram", type=Path, metavar="IMAGE", help=matched)
    diverged = "what to do where a registration diverged: stop when the others are done, leave the prior where its "
    diverged += "header has it, or go on without it (default: %(default)s)"
    ways = ("stop", "unregistered", "without-prior")
    parser.add_argument("--if-diverged", choices=ways, default="stop", help=diverged)
    parser.add_argument("--predict", action="store_true", help="write images for nnUNetv2_predict")
    parser.add_argument("--like", metavar="DATASET|MODEL_FOLDER", help="with --predict: prepare the scans as for this")
    parser.add_argument("--force", action="store_true", help="replace what this package made under that name")


def label(text: str) -> tuple[str, int]:
    """A label's name and value."""
    name, separator, value = text.rpartition("=")
    if not separator or not name or not value.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE, e.g. tumour=1")
    return name, int(value)


def run(args: argparse.Namespace) -> int:
    check_arguments(args)
    from nnunet_ext.preprocessing.pairs import longitudinal_dataset as longitudinal

    pairing, like = pairing_like(args.like, args.match_histogram) if args.predict else (asked_pairing(args), None)
    pairs = read_pairs(args, pairing)
    target = Path(args.output) if args.predict else folder_of_variable("nnUNet_raw") / args.output
    check_apart(target, filter(None, (args.table, like)))
    make = longitudinal.make_prediction_images if args.predict else longitudinal.make_longitudinal_dataset
    try:
        outcome = make(pairs, args.output, pairing, if_diverged=args.if_diverged, force=args.force)
    except longitudinal.Diverged as error:
        print(f"nnunet_ext pair: {error}", file=sys.stderr)
        return 1
    print(f"Wrote {args.output} in {outcome.seconds:.0f} s.\n")
    print(outcome_summary(outcome, pairing, pairs))
    print(next_commands(args.output, like))
    return 0


def check_arguments(args: argparse.Namespace) -> None:
    """Raise a UserError unless the arguments fit each other."""
    if args.table is not None and (given := given_options(args, FOLDERS)):
        raise UserError(f"--table says where all files are: leave {given} out.")
    if args.table is None and args.current is None:
        raise UserError("Where are the scans? Give --table, or --current and the other folders.")
    if args.predict:
        if args.like is None:
            raise UserError("--predict needs --like: the dataset of pairs, or the folder of a model trained on it.")
        if given := given_options(args, PREPARATION):
            raise UserError(f"With --predict the scans are prepared as {args.like} was: leave {given} out.")
        if args.current_segmentations is not None:
            raise UserError("Prediction takes no labels of the current scans: leave --current-segmentations out.")
        return
    if args.like is not None:
        raise UserError("--like belongs to --predict. Add --predict, or leave --like out.")
    if args.no_prior_image and args.no_prior_labels:
        raise UserError("--no-prior-image and --no-prior-labels leave nothing of the prior. Give one of them.")
    if args.labels is None:
        raise UserError("--labels is needed, e.g. --labels tumour=1 node=2")
    if args.current is not None:
        unused = {"prior": args.no_prior_image, "prior_segmentations": args.no_prior_labels}
        if missing := [name for name in FOLDERS[1:4] if getattr(args, name) is None and not unused.get(name)]:
            raise UserError(
                f"Missing: {options(missing)}. A dataset needs the current label maps, and the prior's images and "
                "label maps unless --no-prior-image or --no-prior-labels says that they are not used."
            )


def given_options(args: argparse.Namespace, names: Sequence[str]) -> str:
    """Those of some options that are given, as they are typed."""
    return options([name for name in names if getattr(args, name) is not None and getattr(args, name) is not False])


def options(names: Sequence[str]) -> str:
    """Options as they are typed."""
    return ", ".join(f"--{name.replace('_', '-')}" for name in names)


def asked_pairing(args: argparse.Namespace) -> Pairing:
    """What the arguments ask for; a UserError if the labels are not numbered as nnU-Net wants it."""
    from nnunet_ext.preprocessing.pairs.paired_case import IGNORE, Pairing

    named = [(name, value) for name, value in args.labels if (name, value) != ("background", 0)]
    labels = dict(sorted(named, key=lambda one: one[1]))
    told = " ".join(f"{name}={value}" for name, value in args.labels)
    if len(labels) != len(named) or list(labels.values()) != list(range(1, len(labels) + 1)) or "background" in labels:
        raise UserError(
            f"--labels {told}: nnU-Net needs each name once, with the values 1, 2, 3, … without gaps (background is "
            "0). Number the labels so, in the files too."
        )
    if list(labels) == [IGNORE] or IGNORE in list(labels)[:-1]:
        raise UserError(f"--labels {told}: {IGNORE} needs the highest value, behind one label at least.")
    return Pairing(
        labels,
        modality=args.modality or "MRI",
        registration=args.registration or "none",
        prior_image=not args.no_prior_image,
        prior_labels=not args.no_prior_labels,
        crop_to_body=args.crop_to_body,
        match_histogram=args.match_histogram and str(args.match_histogram.resolve()),
    )


def pairing_like(like: str, matched: Path | None) -> tuple[Pairing, Path]:
    """What was made of the pairs of a raw dataset, by id, name or folder, or of a model's folder; and that folder.

    `matched` is where the image of `--match-histogram` is now; None if it is where it was.
    """
    from nnunet_ext.formats.dataset_json import read_dataset_json
    from nnunet_ext.formats.summary import path_of
    from nnunet_ext.preprocessing.pairs.longitudinal_dataset import pairing_of

    folder = Path(like)
    if not folder.is_dir():
        if folder.name != like:
            raise UserError(f"{like} does not exist. Expected: a dataset by id or name, or the folder of a model.")
        folder = raw_folder(like)
    elif not (folder / "dataset.json").is_file():
        raise UserError(f"{like} has no dataset.json. Expected: a dataset, or a folder TRAINER__PLANS__CONFIGURATION.")
    file = folder / "dataset.json"
    pairing = pairing_of(read_dataset_json(file), where=file)
    if matched is not None:
        if pairing.match_histogram is None or path_of(pairing.match_histogram).name != matched.name:
            found = f"to {pairing.match_histogram}" if pairing.match_histogram else "to none"
            raise UserError(
                f"--match-histogram {matched}: by {file} the intensities of all images were matched {found}. Name that "
                "image, or leave the option out."
            )
        pairing = replace(pairing, match_histogram=str(matched.resolve()))
    elif pairing.match_histogram is not None and not Path(pairing.match_histogram).is_file():
        raise UserError(
            f"By {file} the intensities of all images were matched to {pairing.match_histogram}, which is not there. "
            "Name the file of that image with --match-histogram."
        )
    return pairing, folder


def read_pairs(args: argparse.Namespace, pairing: Pairing) -> list[Pair]:
    """The files of each case, from the table or the folders."""
    from nnunet_ext.preprocessing.pairs.pairing import PRIOR_IMAGE, PRIOR_LABEL, find_pairs, read_table

    if args.table is not None:
        wanted = [PRIOR_IMAGE] * pairing.prior_image + [PRIOR_LABEL] * pairing.prior_labels
        return read_table(args.table, wanted=wanted, with_labels=not args.predict)
    return find_pairs(
        args.current,
        prior=args.prior,
        prior_segmentations=args.prior_segmentations,
        current_segmentations=args.current_segmentations,
        group=args.group,
    )


def outcome_summary(outcome: PreparedPairs, pairing: Pairing, pairs: Sequence[Pair]) -> str:
    """What was made, in lines."""
    from nnunet_ext.preprocessing.pairs.longitudinal_dataset import RECORD

    records = outcome.records
    patients = len({pair.patient for pair in pairs})
    prior = ["prior image"] * pairing.prior_image + [f"prior {name}" for name in pairing.prior_values]
    priors = Counter(record["prior"] for record in records.values()).most_common()
    lines = [
        f"Cases: {len(records)} of {counted(patients, 'patient')}.",
        f"Channels: {', '.join((f'current {pairing.modality}', *prior))}.",
        f"Prior: {', '.join(f'{kind} in {number}' for kind, number in priors)}.",
    ]
    moved = [record for record in records.values() if record.get("similarity_after") is not None]
    if moved:
        before, after = (median(record[f"similarity_{when}"] for record in moved) for when in ("before", "after"))
        shift = median(record["mean_displacement_mm"] for record in moved)
        lines.append(
            f"Registration ({pairing.registration}): median similarity {before:.3f} before, {after:.3f} after; median "
            f"displacement {shift:.1f} mm. Look at the pictures."
        )
    unregistered = {case: record for case, record in records.items() if record["registration"] == "none"}
    if resampled := [case for case, record in unregistered.items() if record["resampled"]]:
        lines.append(
            f"Resampled by their headers, because prior and current grids differ: {len(resampled)} ({some(resampled)})."
        )
    if replaced := [case for case, record in records.items() if record.get("if_diverged")]:
        kind = records[replaced[0]]["if_diverged"]
        lines.append(f"Diverged, and taken as {kind}: {len(replaced)} ({some(replaced)}).")
    if not any(pair.prior_image or pair.prior_label for pair in pairs):
        lines.append("Warning: no case has a prior.")
    if outcome.folds:
        few = " (fewer than 5 patients)" if len(outcome.folds) < 5 else ""
        lines.append(f"Folds: {len(outcome.folds)}, patients apart{few}.")
    warned = {case: record["warnings"] for case, record in records.items() if record["warnings"]}
    lines += [f"Warning, {case}: {'; '.join(warnings)}." for case, warnings in list(warned.items())[:SHOWN]]
    if len(warned) > SHOWN:
        lines.append(f"… and warnings of {len(warned) - SHOWN} more cases.")
    lines.append(f"What was done to each case is in {RECORD}.")
    return "\n".join(lines)


def next_commands(output: str, like: Path | None) -> str:
    """How to go on: training, or prediction like that of a model."""
    from nnunet_ext.checkpoints.trained_model import folds_of
    from nnunet_ext.preprocessing.raw.next_steps import next_steps

    if like is None:
        return next_steps(output, "nnUNetTrainerDualEncoder")
    command = ["nnUNetv2_predict", "-d", like.name, "-tr", "nnUNetTrainerDualEncoder", "-c", "CONFIGURATION"]
    folds: list[int | str] = [0]
    if (like / "plans.json").is_file():
        command = ["nnUNetv2_predict_from_modelfolder", "-m", str(like)]
        folds = folds_of(like, FINAL) or folds
    command += ["-i", output, "-o", "PREDICTIONS", "-f", *map(str, folds)]
    return f"\nNext:\n  {shlex.join(command)}"
