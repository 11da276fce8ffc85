"""Average symmetric surface distance, and 95 % Hausdorff distance."""

from nnunet_ext.evaluation.metrics.metric import Metric, plain

RULE = (
    "assd and hd95 are in mm, or in pixels for images without a spacing. A case where a label is missing in reference "
    "or prediction has no distance (null). The label's means are over the other cases, whose number is "
    "cases_with_distance. Read them beside Dice, which counts a missed label as 0. Predictions on ignored voxels are "
    "removed first."
)

ASSD = Metric(
    "assd",
    "ASSD",
    "surface",
    lambda label: plain(label.distances.assd),
    unit="mm",
    better="lower",
    decimals=2,
    counted="distance",
    uncounted="lack {label} in reference or prediction and do not count in its ASSD and HD95",
    rule=RULE,
)
HD95 = Metric(
    "hd95",
    "HD95",
    "surface",
    lambda label: plain(label.distances.hd95),
    unit="mm",
    better="lower",
    decimals=2,
    rule=RULE,
)
