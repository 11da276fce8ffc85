"""Phantoms as raw datasets of nnU-Net."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import SimpleITK as sitk

from nnunet_ext.demo import phantoms, two_dates
from nnunet_ext.demo.phantoms import Shape, make_geometry, render
from nnunet_ext.errors import UserError
from nnunet_ext.files import write_json, write_text

ENDING = ".nii.gz"
# the folders of the scans of one patient, by the columns of the tables that `nnunet_ext pair` reads
COLUMNS = {
    "current_image": "images",
    "prior_image": "priors",
    "prior_label": "priorLabels",
    "current_label": "labels",
}

Volumes = dict[str, np.ndarray]
"""(X, Y, Z) arrays of a case by the folder that they go to, without Tr or Ts."""


def write_phantom_dataset(
    raw_folder: Path,
    *,
    dataset_id: int = 900,
    name: str = "Phantoms",
    cases: int = 24,
    test_cases: int = 6,
    seed: int = 0,
) -> Path:
    """Write a raw dataset of phantoms, with the lesions' numbers in instancesTr.

    Args:
        raw_folder: what nnUNet_raw points at; made if it does not exist.
        dataset_id: 1..999.
        name: what follows the number in the folder's name.
        cases: training cases, at least 1.
        test_cases: cases in imagesTs and labelsTs.
        seed: case i of a seed is the same whatever the number of cases.

    Returns:
        The dataset's folder, ``<raw_folder>/Dataset900_Phantoms``.

    Raises:
        UserError: if that folder exists and is not empty.
        ValueError: if a number is out of its range.
    """

    def draw(rng: np.random.Generator, shape: Shape, number: int, ending: str) -> Volumes:
        geometry = make_geometry(rng, shape)
        volumes: Volumes = {"images": render(rng, geometry), "labels": geometry.organs}
        return volumes | ({"instances": geometry.lesion_instances} if ending == "Tr" else {})

    folder, _ = _write_cases(raw_folder, dataset_id, name, "phantom", cases, test_cases, seed, draw)
    description = "Synthetic phantoms: two organs and lesions among unlabelled look-alikes"
    _describe(folder, "MR0", phantoms.LABELS, cases, name, description)
    return folder


def write_follow_up_dataset(
    raw_folder: Path,
    *,
    dataset_id: int = 901,
    name: str = "FollowUp",
    cases: int = 24,
    test_cases: int = 6,
    without_prior: int = 4,
    seed: int = 0,
) -> Path:
    """Write a raw dataset of the current scans of patients, with the prior ones beside it for ``nnunet_ext pair``.

    The priors are in priorsTr and priorLabelsTr, those of the test patients in priorsTs and priorLabelsTs. The tables
    pairsTr.csv and pairsTs.csv say what belongs together.

    Args:
        raw_folder, dataset_id, name, cases, seed: as in `write_phantom_dataset`.
        test_cases: patients in imagesTs and labelsTs, who all have a prior.
        without_prior: how many of the training patients, the last ones, have no prior.

    Returns:
        The dataset's folder, ``<raw_folder>/Dataset901_FollowUp``.

    Raises:
        UserError: if that folder exists and is not empty.
        ValueError: if a number is out of its range.
    """
    if not 0 <= without_prior <= cases:
        raise ValueError(f"without_prior is {without_prior}; it must be between 0 and cases ({cases}).")

    def draw(rng: np.random.Generator, shape: Shape, number: int, ending: str) -> Volumes:
        volumes = two_dates.make_follow_up(rng, shape)
        has_prior = ending == "Ts" or number < cases - without_prior
        return {part: volume for part, volume in volumes.items() if has_prior or not part.startswith("prior")}

    folder, written = _write_cases(raw_folder, dataset_id, name, "patient", cases, test_cases, seed, draw)
    for ending, files in written.items():
        rows = [
            {"patient": patient, **{column: parts.get(part) for column, part in COLUMNS.items()}}
            for patient, parts in files.items()
        ]
        write_text(folder / f"pairs{ending}.csv", pd.DataFrame(rows, columns=["patient", *COLUMNS]).to_csv(index=False))
    description = "Synthetic phantoms at two dates: lesions among benign structures that look the same"
    _describe(folder, "MRI", two_dates.LABELS, cases, name, description)
    return folder


def _write_cases(
    raw_folder: Path,
    dataset_id: int,
    name: str,
    prefix: str,
    cases: int,
    test_cases: int,
    seed: int,
    draw: Callable[[np.random.Generator, Shape, int, str], Volumes],
) -> tuple[Path, dict[str, dict[str, dict[str, str]]]]:
    """Write the volumes of a dataset; its folder, and by Tr or Ts and by case, the file in each folder."""
    if cases < 1 or test_cases < 0:
        raise ValueError(f"cases ({cases}) must be at least 1 and test_cases ({test_cases}) at least 0.")
    if not 1 <= dataset_id <= 999:
        raise ValueError(f"dataset_id is {dataset_id}; nnU-Net takes 1 to 999.")
    folder = Path(raw_folder) / f"Dataset{dataset_id:03d}_{name}"
    if folder.exists() and any(folder.iterdir()):
        raise UserError(f"{folder} is not empty. Choose another folder or dataset number, or remove it first.")
    written: dict[str, dict[str, dict[str, str]]] = {"Tr": {}, "Ts": {}}
    # a generator for each case, so that it does not depend on the others
    training, test = np.random.default_rng(seed).spawn(2)
    for ending, infix, generators in (("Tr", "", training.spawn(cases)), ("Ts", "_test", test.spawn(test_cases))):
        for number, rng in enumerate(generators):
            case = f"{prefix}{infix}_{number:03d}"
            # so large that nnU-Net plans a patch that holds a whole case
            shape = int(rng.integers(40, 49)), int(rng.integers(40, 49)), int(rng.integers(32, 41))
            files = {}
            for part, array in draw(rng, shape, number, ending).items():
                files[part] = f"{part}{ending}/{case}{'_0000' if part == 'images' else ''}{ENDING}"
                _write_volume(folder / files[part], array)
            written[ending][case] = files
    return folder, written


def _write_volume(target: Path, array: np.ndarray) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    image = sitk.GetImageFromArray(np.ascontiguousarray(array.transpose(2, 1, 0)))
    image.SetSpacing(phantoms.SPACING)
    sitk.WriteImage(image, str(target))


def _describe(folder: Path, channel: str, labels: Mapping[str, int], cases: int, name: str, description: str) -> None:
    content = {"channel_names": {"0": channel}, "labels": labels, "numTraining": cases, "file_ending": ENDING}
    write_json(folder / "dataset.json", {**content, "name": name, "description": description})
