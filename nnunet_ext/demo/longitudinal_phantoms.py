"""Phantoms with a second date: a prior and a current scan of the same patients.

Bright structures in the body are of two kinds that look, shrink and vanish alike: lesions, which are labelled at both
dates, and benign ones, which are at none. The current scan cannot tell them apart; the prior's labels can. And the
prior alone does not say what has become of a lesion.
"""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from nnunet_ext.demo.phantoms import (
    FloatArray,
    Geometry,
    InstanceArray,
    LabelArray,
    MaskArray,
    Shape,
    Spacing,
    draw_cases,
    draw_shape,
    empty_dataset,
    largest_component,
    make_geometry,
    render,
    smooth_noise,
    write_volume,
)
from nnunet_ext.files import write_json, write_text

LABELS = {"background": 0, "lesion": 1}
STRUCTURES_BETWEEN = (4, 8)
VANISHING, SHRINKING = 0.25, 0.5  # shares of the structures; the others stay
LEFT_BETWEEN = (0.25, 0.7)  # of a shrinking one's volume
BRIGHT = 300.0  # intensity above nearly everything, which a change of contrast leaves in its place
COLUMNS = ("patient", "current_image", "prior_image", "prior_label", "current_label")  # of `nnunet_ext pair`


@dataclass(frozen=True)
class TwoDates:
    """Where everything is at two dates.

    Attributes:
        prior: at the first date; its `lesion_instances` are lesions and benign structures alike.
        current: at the second one; structures keep their numbers, and those that have vanished are not there.
        lesions: the numbers of the structures that are lesions.
    """

    prior: Geometry
    current: Geometry
    lesions: frozenset[int]

    def labels(self, geometry: Geometry) -> LabelArray:
        """(X, Y, Z) map of the lesions of one of the dates, with the values of `LABELS`."""
        return np.isin(geometry.lesion_instances, list(self.lesions)).astype(np.uint8)


@dataclass(frozen=True)
class FollowUp:
    """The scans of one patient at two dates, on one grid.

    Attributes:
        current_image: (X, Y, Z) intensities in arbitrary units.
        prior_image: the same for the earlier date.
        prior_labels: (X, Y, Z) with the values of `LABELS`.
        current_labels: the same for the later date.
        spacing: voxel size in mm along X, Y, Z.
    """

    current_image: FloatArray
    prior_image: FloatArray
    prior_labels: LabelArray
    current_labels: LabelArray
    spacing: Spacing


def shrunk(structure: MaskArray, share: float, spacing: Spacing) -> MaskArray:
    """The innermost part of a structure, in one piece, with at most a share of its voxels and at least one.

    Args:
        structure: (X, Y, Z), not empty.
        share: in (0, 1].
        spacing: voxel size in mm.
    """
    depth = ndimage.distance_transform_edt(np.pad(structure, 1), sampling=spacing)[1:-1, 1:-1, 1:-1]
    inside = np.flatnonzero(structure)
    kept = max(1, int(share * len(inside)))
    mask = np.zeros(structure.size, dtype=bool)
    mask[inside[np.argsort(-depth.ravel()[inside], kind="stable")[:kept]]] = True
    return largest_component(mask.reshape(structure.shape))


def draw_changes(
    rng: np.random.Generator, instances: InstanceArray, lesions: frozenset[int], spacing: Spacing
) -> InstanceArray:
    """What is left of each structure: all of it, its inner part, or nothing; of one lesion, something.

    Args:
        rng: source of randomness.
        instances: (X, Y, Z), 0 and the numbers of the structures.
        lesions: numbers of the lesions.
        spacing: voxel size in mm.

    Returns:
        Same shape and numbers.
    """
    left = np.zeros_like(instances)
    for number in range(1, int(instances.max()) + 1):
        fate, share = rng.random(), rng.uniform(*LEFT_BETWEEN)
        if fate < VANISHING and number != min(lesions):
            continue
        structure = instances == number
        left[shrunk(structure, share, spacing) if fate < VANISHING + SHRINKING else structure] = number
    return left


def with_structures(geometry: Geometry, instances: InstanceArray) -> Geometry:
    """A geometry in which less is left of the structures; where they were is the tissue beside them.

    Args:
        geometry: as it was.
        instances: (X, Y, Z), zero wherever the geometry's are.
    """
    freed = (geometry.lesion_instances > 0) & (instances == 0)
    beside = ndimage.distance_transform_edt(
        geometry.lesion_instances > 0, sampling=geometry.spacing, return_distances=False, return_indices=True
    )
    tissues, organs = (np.where(freed, values[tuple(beside)], values) for values in (geometry.tissues, geometry.organs))
    return replace(geometry, tissues=tissues, organs=organs, lesion_instances=instances)


def deformed(rng: np.random.Generator, geometry: Geometry, size: float) -> Geometry:
    """A geometry after a smooth deformation.

    Args:
        rng: source of randomness.
        geometry: as it was.
        size: standard deviation of the displacement along each axis, in mm.
    """
    shape: Shape = geometry.tissues.shape
    scale = (shape[0] / 6, shape[1] / 6, shape[2] / 6)
    places = np.indices(shape, dtype=np.float64)
    for axis, length in enumerate(geometry.spacing):
        places[axis] += size / length * smooth_noise(rng, shape, scale)

    def moved(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        return ndimage.map_coordinates(values, places, order=0, mode="nearest")

    return replace(
        geometry,
        tissues=moved(geometry.tissues),
        organs=moved(geometry.organs),
        lesion_instances=moved(geometry.lesion_instances),
    )


def changed_contrast(rng: np.random.Generator, image: FloatArray) -> FloatArray:
    """An image as another scanner shows it: intensities follow a drawn power, and so keep their order."""
    power = np.exp(rng.uniform(-0.5, 0.5))
    return (rng.uniform(0.5, 2) * BRIGHT * (np.clip(image, 0, None) / BRIGHT) ** power).astype(np.float32)


def make_two_dates(rng: np.random.Generator, shape: Shape = (48, 48, 40), *, deformation: float = 1.0) -> TwoDates:
    """Draw a body at two dates: half of its bright structures, rounded up, are lesions.

    Args:
        rng: source of randomness.
        shape: (X, Y, Z) of the grid, at least 32 voxels each.
        deformation: between the dates: standard deviation of the displacement along each axis, in mm.

    Raises:
        ValueError: if the grid is too small.
    """
    prior = make_geometry(rng, shape, lesions_between=STRUCTURES_BETWEEN)
    count = int(prior.lesion_instances.max())
    lesions = frozenset(int(number) + 1 for number in rng.permutation(count)[: (count + 1) // 2])
    changed = with_structures(prior, draw_changes(rng, prior.lesion_instances, lesions, prior.spacing))
    return TwoDates(prior, deformed(rng, changed, deformation), lesions)


def make_follow_up(rng: np.random.Generator, shape: Shape = (48, 48, 40)) -> FollowUp:
    """Draw one patient and image the patient twice.

    Args:
        rng: source of randomness; the same state gives the same patient.
        shape: (X, Y, Z) of the grid, at least 32 voxels each.

    Raises:
        ValueError: if the grid is too small.
    """
    dates = make_two_dates(rng, shape)
    return FollowUp(
        current_image=render(rng, dates.current),
        prior_image=changed_contrast(rng, render(rng, dates.prior)),
        prior_labels=dates.labels(dates.prior),
        current_labels=dates.labels(dates.current),
        spacing=dates.prior.spacing,
    )


def write_follow_up_dataset(
    raw_folder: Path,
    *,
    dataset_id: int = 901,
    name: str = "FollowUp",
    patients: int = 24,
    test_patients: int = 6,
    without_prior: int = 4,
    seed: int = 0,
) -> Path:
    """Write an nnU-Net raw dataset of the current scans, with the prior ones beside it for ``nnunet_ext pair``.

    The priors are in priorsTr and priorLabelsTr, those of the test patients in priorsTs and priorLabelsTs; the tables
    pairsTr.csv and pairsTs.csv say what belongs together.

    Args:
        raw_folder: what nnUNet_raw points at; made if it does not exist.
        dataset_id: 1..999.
        name: what follows the number in the folder's name.
        patients: training patients, at least 1.
        test_patients: patients in imagesTs and labelsTs, who all have a prior.
        without_prior: so many of the training patients, the last ones, have no prior.
        seed: patient i of a seed is the same whatever the number of patients.

    Returns:
        The dataset's folder, ``<raw_folder>/Dataset901_FollowUp``.

    Raises:
        UserError: if that folder exists and is not empty.
        ValueError: if a number is out of its range.
    """
    if patients < 1 or test_patients < 0 or not 0 <= without_prior <= patients:
        raise ValueError(
            f"patients ({patients}) must be at least 1, test_patients ({test_patients}) 0, and without_prior "
            f"({without_prior}) between 0 and patients."
        )
    kinds = {
        "current_image": "images",
        "prior_image": "priors",
        "prior_label": "priorLabels",
        "current_label": "labels",
    }
    parts = [f"{kind}{ending}" for ending in ("Tr", "Ts") for kind in kinds.values()]
    folder = empty_dataset(raw_folder, dataset_id, name, parts)
    tables: dict[str, list[dict[str, str]]] = {"Tr": [], "Ts": []}
    for patient, ending, rng in draw_cases(seed, patients, test_patients, prefix="patient"):
        scans = make_follow_up(rng, draw_shape(rng))
        arrays: dict[str, npt.NDArray[Any]] = {
            "current_image": scans.current_image,
            "current_label": scans.current_labels,
        }
        if ending == "Ts" or len(tables["Tr"]) < patients - without_prior:
            arrays |= {"prior_image": scans.prior_image, "prior_label": scans.prior_labels}
        row = {"patient": patient}
        for column, array in arrays.items():
            channel = "_0000" if column == "current_image" else ""
            row[column] = f"{kinds[column]}{ending}/{patient}{channel}.nii.gz"
            write_volume(folder / row[column], array, scans.spacing)
        tables[ending].append(row)
    for ending, rows in tables.items():
        table = io.StringIO()
        writer = csv.DictWriter(table, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_text(folder / f"pairs{ending}.csv", table.getvalue())
    write_json(
        folder / "dataset.json",
        {
            "channel_names": {"0": "MRI"},
            "labels": LABELS,
            "numTraining": patients,
            "file_ending": ".nii.gz",
            "name": name,
            "description": "Synthetic phantoms at two dates: lesions among benign structures that look the same",
        },
    )
    return folder
