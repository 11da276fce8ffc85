"""Where a model's prediction and a label map disagree: regions with a score, and where they are in the world."""

from collections.abc import Mapping, Sequence
from typing import Any

import cc3d
import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict
from scipy import ndimage

from nnunet_ext.preprocessing.raw.places import file_axes
from nnunet_ext.preprocessing.raw.raw_dataset import Labels

KEPT = 100  # regions of a case, those of the highest scores


class Region(BaseModel):
    """A connected part of a case, at faces, edges or corners, with one label and another one predicted."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    label: int
    predicted: int
    voxels: int
    size: float
    """Volume in mm³; area in mm² where the image has one slice."""
    confidence: float
    """Mean over its voxels of the probability of the predicted label minus that of the given one, from 0 to 1."""
    centre: tuple[int, int, int]
    """The voxel of it that is nearest to its centre of mass, (z, y, x) as nnU-Net reads the file, from 0."""

    @property
    def score(self) -> float:
        """Size times confidence: large regions that the model is sure of come first, thin doubtful rims last."""
        return self.size * self.confidence


class Disagreement(BaseModel):
    """What was found in a case."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    regions: list[Region]
    """Those of the highest scores, highest first, at most `KEPT`."""
    number: int
    """How many there are in all."""
    share: float
    """Sum of all their scores over the size of what is foreground in the labels or the prediction; 0 without any."""
    dice: dict[int, float]
    """By label, where it is in either of the two."""
    missed: list[int]
    """Labels of the case whose voxels the prediction gives other labels, all of them."""


class Compared(BaseModel):
    """What is kept of a case: the sizes and times of its files, and what was found."""

    model_config = ConfigDict(extra="forbid")

    state: list[list[int]]
    result: Disagreement


def disagreement(
    labels: Labels, probabilities: npt.NDArray[np.floating[Any]], spacing: Sequence[float], *, ignore: int | None
) -> tuple[Labels, Disagreement]:
    """Compare a label map with a model's answer.

    Args:
        labels: (Z, Y, X), from 0 to C - 1 or ignore.
        probabilities: (C, Z, Y, X).
        spacing: of the axes, in mm.
        ignore: value of voxels that are not compared.

    Returns:
        The prediction, of the labels' shape and type, and the disagreement.
    """
    predicted = probabilities.argmax(axis=0).astype(labels.dtype)
    counts = labels != (-1 if ignore is None else ignore)
    differs = counts & (predicted != labels)
    classes = len(probabilities)
    known = np.where(counts, labels, 0).astype(np.int64)
    voxel = float(np.prod(spacing if labels.shape[0] > 1 else spacing[1:]))
    # one number for each pair of labels, so that a region has one pair
    pairs = np.where(differs, known * classes + predicted + 1, 0).astype(np.uint32)
    numbers, number = cc3d.connected_components(pairs, connectivity=26, return_N=True)
    margin = np.where(
        differs, probabilities.max(axis=0) - np.take_along_axis(probabilities, known[None], axis=0)[0], 0.0
    )
    sums = np.bincount(numbers.ravel(), weights=margin.ravel(), minlength=number + 1)
    boxes, regions = ndimage.find_objects(numbers), []
    for region in (np.argsort(-sums[1:], kind="stable")[:KEPT] + 1).tolist():
        corner = np.array([side.start for side in boxes[region - 1]])
        places = np.argwhere(numbers[boxes[region - 1]] == region) + corner
        distances = ((places - places.mean(axis=0)) * spacing) ** 2
        z, y, x = places[distances.sum(axis=1).argmin()].tolist()
        given, answer = int(known[z, y, x]), int(predicted[z, y, x])
        size, confidence = len(places) * voxel, float(sums[region]) / len(places)
        regions.append(
            Region(
                label=given, predicted=answer, voxels=len(places), size=size, confidence=confidence, centre=(z, y, x)
            )
        )
    foreground = int((counts & ((known > 0) | (predicted > 0))).sum())
    dice, missed = {}, []
    for value in range(1, classes):
        ours, theirs = counts & (predicted == value), counts & (labels == value)
        if total := int(ours.sum() + theirs.sum()):
            dice[value] = float(2 * (ours & theirs).sum() / total)
        if theirs.any() and not (ours & theirs).any():
            missed.append(value)
    share = float(sums[1:].sum()) / max(1, foreground)
    return predicted, Disagreement(regions=regions, number=int(number), share=share, dice=dice, missed=missed)


def world_position(
    centre: Sequence[int], shape: Sequence[int], properties: Mapping[str, Any]
) -> tuple[list[int], list[float] | None]:
    """Where a voxel is: its index in the file, (i, j, k) from 0, and its place in mm, right, anterior, superior.

    The place is what 3D Slicer shows, and ITK-SNAP as NIfTI coordinates. Pictures have none.

    Args:
        centre: (z, y, x) as nnU-Net reads the file.
        shape: (Z, Y, X), likewise.
        properties: the geometry as nnU-Net's reader gives it.
    """
    index, size = list(centre[::-1]), list(shape[::-1])
    in_file = [size[axis] - 1 - index[axis] if reverse else index[axis] for axis, reverse in file_axes(properties)]
    place = np.zeros(3)
    if (nibabel := properties.get("nibabel_stuff")) is not None:
        affine = np.asarray(nibabel.get("reoriented_affine", nibabel["original_affine"]))
        place = affine[:3, :3] @ index + affine[:3, 3]
    elif (itk := properties.get("sitk_stuff")) is not None:
        axes = len(itk["spacing"])
        direction = np.reshape(itk["direction"], (axes, axes))
        place[:axes] = np.asarray(itk["origin"]) + direction @ (np.asarray(itk["spacing"]) * index[:axes])
        place *= -1, -1, 1  # ITK's axes point to the left and to the back
    else:
        return in_file, None
    return in_file, place.tolist()
