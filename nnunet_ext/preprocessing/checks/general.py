"""What nnU-Net needs of any dataset: files that are there, can be read, and fit each other."""

import glob
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from nnunetv2.utilities.label_handling.label_handling import LabelManager

from nnunet_ext.errors import UserError
from nnunet_ext.findings import Finding
from nnunet_ext.formats.dataset_json import channel_names, declared_values, values_of
from nnunet_ext.formats.names import check_names
from nnunet_ext.formats.splits import PARTS, read_splits
from nnunet_ext.messages import counted, some
from nnunet_ext.preprocessing.checks.copied_cases import content_of
from nnunet_ext.preprocessing.checks.dataset_check import splits_file
from nnunet_ext.preprocessing.raw.places import alike, misplaced, told_apart
from nnunet_ext.preprocessing.raw.raw_dataset import Case, Labels, RawDataset, read_images, read_label_map

FINE = {
    "files": "all are there.",
    "images": "all can be read.",
    "label values": "only those of dataset.json.",
    "geometry": "images and labels fit in shape and spacing.",
}
"""What is looked at in every case, and what is said if nothing is wrong."""

PLACE_FIX = (
    " nnU-Net pairs voxels by their number and ignores this. Look at one case: copy the image's header to the labels "
    "if voxels belong together, otherwise resample the labels."
)
WHITE = {255, 65535}  # of grey pictures of 8 and 16 bits


def check_description(dataset: RawDataset) -> Finding:
    """Does nnU-Net take the dataset.json?"""
    content, title = dataset.description, "dataset.json"
    try:
        if misplaced := misplaced_ignore(content["labels"]):
            return Finding("problem", title, misplaced)
        manager = LabelManager(content["labels"], regions_class_order=content.get("regions_class_order"))
    except (AssertionError, AttributeError, RuntimeError, TypeError, ValueError) as error:
        return Finding("problem", title, f"nnU-Net does not take its labels: {error}")
    values = sorted(declared_values(dataset.description))
    if values != list(range(len(values))):
        detail = f"labels must be numbered 0, 1, 2, … without gaps; found: {', '.join(map(str, values))}."
        return Finding("problem", title, detail)
    channels = channel_names(content)
    foreground = len(manager.foreground_regions if manager.has_regions else manager.foreground_labels)
    kinds = counted(foreground, "region" if manager.has_regions else "label") + ", ignore" * manager.has_ignore_label
    named = f"channel{'s' * (len(channels) != 1)} {', '.join(channels)}"
    return Finding("ok", title, f"{counted(len(dataset.cases), 'case')}, {named}, {kinds}.")


def check_names_of_files(dataset: RawDataset) -> Iterator[Finding]:
    """Files in imagesTr that nnU-Net takes for cases by mistake: hidden ones, and names without a channel number."""
    folder, ending = dataset.folder / "imagesTr", dataset.ending
    if "dataset" in dataset.description:
        return
    used = {file for case in dataset.cases.values() for file in case.images}
    if stray := [file.name for file in sorted(folder.glob(f"*{glob.escape(ending)}")) if file not in used]:
        check_names(stray, what="case", where=folder)
        detail = f"nnU-Net takes {some(stray)} in {folder} for cases. Remove them, or name them CASE_0000{ending}."
        yield Finding("problem", "names of files", detail)


def misplaced_ignore(labels: Mapping[str, Any]) -> str:
    """What is wrong with the value of the ignore label; empty if nothing is, or nnU-Net has worse to say."""
    ignore = labels.get("ignore")
    others = set().union(*(values_of(value) for name, value in labels.items() if name != "ignore"))
    if not isinstance(ignore, int) or not others or ignore == max(others) + 1:
        return ""
    return (
        f"the ignore label has the value {ignore}. nnU-Net needs the highest without a gap, {len(others)} here: number "
        "all labels 0, 1, 2, … and ignore last, in dataset.json and in every label file alike."
    )


class FileCheck:
    """Reads each case's images and labels, and gathers what is wrong with them.

    Args:
        dataset: whose cases are read.
        test: the cases of its imagesTs, to read these instead; they may have no labels.

    Attributes:
        contents: what tells a case's images from others, by case.

    Raises:
        UserError: if nnU-Net cannot read the first image of the dataset.
    """

    def __init__(self, dataset: RawDataset, test: Mapping[str, Case] | None = None) -> None:
        self.cases = dataset.cases if test is None else test
        self.is_test = test is not None
        self.contents: dict[str, bytes] = {}
        self.reader = dataset.reader_writer()
        self.channels = len(channel_names(dataset.description))
        self.values = declared_values(dataset.description)
        self.wrong: dict[str, dict[str, str]] = {title: {} for title in (*FINE, "place")}  # by case
        self.wrong_values: set[int] = set()

    def read(self, case: str) -> Labels | None:
        """The case's labels, None if they cannot be used."""
        files = self.cases[case]
        if self.is_test and not files.label.is_file():
            self._read_images(case)
            return None
        if absent := [file for file in (*files.images, files.label) if not file.is_file()]:
            self.wrong["files"][case] = f"{absent[0]} does not exist"
        shape, place = (None, None) if set(absent) & set(files.images) else self._read_images(case)
        if files.label in absent:
            return None
        try:
            labels, properties = read_label_map(self.reader, files.label)
        except UserError as error:
            self.wrong["label values"][case] = str(error)
            return None
        present = set(np.unique(labels).tolist())
        if unknown := sorted(present - set(self.values)):
            self.wrong_values |= present
            self.wrong["label values"][case] = (
                f"{files.label} has values that dataset.json does not list: {some(unknown)}."
            )
        if shape is not None and labels.shape != shape:
            self.wrong["geometry"][case] = f"image {shape}, labels {labels.shape} voxels"
        elif place is not None and not alike(place["spacing"], properties["spacing"]):
            ours, theirs = told_apart(place["spacing"], properties["spacing"], " × ")
            self.wrong["geometry"][case] = f"image {ours}, labels {theirs} mm spacing"
        elif place is not None and (difference := misplaced(place, properties)):
            self.wrong["place"][case] = difference
        return labels

    def _read_images(self, case: str) -> tuple[tuple[int, ...] | None, Mapping[str, Any] | None]:
        """Shape and geometry; None where they cannot be told."""
        try:
            images, properties = read_images(self.reader, self.cases[case])
        except UserError as error:
            self.wrong["images"][case] = str(error)
            return None, None
        if len(images) != self.channels:
            self.wrong["images"][case] = f"{len(images)} channels, but dataset.json names {self.channels}"
        elif not np.isfinite(images).all():
            kind = "not a number (NaN)" if np.isnan(images).any() else "infinite"
            self.wrong["images"][case] = (
                f"some voxels are {kind}; after normalisation all would be. Replace them in the image"
            )
        if content := content_of(images):
            self.contents[case] = content
        return images.shape[1:], properties

    def findings(self) -> Iterator[Finding]:
        """One for files, images, label values and geometry each, and a warning of labels in another place.

        Of cases for testing, only what is wrong is told one by one.
        """
        if self.is_test and self.cases and not any(self.wrong.values()):
            labelled = sum(case.label.is_file() for case in self.cases.values())
            detail = f"{counted(len(self.cases), 'case')} in imagesTs, {labelled} with labels in labelsTs; all fit."
            yield Finding("ok", "test", detail)
        fixes = {"label values": self._grey_values(), "place": PLACE_FIX}
        for title, wrong in self.wrong.items():
            if wrong:
                case, reason = next(iter(wrong.items()))
                which = f"wrong in {len(wrong)} of {len(self.cases)} cases ({some(wrong)})"
                detail = f"{which}. {case}: {reason.rstrip('.')}.{fixes.get(title, '')}"
                named = f"test {title}" if self.is_test else title
                yield Finding("warning" if title == "place" else "problem", named, detail)
            elif title in FINE and not self.is_test:
                yield Finding("ok", title, FINE[title])

    def _grey_values(self) -> str:
        """How to number labels that were drawn as a picture, which white tells; empty if there is no white."""
        found = sorted(self.wrong_values)
        if not WHITE & (self.wrong_values - set(self.values)):
            return ""
        if len(found) > len(self.values):
            return (
                f" These are grey values of a picture, {len(found)} of them where dataset.json has {len(self.values)} "
                "labels: it was smoothed or compressed when it was saved. Save it again without, and with the numbers "
                "of dataset.json."
            )
        numbers = ", ".join(f"{number} for {value}" for number, value in enumerate(found))
        return (
            " These are grey values of a picture; labels are 0, 1, 2, … as in dataset.json. If that is their order, "
            f"write {numbers}, with NumPy: np.searchsorted({found}, labels)."
        )


def check_folds(dataset: RawDataset) -> Iterator[Finding]:
    """Do the folds name cases of the dataset and keep training and validation apart, if there are folds already?"""
    file = splits_file(dataset)
    if file is None:
        return
    try:
        folds = read_splits(file)
    except UserError as error:
        yield Finding("problem", "folds", str(error))
        return
    named = {case for fold in folds for part in PARTS for case in fold[part]}
    wrong = []
    if unknown := sorted(named - set(dataset.cases)):
        wrong.append(f"{file} names cases that the dataset does not have: {some(unknown)}.")
    for number, fold in enumerate(folds):
        where = f"fold {number} in {file}"
        wrong += [f"{where} has no {part} case." for part in PARTS if not fold[part]]
        if shared := sorted(set(fold["train"]) & set(fold["val"])):
            wrong.append(f"{where} trains and validates on the same cases: {some(shared)}.")
        for part in PARTS:
            if twice := sorted({case for case in fold[part] if fold[part].count(case) > 1}):
                wrong.append(f"{where} names cases twice under {part}: {some(twice)}.")
    if wrong:
        yield Finding("problem", "folds", some(wrong, 3))
    else:
        yield Finding("ok", "folds", f"{len(folds)} in {file}.")
