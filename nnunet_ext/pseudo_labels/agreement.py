"""Labels of whole cases where models agree and are sure; ``ignore`` elsewhere, so that nothing is learned there."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nnunet_ext.preprocessing.raw.raw_dataset import Labels


@dataclass(frozen=True)
class Agreement:
    """What the models said of one case."""

    open_voxels: int  # that nobody annotated
    labelled_voxels: int  # of them, those that got a label
    # of the open voxels that any model takes for foreground, the share that became foreground; None if there are none
    foreground_share: float | None
    voxels: Mapping[str, int]  # that were added to each label but the background


def agreed_labels(
    probabilities: Sequence[npt.NDArray[np.floating]],
    labels: Labels,
    *,
    is_open: npt.NDArray[np.bool_],
    names: Mapping[int, str],
    threshold: float,
    ignore: int,
) -> tuple[Labels, Agreement]:
    """Label the open voxels on which all models agree, with a mean probability of at least a threshold.

    Args:
        probabilities: of each model, (C, Z, Y, X), background first.
        labels: the annotation, (Z, Y, X), which stays where a voxel is not open.
        is_open: voxels that nobody annotated.
        names: the name of each foreground value, 1, 2, 3, …, in the order of the channels.
        threshold: of the mean over the models.
        ignore: value of the ignore label.

    Returns:
        The label map in the smallest unsigned type, and what was counted.
    """
    mean = np.mean(probabilities, axis=0)
    decisions = [one.argmax(axis=0) for one in probabilities]
    likeliest = mean.argmax(axis=0)
    is_sure = is_open & (mean.max(axis=0) >= threshold)
    for decision in decisions:
        is_sure &= decision == likeliest
    found = np.where(is_open, np.where(is_sure, likeliest, ignore), labels)
    suspected = is_open & np.any([decision > 0 for decision in decisions], axis=0)
    foreground = is_sure & (likeliest > 0)
    agreement = Agreement(
        open_voxels=int(is_open.sum()),
        labelled_voxels=int(is_sure.sum()),
        foreground_share=float(foreground.sum() / suspected.sum()) if suspected.any() else None,
        voxels={name: int((is_sure & (likeliest == value)).sum()) for value, name in names.items()},
    )
    return found.astype(np.min_scalar_type(ignore)), agreement
