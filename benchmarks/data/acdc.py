"""Cine MRI of the heart (ACDC): scribbles, full masks, and pairs of the two phases as current and prior scan."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import SimpleITK as sitk

from benchmarks.data.domain_shift import ACDC, case_generator
from benchmarks.data.raw import copy_labels, groups_of_splits, original, pseudo_labelled
from benchmarks.engine.experiment import Draw
from nnunet_ext.errors import UserError
from nnunet_ext.files import read_json, write_text
from nnunet_ext.plans.channel_roles import LONGITUDINAL, roles_of_dataset
from nnunet_ext.preprocessing.raw.new_dataset import new_dataset, write_description
from nnunet_ext.preprocessing.raw.raw_dataset import Case, RawDataset, read_raw_dataset

ORIGIN = ACDC
MASKS = "labelsTr_dense"
PHASES = ("current", "prior")
LABELS = {"RV": 1, "MYO": 2, "LV": 3}
FURTHER = 40
"""How far the number of a dataset is from that of the one that it is made from."""


def patient_of(case: str) -> str:
    """``patient007`` of ``patient007_frame01``."""
    return case.split("_")[0]


def scan_groups() -> list[dict[str, list[str]]]:
    """The patients of each of the original's folds with both scans of each."""
    return groups_of_splits(ORIGIN, patient_of)


def patient_groups() -> list[dict[str, list[str]]]:
    """The same for datasets with one case for each patient, which is named by him."""
    return [{patient: [patient] for patient in group} for group in scan_groups()]


def with_masks(dataset: RawDataset) -> dict[str, Case]:
    """The original's cases with their full masks for labels.

    Raises:
        UserError: if the original has no scribbles, or lacks full masks.
    """
    folder = dataset.folder / MASKS
    cases = {name: Case(case.images, folder / case.label.name) for name, case in dataset.cases.items()}
    without = [name for name, case in cases.items() if not case.label.is_file()]
    if without or "ignore" not in dataset.description["labels"]:
        raise UserError(
            f"{dataset.folder} must have scribbles with the label `ignore` in labelsTr, and full masks in {MASKS}; "
            f"{len(without)} cases have no mask."
        )
    return cases


def write_labels(folder: Path, draw: Draw, *, is_dense: bool) -> None:
    """The scribbles with the full masks beside them, or the full masks for labels; images are the original's."""
    dataset = read_raw_dataset(ORIGIN)
    masks, labels = with_masks(dataset), dict(dataset.description["labels"])
    cases = masks if is_dense else dataset.cases
    if is_dense:
        del labels["ignore"]
    with new_dataset(folder.name, force=False) as unfinished:
        copy_labels(cases, unfinished / "labelsTr")
        copy_labels(masks, unfinished / MASKS)
        content = {**dataset.description, "labels": labels}
        write_description(unfinished, folder.name, cases, content, about={"from": ORIGIN})


def write_masks(folder: Path, draw: Draw) -> None:
    """The full masks for labels, with nothing beside them."""
    dataset = read_raw_dataset(ORIGIN)
    labels = {name: value for name, value in dataset.description["labels"].items() if name != "ignore"}
    with new_dataset(folder.name, force=False) as unfinished:
        cases = with_masks(dataset)
        copy_labels(cases, unfinished / "labelsTr")
        write_description(
            unfinished, folder.name, cases, {**dataset.description, "labels": labels}, about={"from": ORIGIN}
        )


def pairs(folder: Path, draw: Draw, *, options: Sequence[str] = ()) -> Sequence[str]:
    """Write the table of pairs, end of diastole before end of systole; the command that makes the dataset of it."""
    origin, table, rows = original(ORIGIN).resolve(), folder.parents[1] / "pairs.csv", []
    for pair in read_json(origin / "two_phase_pairs.json"):
        row = {"patient": pair["patient"]}
        row |= {f"{phase}_image": str(origin / "imagesTr" / f"{pair[phase]}_0000.nii.gz") for phase in PHASES}
        rows.append(row | {f"{phase}_label": str(origin / MASKS / f"{pair[phase]}.nii.gz") for phase in PHASES})
    write_text(table, pd.DataFrame(rows).to_csv(index=False, lineterminator="\n"))
    labels = [f"{name}={value}" for name, value in LABELS.items()]
    command = ["nnunet_ext", "pair", "-o", folder.name, "--table", str(table), "--modality", "cineMRI"]
    return [*command, "--labels", *labels, "--registration", "none", *options]


def write_open(folder: Path, labelled: Collection[str]) -> None:
    """The full masks of some cases, and the ignore label everywhere in the others."""
    dataset = read_raw_dataset(ORIGIN)
    ignore = dataset.ignore_label
    with new_dataset(folder.name, force=True) as unfinished:  # an interrupted step may have written it
        cases = with_masks(dataset)
        copy_labels({name: case for name, case in cases.items() if name in labelled}, unfinished / "labelsTr")
        for name in set(cases) - set(labelled):
            mask = sitk.ReadImage(str(cases[name].label))
            nothing = sitk.GetImageFromArray(np.full(mask.GetSize()[::-1], ignore, np.uint8))
            nothing.CopyInformation(mask)
            sitk.WriteImage(nothing, str(unfinished / "labelsTr" / cases[name].label.name))
        write_description(unfinished, folder.name, cases, dataset.description, about={"from": ORIGIN})


def self_taught(folder: Path, draw: Draw, *, labelled: Callable[[int], Collection[str]]) -> Sequence[str]:
    """The command that labels by the teacher's model, where it is sure, all cases but those with labels in a fold.

    Args:
        labelled: gives these for the number of a fold.
    """
    number = int(folder.name[len("Dataset") :][:3]) + FURTHER
    write_open(folder.with_name(f"Dataset{number:03d}_{folder.name.partition('_')[2]}Open"), labelled(draw.fold))
    return pseudo_labelled(folder, draw, source=number)


def write_current(folder: Path, draw: Draw, *, source: str) -> None:
    """The current image alone: the first channel of a dataset of pairs."""
    dataset = read_raw_dataset(source)
    content = {**dataset.description, "channel_names": {"0": dataset.description["channel_names"]["0"]}}
    cases = {name: Case(case.images[:1], case.label) for name, case in dataset.cases.items()}
    with new_dataset(folder.name, force=False) as unfinished:
        copy_labels(cases, unfinished / "labelsTr")
        write_description(unfinished, folder.name, cases, content, about={"from": source})


def write_withheld(folder: Path, draw: Draw, *, source: str, share: float = 1.0) -> None:
    """A dataset of pairs whose prior is withheld: zeros in its channels."""
    dataset = read_raw_dataset(source)
    roles = roles_of_dataset(dataset.description)
    names = sorted(dataset.cases, key=lambda name: name[::-1])
    withheld, cases = names[: round(share * len(names))], dict(dataset.cases)
    with new_dataset(folder.name, force=False) as unfinished:
        (unfinished / "imagesTr").mkdir()
        for name in withheld:
            case = dataset.cases[name]
            nothing = f"{name}_nothing{dataset.ending}"  # one file for all channels of the prior
            write_zeros(case.images[roles.current[0]], unfinished / "imagesTr" / nothing)
            images = [
                folder / "imagesTr" / nothing if channel in roles.prior else image
                for channel, image in enumerate(case.images)
            ]
            cases[name] = Case(tuple(images), case.label)
        copy_labels(cases, unfinished / "labelsTr")
        about = {LONGITUDINAL: roles.model_dump(), "from": source}
        write_description(unfinished, folder.name, cases, dataset.description, about=about)


def write_misaligned(folder: Path, draw: Draw, *, source: str, millimetres: float) -> None:
    """A dataset of pairs whose prior is moved in its slices, each case's in a direction of its own."""
    dataset = read_raw_dataset(source)
    roles = roles_of_dataset(dataset.description)
    cases = dict(dataset.cases)
    with new_dataset(folder.name, force=False) as unfinished:
        (unfinished / "imagesTr").mkdir()
        for name, case in dataset.cases.items():
            angle = case_generator(name).uniform(0, 2 * np.pi)
            images = list(case.images)
            for channel in roles.prior:
                moved = f"{name}_moved{channel}{dataset.ending}"
                offset = (millimetres * np.cos(angle), millimetres * np.sin(angle))
                is_binary = channel in roles.prior_labels
                write_moved(case.images[channel], unfinished / "imagesTr" / moved, offset, is_binary=is_binary)
                images[channel] = folder / "imagesTr" / moved
            cases[name] = Case(tuple(images), case.label)
        copy_labels(cases, unfinished / "labelsTr")
        about = {LONGITUDINAL: roles.model_dump(), "from": source}
        write_description(unfinished, folder.name, cases, dataset.description, about=about)


def write_moved(image: Path, file: Path, offset: Sequence[float], *, is_binary: bool) -> None:
    """Write an image moved by an offset in mm along the first two axes of its grid; zero where nothing is known."""
    fixed = sitk.ReadImage(str(image))
    axes = np.array(fixed.GetDirection()).reshape(3, 3)
    transform = sitk.TranslationTransform(3, (-(axes[:, :2] @ np.asarray(offset))).tolist())
    interpolator = sitk.sitkNearestNeighbor if is_binary else sitk.sitkLinear
    sitk.WriteImage(sitk.Resample(fixed, fixed, transform, interpolator, 0.0), str(file))


def write_zeros(like: Path, file: Path) -> None:
    """Write an image of zeros with the geometry of another."""
    image = sitk.ReadImage(str(like))
    zeros = sitk.Image(image.GetSize(), sitk.sitkUInt8)
    zeros.CopyInformation(image)
    sitk.WriteImage(zeros, str(file))
