"""95 % Hausdorff distance."""

from nnunet_ext.evaluation.metrics.assd import DISTANCE_RULE
from nnunet_ext.evaluation.metrics.metric import Metric, plain

HD95 = Metric(
    "hd95",
    "HD95",
    "surface",
    lambda label: plain(label.distances.hd95),
    unit="mm",
    better="lower",
    decimals=2,
    rule=DISTANCE_RULE,
)
