"""Labels of whole cases where models agree and are sure; ``ignore`` elsewhere, so that nothing is learned there."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nnunet_ext.formats.evaluation import OnePiece
from nnunet_ext.preprocessing.raw.instances import components
from nnunet_ext.preprocessing.raw.raw_dataset import Labels

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Agreement:
    """What the models said of one case, each fold of them."""

    open_voxels: int  # that nobody annotated
    labelled_voxels: int  # of them, those that got a label
    # of the open voxels that any model takes for foreground, whichever label it is, the share that became foreground;
    # None if there are none
    foreground_share: float | None
    voxels: Mapping[str, int]  # that were added to each label but the background

    @classmethod
    def without_open_voxels(cls, names: Iterable[str]) -> Agreement:
        """Of a case that is annotated in full, which no model has to see."""
        return cls(0, 0, None, dict.fromkeys(names, 0))


def agreed_labels(
    probabilities: Iterable[npt.NDArray[np.floating]],
    labels: Labels,
    *,
    is_open: Mask,
    names: Mapping[int, str],
    threshold: float,
    ignore: int,
) -> tuple[Labels, Agreement]:
    """Label the open voxels on which all sources agree, with a mean probability of at least a threshold.

    Args:
        probabilities: of each source, which is a fold of a model: (C, Z, Y, X), background first. At least one. They
            are taken one after the other, as volumes are large, and may be changed.
        labels: the annotation, (Z, Y, X), which stays where a voxel is not open.
        is_open: voxels that nobody annotated.
        names: the name of each foreground value, 1, 2, 3, …, in the order of the channels.
        threshold: of the mean over the sources.
        ignore: value of the ignore label.

    Returns:
        The label map in the smallest unsigned type, and what was counted.
    """
    sources = iter(probabilities)
    total, count = next(sources), 1
    likeliest, is_undecided = total.argmax(axis=0), _is_undecided(total)
    agree, suspected = ~is_undecided, (likeliest > 0) | is_undecided
    for one in sources:
        decision, is_undecided = one.argmax(axis=0), _is_undecided(one)
        agree &= (decision == likeliest) & ~is_undecided
        suspected |= (decision > 0) | is_undecided
        total += one
        count += 1
    is_sure = is_open & agree & (total.max(axis=0) / count >= threshold)
    suspected &= is_open
    found = np.where(is_open, np.where(is_sure, likeliest, ignore), labels)
    foreground = is_sure & (likeliest > 0)
    agreement = Agreement(
        open_voxels=int(is_open.sum()),
        labelled_voxels=int(is_sure.sum()),
        foreground_share=float(foreground.sum() / suspected.sum()) if suspected.any() else None,
        voxels={name: int((is_sure & (likeliest == value)).sum()) for value, name in names.items()},
    )
    return found.astype(np.min_scalar_type(ignore)), agreement


def _is_undecided(probabilities: npt.NDArray[np.floating]) -> Mask:
    """Where all classes have 0: it is no background by the model, and no label that it can be."""
    return probabilities.max(axis=0) <= 0


def without_islands(
    probabilities: npt.NDArray[np.floating],
    labels: Labels,
    *,
    is_open: Mask,
    one_piece: OnePiece,
    names: Collection[int],
) -> npt.NDArray[np.floating]:
    """Probabilities of a model where a body is one piece, so that what is predicted away from it is no part of it.

    The body is the component with annotated voxels; without any, the largest one, and of equal ones all. An island is
    background, with a probability of 1, if no body is in its component of the whole foreground. Else all classes get 0:
    which one it is stays open.

    Args:
        probabilities: (C, Z, Y, X), background first. They are changed in place, as they may be large.
        labels: the annotation, (Z, Y, X). Where a voxel is not open, it is what the voxel is.
        is_open: voxels that nobody annotated.
        one_piece: whether all labels together are one body, or each label is one.
        names: the values of the foreground, which are the other channels.

    Returns:
        The same array.
    """
    annotated = np.where(np.isin(labels, list(names)), labels, 0)
    decided = np.where(is_open, probabilities.argmax(axis=0), annotated)
    foreground = (decided > 0).astype(np.uint8)
    together = components(foreground, [1])
    is_one = one_piece == "foreground"
    numbers = together if is_one else components(decided, names)
    is_body = _bodies(numbers, foreground if is_one else decided, ~is_open)
    is_island = ~is_body[numbers]
    has_body = np.zeros(together.max() + 1, bool)
    has_body[together[~is_island]] = True
    probabilities[:, is_island] = 0
    probabilities[0, is_island & ~has_body[together]] = 1
    return probabilities


def _bodies(numbers: Labels, values: Labels, annotated: Mask) -> Mask:
    """Which components, by their number, are bodies: of each value those with annotated voxels, or else the largest.

    The background, 0, is among them.
    """
    sizes = np.bincount(numbers.ravel())
    is_body, is_annotated, value_of = np.zeros(len(sizes), bool), np.zeros(len(sizes), bool), np.zeros(len(sizes), int)
    is_annotated[numbers[annotated]] = True
    value_of[numbers] = values
    for value in np.unique(value_of):
        own = value_of == value
        is_body |= own & (is_annotated if (own & is_annotated).any() else sizes == sizes[own].max())
    is_body[0] = True
    return is_body


def open_voxels(labels: Labels, *, ignore: int | None, missing: Collection[int]) -> Mask:
    """Voxels that nobody annotated: those of the ignore label, and background if labels are missing in the case.

    Args:
        labels: the annotation.
        ignore: value of the ignore label; None if there is none.
        missing: values that the case was not annotated for.
    """
    is_open = np.zeros(labels.shape, bool) if ignore is None else labels == ignore
    return is_open | (labels == 0) if missing else is_open


def given_annotation(
    probabilities: npt.NDArray[np.floating], labels: Labels, *, missing: Collection[int]
) -> npt.NDArray[np.floating]:
    """Probabilities of the classes that a voxel can have by its annotation, where labels are missing in the case.

    Background in such a case is background or a label that is missing. The other classes get 0, and these are divided
    by their sum: the conditional probability given the annotation. Where the sum is 0 it is not defined and all are 0.

    Args:
        probabilities: of a model, (C, Z, Y, X), background first. They are changed in place, as they may be large.
        labels: the annotation, (Z, Y, X).
        missing: values that the case was not annotated for, which are channels.

    Returns:
        The same array.
    """
    if not missing:
        return probabilities
    background, possible = labels == 0, [0, *missing]
    for channel in set(range(len(probabilities))) - set(possible):
        probabilities[channel][background] = 0
    total = sum(probabilities[channel][background] for channel in possible)
    divisor = np.where(total > 0, total, 1)
    for channel in possible:
        probabilities[channel][background] /= divisor
    return probabilities
