"""Dice of each case, as nnU-Net computes it."""

from nnunet_ext.evaluation.metrics.label_in_case import LabelInCase
from nnunet_ext.evaluation.metrics.metric import Metric, Parts


def dice(label: LabelInCase) -> Parts:
    """2 |A∩B| / (|A| + |B|), undefined if reference and prediction are empty."""
    total = label.voxels.reference + label.voxels.predicted
    return (2 * label.voxels.found / total, 1.0) if total else (0.0, 0.0)


DICE = Metric(
    "dice",
    "Dice",
    "dice",
    dice,
    where_absent=1.0,
    mean="foreground_mean",
    counted="dice",
    uncounted="have {label} in neither reference nor prediction and do not count in its mean",
    rule="dice is computed for each case, as nnU-Net does. A case with a label in neither reference nor prediction has "
    "no Dice for it (null). Such cases are left out of the label's mean and counted in cases_without_dice. "
    "foreground_mean is the mean of the labels' means.",
)
