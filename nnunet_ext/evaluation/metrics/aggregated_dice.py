"""Aggregated Dice (DSCagg) of all cases together.

Σ 2|A∩B| / Σ (|A| + |B|) over the cases. A case with the label in reference or prediction alone adds to the denominator,
one with it in neither adds nothing: no case needs a rule of its own. Large structures weigh more than in a mean of
Dice. Volumes are summed, not numbers of voxels, so that a case does not weigh more for a finer grid.

Source: Andrearczyk et al., Overview of the HECKTOR challenge at MICCAI 2021; in mm³ as that challenge's and HNTS-MRG
2024's evaluations sum it.
"""

from nnunet_ext.evaluation.metrics.label_in_case import LabelInCase
from nnunet_ext.evaluation.metrics.metric import Metric, Parts


def volumes(label: LabelInCase) -> Parts:
    """What a case adds to the two sums, 2|A∩B| and |A| + |B|, in mm³."""
    counts, size = label.voxels, label.voxel_size
    return 2 * counts.found * size, (counts.reference + counts.predicted) * size


AGGREGATED_DICE = Metric(
    "aggregated_dice",
    "aggregated Dice",
    "dice",
    volumes,
    full_title="Aggregated Dice (DSCagg)",
    of_cases=False,
    mean="foreground_aggregated_dice",
    rule="aggregated_dice (DSCagg) is computed once from all cases: twice the volume that reference and prediction "
    "share, divided by the sum of both volumes. It is null if no case has the label. foreground_aggregated_dice is the "
    "mean over the other labels. volumes are in cubic mm, in square mm for single slices, or in pixels for images "
    "without a spacing. Ignored voxels do not count.",
)
