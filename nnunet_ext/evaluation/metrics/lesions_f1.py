"""Harmonic mean of the recall and the precision of instances."""

import math

import numpy as np

from nnunet_ext.evaluation.bootstrap import Table, ratio
from nnunet_ext.evaluation.metrics.lesions_precision import LESIONS_PRECISION
from nnunet_ext.evaluation.metrics.lesions_recall import LESION_RULE, LESIONS_RECALL
from nnunet_ext.evaluation.metrics.metric import Metric


def f1(sums: Table) -> Table:
    """F1 of the sums of recall and precision, (..., 2, 2) -> (...): `DetectionCounts.f1` of many at once."""
    found, right = sums[..., 0, 0], sums[..., 1, 0]
    recall, precision = ratio(found, sums[..., 0, 1]), ratio(right, sums[..., 1, 1])
    both = ratio(2 * recall * precision, recall + precision)
    some = np.where((found > 0) & (right > 0), both, 0.0)
    return np.where(sums[..., 1].sum(axis=-1) > 0, some, math.nan)


LESIONS_F1 = Metric(
    "lesions_f1",
    "instance F1",
    "lesions",
    None,
    sources=(LESIONS_RECALL.name, LESIONS_PRECISION.name),
    aggregate=f1,
    of_cases=False,
    rule=LESION_RULE,
)
