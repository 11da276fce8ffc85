"""Share of the predicted instances that are right, from the counts of all cases."""

from nnunet_ext.evaluation.metrics.lesions_recall import LESION_RULE
from nnunet_ext.evaluation.metrics.metric import Metric

LESIONS_PRECISION = Metric(
    "lesions_precision",
    "instance precision",
    "lesions",
    lambda label: (label.lesions.right, label.lesions.predicted),
    of_cases=False,
    parts=("right", "predicted"),
    rule=LESION_RULE,
)
