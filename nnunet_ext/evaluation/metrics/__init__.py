"""The metrics, a file for each kind. A new one is a new file and an entry in `METRICS`.

Importing this package is cheap: what computes the scores is imported when it is needed.
"""

from collections.abc import Collection

from nnunet_ext.evaluation.metrics.aggregated_dice import AGGREGATED_DICE
from nnunet_ext.evaluation.metrics.dice import DICE
from nnunet_ext.evaluation.metrics.lesions import LESIONS_F1, LESIONS_PRECISION, LESIONS_RECALL
from nnunet_ext.evaluation.metrics.metric import Metric
from nnunet_ext.evaluation.metrics.nsd import NSD
from nnunet_ext.evaluation.metrics.surface_distances import ASSD, HD95
from nnunet_ext.evaluation.metrics.volumes import VOLUME_PREDICTED, VOLUME_REFERENCE

METRICS: tuple[Metric, ...] = (
    DICE,
    AGGREGATED_DICE,
    VOLUME_REFERENCE,
    VOLUME_PREDICTED,
    NSD,
    ASSD,
    HD95,
    LESIONS_RECALL,
    LESIONS_PRECISION,
    LESIONS_F1,
)
GROUPS = tuple(dict.fromkeys(metric.group for metric in METRICS))


def metrics_of(groups: Collection[str]) -> tuple[Metric, ...]:
    """The metrics of some groups; those of Dice are always among them."""
    return tuple(metric for metric in METRICS if metric.group in {DICE.group, *groups})
