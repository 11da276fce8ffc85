"""How far reference and prediction overlap: Dice of a case, and aggregated Dice of several."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from nnunetv2.evaluation.evaluate_predictions import compute_tp_fp_fn_tn

from nnunet_ext.evaluation.lesions import DetectionCounts

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Overlap:
    """A label in a case, in voxels that are not ignored.

    Attributes:
        reference: voxels of the reference, |A|.
        predicted: voxels of the prediction, |B|.
        both: voxels that they share, |A∩B|.
        voxel_size: of one voxel, in mm³.
    """

    reference: int
    predicted: int
    both: int
    voxel_size: float = 1.0

    @property
    def dice(self) -> float:
        """Dice as nnU-Net's summary.json has it; NaN if reference and prediction are empty."""
        total = self.reference + self.predicted
        return 2 * self.both / total if total else math.nan

    @property
    def counts(self) -> DetectionCounts:
        """The same numbers of voxels as what is found of the reference, and right of the prediction."""
        return DetectionCounts(self.reference, self.both, self.predicted, self.both)

    @property
    def parts(self) -> tuple[float, float]:
        """What the case adds to both sums of aggregated Dice, 2|A∩B| and |A| + |B|, in mm³."""
        return 2 * self.both * self.voxel_size, (self.reference + self.predicted) * self.voxel_size


def count_overlap(reference: Mask, prediction: Mask, *, ignored: Mask | None, spacing: Sequence[float]) -> Overlap:
    """Count the voxels of one label in a case.

    Args:
        reference: (Z, Y, X), where the label is.
        prediction: of the same shape, where it is predicted.
        ignored: voxels where the reference is unknown; they do not count.
        spacing: voxel size in mm, in the order of the axes. With a single slice a voxel's size is its area: the
            thickness that nnU-Net gives a 2D image is made up.
    """
    both, only_predicted, only_reference, _ = map(int, compute_tp_fp_fn_tn(reference, prediction, ignored))
    sides = spacing[1:] if reference.shape[0] == 1 else spacing
    return Overlap(both + only_reference, both + only_predicted, both, math.prod(map(float, sides)))


def aggregated_dice(overlaps: Iterable[Overlap]) -> float:
    """Aggregated Dice of one label, DSCagg: Σ 2|A∩B| / Σ (|A| + |B|) over the cases; NaN if no case has the label.

    A case with the label in reference or prediction alone adds to the denominator, one with it in neither adds nothing:
    no case needs a rule of its own. Large structures weigh more than in a mean of Dice. Volumes are summed, not numbers
    of voxels, so that a case does not weigh more for a finer grid.

    Source: Andrearczyk et al., Overview of the HECKTOR challenge at MICCAI 2021; in mm³ as that challenge's and
    HNTS-MRG 2024's evaluations sum it.
    """
    parts = [overlap.parts for overlap in overlaps]
    total = sum(volume for _, volume in parts)
    return sum(twice for twice, _ in parts) / total if total else math.nan
