"""Recall, precision and F1 of instances, from the counts of all cases."""

import math

import numpy as np

from nnunet_ext.evaluation.bootstrap import Table, ratio
from nnunet_ext.evaluation.metrics.metric import Metric

RULE = (
    "lesions are instances of a label. Those of the reference come from the maps in the folder instances. Without "
    "maps, and for labels that a map leaves out, they are connected components, as those of the prediction always are. "
    "An instance of the reference is found if at least the share overlap of its voxels is predicted. A predicted "
    "instance is right if at least that share of its voxels is in the reference. Ignored voxels do not count. Recall "
    "is null without an instance in the reference, precision without a predicted one, F1 without either. F1 is 0 if "
    "only one side has instances. A label's lesions are sums over all cases, and the rates of these sums."
)


def f1(sums: Table) -> Table:
    """Harmonic mean of recall and precision by their sums, (..., 2, 2) -> (...); of voxels it is Dice.

    It is 0 if only one of reference and prediction has any, NaN if neither has.
    """
    found, right = sums[..., 0, 0], sums[..., 1, 0]
    recall, precision = ratio(found, sums[..., 0, 1]), ratio(right, sums[..., 1, 1])
    both = ratio(2 * recall * precision, recall + precision)
    some = np.where((found > 0) & (right > 0), both, 0.0)
    return np.where(sums[..., 1].sum(axis=-1) > 0, some, math.nan)


LESIONS_RECALL = Metric(
    "lesions_recall",
    "instance recall",
    "lesions",
    lambda label: (label.lesions.found, label.lesions.reference),
    of_cases=False,
    parts=("found", "reference"),
    rule=RULE,
)
LESIONS_PRECISION = Metric(
    "lesions_precision",
    "instance precision",
    "lesions",
    lambda label: (label.lesions.right, label.lesions.predicted),
    of_cases=False,
    parts=("right", "predicted"),
    rule=RULE,
)
LESIONS_F1 = Metric(
    "lesions_f1",
    "instance F1",
    "lesions",
    None,
    sources=(LESIONS_RECALL.name, LESIONS_PRECISION.name),
    aggregate=f1,
    of_cases=False,
    rule=RULE,
)
