"""Reading nnU-Net raw datasets."""

import contextlib
import glob
import io
import os
import shutil
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from nnunetv2.imageio.natural_image_reader_writer import NaturalImage2DIO
from nnunetv2.imageio.reader_writer_registry import LIST_OF_IO_CLASSES, determine_reader_writer_from_dataset_json
from nnunetv2.imageio.tif_reader_writer import Tiff3DIO

from nnunet_ext.errors import UserError
from nnunet_ext.formats.annotated_labels import AnnotatedLabels, annotated_labels
from nnunet_ext.formats.dataset_json import declared_values, read_dataset_json
from nnunet_ext.formats.names import check_names
from nnunet_ext.formats.tiff_spacing import check_spacing, spacing_file
from nnunet_ext.formats.whole_images import check_whole, image_written_whole
from nnunet_ext.messages import last_line, some
from nnunet_ext.nnunet_folders import raw_folder

PICTURES = tuple(NaturalImage2DIO.supported_file_endings)

Labels = npt.NDArray[np.integer]  # a map of labels or of instances, (Z, Y, X); two-dimensional images have Z = 1


@dataclass(frozen=True)
class Case:
    """A case: one image file for each channel, in order, and the reference label map, which may not exist."""

    images: tuple[Path, ...]
    label: Path

    def has_channels(self, number: int) -> bool:
        """Whether there is an image file for each channel, or one picture in colour, which holds all of them."""
        is_picture = len(self.images) == 1 and self.images[0].name.lower().endswith(PICTURES)
        return len(self.images) == number or is_picture


@dataclass(frozen=True)
class RawDataset:
    """A dataset in nnUNet_raw: its folder, its dataset.json, and its training cases by name, in order."""

    folder: Path
    description: Mapping[str, Any]
    cases: Mapping[str, Case]

    @property
    def files(self) -> list[Path]:
        """Its folder, and the images and label maps of its cases, which dataset.json may list from elsewhere."""
        return [self.folder, *(file for case in self.cases.values() for file in (*case.images, case.label))]

    @property
    def ending(self) -> str:
        """What all files end in."""
        return str(self.description["file_ending"])

    @property
    def ignore_label(self) -> int | None:
        value = self.description["labels"].get("ignore")
        return None if value is None else int(value)

    @property
    def known_values(self) -> set[int]:
        """What a label map may hold: every value in dataset.json, background and ignore included."""
        return {0, *declared_values(self.description)}

    def foreground_values(self) -> dict[str, int]:
        """Values by name of all labels but background and ignore; a UserError if the dataset has regions."""
        labels = {name: value for name, value in self.description["labels"].items() if name != "ignore"}
        if regions := [name for name, value in labels.items() if isinstance(value, list)]:
            raise UserError(
                f"{self.folder / 'dataset.json'} has regions ({', '.join(regions)}). Each label needs one value here: "
                "write the labels without regions."
            )
        return {str(name): int(value) for name, value in labels.items() if int(value) != 0}

    def annotated_labels(self) -> AnnotatedLabels:
        """The labels that each case was annotated for; a UserError if dataset.json is wrong about them."""
        return annotated_labels(self.description, where=self.folder / "dataset.json")

    def unknown_cases(self) -> list[str]:
        """Names in the lists of `annotated_labels` that are no case for training or testing."""
        listed = self.annotated_labels()
        known = {*self.cases, *raw_test_cases(self.folder, self.description)}
        return sorted({*listed.lists, *listed.scribbled} - known)

    def reader_writer(self) -> Any:
        """What nnU-Net reads and writes the files with; a UserError if it cannot read the first image."""
        example = next(iter(self.cases.values())).images[0]
        return reader_for(self.description, example)

    def read_labels(self, reader: Any, case: str) -> tuple[Labels, dict[str, Any]]:
        """The label map of a case, and its geometry; a UserError if it has values that dataset.json does not list."""
        labels, properties = read_label_map(reader, self.cases[case].label)
        check_values(labels, self.known_values, file=self.cases[case].label)
        return labels, properties

    def geometry(self, reader: Any, case: str, shape: tuple[int, ...]) -> dict[str, Any]:
        """The geometry of a case's image, which nnU-Net takes for its labels too; theirs may differ or be missing.

        Args:
            reader: nnU-Net's.
            case: the name.
            shape: of the label map, (Z, Y, X).

        Raises:
            UserError: if the image has another shape.
        """
        files = self.cases[case]
        images, properties = read_images(reader, replace(files, images=files.images[:1]))
        if images.shape[1:] != shape:
            ours, theirs = (" × ".join(map(str, one)) for one in (shape, images.shape[1:]))
            raise UserError(
                f"{files.label} has {ours} voxels, but {files.images[0]} has {theirs}. A label map needs the voxels of "
                "its image; nnunet_ext check finds all cases that differ."
            )
        return properties


def reader_for(description: Mapping[str, Any], example: Path) -> Any:
    """What nnU-Net reads and writes the files of a dataset.json with; a UserError if it cannot read the example."""
    check_files([example])
    said = io.StringIO()  # nnU-Net prints the traceback of each reader that fails
    reader = None
    with (
        contextlib.redirect_stdout(said),
        contextlib.redirect_stderr(said),
        contextlib.suppress(RuntimeError),  # no reader can
    ):
        reader = determine_reader_writer_from_dataset_json(dict(description), str(example), verbose=False)()
    if "\nKeyboardInterrupt" in said.getvalue():
        raise KeyboardInterrupt  # nnU-Net took it for a failing reader and went on to the next
    if reader is None:
        check_spacing(example, is_image=True)
        raise UserError(
            f"{example} cannot be read by nnU-Net: {last_line(said.getvalue())}. It reads files that end in "
            f"{', '.join(readable_endings())}."
        )
    return reader


def read_label_map(reader: Any, file: Path) -> tuple[Labels, dict[str, Any]]:
    """A map of labels or instances, and its geometry; a UserError if its values are not whole numbers from 0."""
    with _reading([file], reader, are_images=False):
        values, properties = reader.read_seg(str(file))
    _require_three_axes(properties, file)
    return whole_numbers(only_map(values, file=file), file=file), properties


def write_label_map(reader: Any, labels: Labels, file: Path, properties: Mapping[str, Any]) -> None:
    """Write a map of labels or instances, whole or not at all; its folder is made if it is not there.

    Raises:
        UserError: if the reader cannot write its values.
    """
    file.parent.mkdir(exist_ok=True)
    with image_written_whole(file):
        reader.write_seg(labels, str(file), properties)
    largest = int(labels.max(initial=0))
    if largest > np.iinfo(np.uint8).max and int(reader.read_seg(str(file))[0].max()) != largest:
        file.unlink()
        name = type(reader).__name__
        raise UserError(
            f"{file} cannot be written: {largest} is its largest value, and nnU-Net's {name} writes none above 255. "
            "Name another reader by overwrite_image_reader_writer in dataset.json, such as NibabelIOWithReorient."
        )


def copy_label_map(file: Path, target: Path) -> None:
    """Copy a label map, and what holds its spacing if it is a TIFF."""
    shutil.copyfile(file, target)  # the content alone: the source may be read-only
    if spacing := spacing_file(file, is_image=False):
        shutil.copyfile(spacing, target.with_suffix(".json"))


def remove_label_map(file: Path) -> None:
    """Remove a label map, and what holds its spacing if it is a TIFF."""
    if spacing := spacing_file(file, is_image=False):
        spacing.unlink()
    file.unlink()


def only_map(values: npt.NDArray[Any], *, file: Path) -> npt.NDArray[Any]:
    """The only map of an array, (C, Z, Y, X); a UserError if there are several: nnU-Net would take the first."""
    if len(values) == 1:
        return values[0]
    expected = "One map was expected, with labels 0, 1, 2, … as in dataset.json."
    if len(values) not in (3, 4) or values.shape[1] != 1:
        shape = " × ".join(map(str, values.shape))
        raise UserError(f"{file} has several values for each voxel: nnU-Net reads an array of {shape}. {expected}")
    colours = np.unique(values.reshape(len(values), -1), axis=1).T.astype(int).tolist()
    named = some([tuple(colour) for colour in colours])
    raise UserError(
        f"{file} is a picture in colour, with {len(values)} channels. {expected} Write a grey file with the label's "
        f"number for each of its {len(colours)} colours: {named}. (A PNG with a palette has numbers already: "
        "np.asarray(PIL.Image.open(FILE)))"
    )


def read_images(reader: Any, case: Case) -> tuple[npt.NDArray[np.float32], dict[str, Any]]:
    """The channels of a case, (C, Z, Y, X), and their geometry, in that order; a UserError if they do not fit."""
    with _reading(case.images, reader, are_images=True):
        images, properties = reader.read_images([str(file) for file in case.images])
    _require_three_axes(properties, case.images[0])
    return images, properties


@contextlib.contextmanager
def _reading(files: Sequence[Path], reader: Any, *, are_images: bool) -> Iterator[None]:
    """Raise a UserError if files are not whole, or a reader of nnU-Net raises in the block; it prints the reason."""
    check_files(files)
    if isinstance(reader, Tiff3DIO):
        check_spacing(files[0], is_image=are_images)
    said = io.StringIO()
    try:
        with contextlib.redirect_stdout(said):
            yield
    except Exception as error:  # the libraries below nnU-Net's readers raise of every kind for a damaged file
        reason = last_line(error) or said.getvalue().strip().partition("\n")[0] or type(error).__name__
        raise UserError(f"{', '.join(map(str, files))} cannot be read: {reason}") from None


def _require_three_axes(properties: Mapping[str, Any], file: Path) -> None:
    """Raise a UserError for a file with a fourth axis, even of length 1: nnU-Net reads it and cannot write the like."""
    if len(properties.get("sitk_stuff", {"spacing": ()})["spacing"]) > 3:
        raise UserError(
            f"{file} has four axes, for which nnU-Net cannot write a label map. Write a file with three axes for each "
            "time point or channel."
        )


def check_files(files: Iterable[Path]) -> None:
    """Raise a UserError if a file of an image or label map does not exist, was cut off, or would end the process."""
    for file in files:
        try:
            str(file).encode()
        except UnicodeEncodeError:  # at which SimpleITK aborts
            raise UserError(f"{file} cannot be read: its path is no text in UTF-8. Rename what is not.") from None
        if not file.is_file():
            raise UserError(f"{file} does not exist.")
        check_whole(file)


def check_finite(images: npt.NDArray[np.float32], files: Iterable[Path]) -> None:
    """Raise a UserError, which names the files, if the channels of a case hold values that are no numbers."""
    if not np.isfinite(images).all():
        raise UserError(
            f"{', '.join(map(str, files))}: some voxels are not finite (NaN or infinite), and after normalisation all "
            "would be. Replace them in the image."
        )


def images_in(folder: Path, endings: Collection[str]) -> Iterator[tuple[Path, str, str]]:
    """The images of a folder, in order, with their names without the ending, and the ending; a UserError if none."""
    if not folder.is_dir():
        raise UserError(f"{folder} is no folder.")
    found = False
    for file in sorted(folder.iterdir()):
        # the longest ending counts: .nii.gz before .gz
        ending = max((ending for ending in endings if file.name.lower().endswith(ending)), key=len, default="")
        if ending and not file.name.startswith(".") and file.is_file():
            found = True
            name, written = file.name[: -len(ending)], file.name[-len(ending) :]
            check_names([name], what="case", where=folder)
            yield file, name, written
    if not found:
        raise UserError(f"{folder} has no images. Their names end in one of {', '.join(endings)}.")


def readable_endings() -> list[str]:
    """What the names of files end in that nnU-Net reads."""
    return list(dict.fromkeys(ending for reader in LIST_OF_IO_CLASSES for ending in reader.supported_file_endings))


def whole_numbers(values: npt.NDArray[Any], *, file: Path) -> Labels:
    """Labels in the smallest unsigned type; a UserError that names the file if a value is no whole number from 0."""
    largest = values.max(initial=0)
    kind = np.min_scalar_type(int(largest)) if 0 <= largest < 2**32 else np.uint32  # NaN and infinity fail below
    if values.dtype == kind:
        return values
    with np.errstate(invalid="ignore"):
        whole = values.astype(kind)
    wrong = np.unique(values[(whole != values) | (values < 0)])
    if len(wrong):
        raise UserError(
            f"{file} holds values that are no labels: {', '.join(str(value) for value in wrong[:3])}. Labels are "
            "whole numbers from 0; a label map that was resampled with interpolation has others."
        )
    return whole


def check_values(
    labels: Labels, known: Collection[int], *, file: Path, fix: str = "Add it to dataset.json, or fix the file."
) -> None:
    """Raise a UserError, which names the file, if a label map holds other values than the known ones."""
    if unknown := unknown_values(labels, known):
        raise UserError(
            f"{file} has the value{'s' * (len(unknown) > 1)} {some(unknown, 3)}, but the labels are "
            f"{', '.join(map(str, sorted(known)))}. {fix}"
        )


def unknown_values(labels: Labels, known: Collection[int]) -> list[int]:
    """The values of a label map that are none of the known ones, in order."""
    values = np.arange(int(labels.max(initial=0)) + 1) if labels.dtype.itemsize <= 2 else np.unique(labels)
    if not (is_unknown := ~np.isin(values, list(known))).any():
        return []
    # to look each voxel up in a table takes half the time of sorting them
    return np.unique(labels[is_unknown[labels]] if labels.dtype.itemsize <= 2 else values[is_unknown]).tolist()


def read_raw_dataset(dataset: str) -> RawDataset:
    """The dataset of an id or name; a UserError if it is missing, its dataset.json is incomplete, or it has no case."""
    folder = raw_folder(dataset)
    description = read_dataset_json(folder / "dataset.json")
    if not (cases := training_cases(folder, description)):
        raise UserError(f"{folder} has no cases in imagesTr.")
    return RawDataset(folder, description, cases)


def training_cases(folder: Path, description: Mapping[str, Any]) -> dict[str, Case]:
    """The training cases that nnU-Net finds, by name, in order, without hidden files; labels may not exist."""
    if "dataset" in description:
        cases = {}
        for name, files in sorted(description["dataset"].items()):
            listed = (folder / os.path.expandvars(file) for file in (*files["images"], files["label"]))
            *paths, label = (Path(os.path.abspath(file)) for file in listed)
            cases[name] = Case(tuple(paths), label)
        return cases
    labels, ending = folder / "labelsTr", description["file_ending"]
    images = cases_in(folder / "imagesTr", ending)
    return {name: Case(files, labels / f"{name}{ending}") for name, files in images.items()}


def raw_test_cases(folder: Path, description: Mapping[str, Any]) -> dict[str, Case]:
    """The cases in imagesTs of a raw dataset, with their labels in labelsTs, which may not exist."""
    labels, ending = folder / "labelsTs", description["file_ending"]
    images = cases_in(folder / "imagesTs", ending)
    return {name: Case(files, labels / f"{name}{ending}") for name, files in images.items()}


def cases_in(folder: Path, ending: str) -> dict[str, tuple[Path, ...]]:
    """The images of each case in a folder, ``CASE_0000.nii.gz`` and so on, by the case's name, in order."""
    found: dict[str, list[Path]] = {}
    for file in sorted(folder.glob(f"*{glob.escape(ending)}")) if folder.is_dir() else ():
        name, _, channel = file.name.removesuffix(ending).rpartition("_")
        if name and len(channel) == 4 and channel.isdecimal() and not file.name.startswith("."):
            found.setdefault(name, []).append(file)
    check_names(found, what="case", where=folder)
    return {name: tuple(files) for name, files in sorted(found.items())}
