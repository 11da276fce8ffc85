"""Raw datasets of images without labels, for pre-training by nnU-Net's own commands."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from nnunetv2.preprocessing.cropping.cropping import create_nonzero_mask
from tqdm import tqdm

from nnunet_ext.errors import UserError
from nnunet_ext.files import read_json
from nnunet_ext.formats.dataset_json import channel_names, checked_dataset_json
from nnunet_ext.formats.own_key import KEY
from nnunet_ext.messages import some
from nnunet_ext.preprocessing.raw.new_dataset import new_dataset, write_description
from nnunet_ext.preprocessing.raw.raw_dataset import (
    Case,
    Labels,
    RawDataset,
    cases_in,
    check_finite,
    images_in,
    read_images,
    readable_endings,
    write_label_map,
)
from nnunet_ext.version import __version__

LABELS = {"background": 0, "image": 1}  # of the placeholders

MADE_BY = "unlabelled"
READER = "overwrite_image_reader_writer"


def is_unlabelled(dataset: RawDataset) -> bool:
    """Whether `nnunet_ext unlabelled` made a dataset, so that its labels are placeholders."""
    return dataset.description.get(KEY, {}).get("made_by") == MADE_BY


def find_cases(folder: Path) -> tuple[dict[str, Case], str]:
    """The cases of a folder of images, and what the files end in.

    Files are named as nnU-Net names them: ``case_0000.nii.gz``, one for each channel. The label files of the cases do
    not exist. A UserError says if there is no image, a name has no channel number, endings are mixed, or channels are
    missing.
    """
    files = list(images_in(folder, readable_endings()))
    ending = files[0][2]
    if other := next((file for file, _, its in files if its != ending), None):
        found = f"{files[0][0].name}, {other.name}"
        raise UserError(f"{folder} has files of several kinds: {found}. A dataset has one; convert the others.")
    cases = cases_in(folder, ending)
    named = {file for images in cases.values() for file in images}
    if stray := [file for file, *_ in files if file not in named]:
        raise UserError(
            f"{stray[0]} has no channel number. nnU-Net's names are needed: case_0000{ending} for the first channel, "
            f"case_0001{ending} for the second."
        )
    numbers = {name: [file.name.removesuffix(ending)[-4:] for file in images] for name, images in cases.items()}
    expected = [f"{number:04d}" for number in range(max(map(len, cases.values())))]
    if wrong := [f"{name} has {', '.join(found)}" for name, found in numbers.items() if found != expected]:
        channels = " to ".join(dict.fromkeys((expected[0], expected[-1])))
        raise UserError(
            f"{len(wrong)} of {len(cases)} cases in {folder} do not have the channels {channels}: {some(wrong, 3)}. "
            "Every case needs the same channels."
        )
    return {name: Case(images, folder / f"{name}{ending}") for name, images in cases.items()}, ending


def read_neighbour(folder: Path) -> dict[str, Any]:
    """Channel names and reader of the dataset.json beside a folder of images, as entries of a dataset.json."""
    file = folder.resolve().parent / "dataset.json"
    if not file.is_file():
        raise UserError(
            f"The channels of {folder} have no names: there is no {file}. Give them with --channels, as in the dataset "
            "that will be trained from this: nnU-Net normalises CT in another way than other channels."
        )
    content = read_json(file)
    if not isinstance(content, dict) or not {"channel_names", "modality"} & set(content):
        raise UserError(f"{file} has no channel_names. Give them with --channels.")
    description = checked_dataset_json({"labels": LABELS, "file_ending": ".nii.gz", **content}, where=file)
    reader = {READER: description[READER]} if READER in description else {}
    return {**_named(channel_names(description)), **reader}


def _named(names: Sequence[str]) -> dict[str, Any]:
    return {"channel_names": {str(number): name for number, name in enumerate(names)}}


def placeholder(images: npt.NDArray[np.float32]) -> Labels:
    """Labels for images, (C, Z, Y, X), that have none: 1 where nnU-Net sees an image, 0 in its surroundings.

    nnU-Net takes intensities for its plans from labelled voxels only, and stops where no case has any. Where label 0
    and an image value of 0 meet outside of the image, it marks the voxel as surroundings, which some plans exclude from
    normalisation; labelled voxels are never marked.
    """
    return create_nonzero_mask(images).astype(np.uint8)


def make_unlabelled_dataset(
    folder: Path, name: str, *, channels: Sequence[str] | None, force: bool
) -> tuple[RawDataset, bool]:
    """Write a raw dataset with placeholders as labels, of a folder of images, which stay where they are.

    `channels` are names; None takes those of the dataset.json beside the folder. `name` and `force` are as in
    `new_dataset`. Returns what it was made from, the cases and a dataset.json that lists none, and whether all images
    are 2D.
    """
    cases, ending = find_cases(folder)
    named = _named(channels) if channels is not None else read_neighbour(folder)
    source = RawDataset(folder, {**named, "labels": LABELS, "file_ending": ending}, cases)
    reader = source.reader_writer()
    expected, flat = channel_names(source.description), True
    with new_dataset(name, force=force, made_from=[folder]) as target:
        for case, files in tqdm(cases.items(), desc="Reading images", unit="case", disable=None):
            images, properties = read_images(reader, files)
            check_finite(images, files.images)
            if len(images) != len(expected):
                named_channels = f"{len(expected)} are named: {', '.join(expected)}"
                raise UserError(
                    f"{case} in {folder} has {len(images)} channels, but {named_channels}. Each must have a name."
                )
            labels = placeholder(images)
            if not labels.any():
                raise UserError(f"{files.images[0]} is 0 everywhere, which nnU-Net cannot crop. Move it away.")
            flat &= labels.shape[0] == 1
            write_label_map(reader, labels, target / "labelsTr" / f"{case}{ending}", properties)
        about = {"made_by": MADE_BY, "version": __version__, "images": str(folder.resolve())}
        write_description(target, name, cases, source.description, about=about)
    return source, flat
