"""Which lesions (instances of a label) a prediction finds, and which of its own are right."""

import numpy as np
import numpy.typing as npt

from nnunet_ext.evaluation.metrics.label_in_case import OVERLAP, DetectionCounts
from nnunet_ext.preprocessing.raw.instances import components
from nnunet_ext.preprocessing.raw.raw_dataset import Labels

Mask = npt.NDArray[np.bool_]


def count_lesions(
    reference: Mask,
    prediction: Mask,
    *,
    instances: Labels | None = None,
    ignored: Mask | None = None,
    overlap: float = OVERLAP,
) -> DetectionCounts:
    """Count what is found and what is right, for one label.

    An instance of the reference is found if at least `overlap` of its voxels are predicted. An instance of the
    prediction, which is one of its connected components, is right if at least `overlap` of its voxels are in the
    reference. Voxels that are ignored count on neither side; an instance of nothing else does not exist.

    Instances are not matched one to one by their IoU, as panoptic quality does: a prediction that joins two lesions
    which almost touch would count as two misses, though both were found.

    Args:
        reference: (Z, Y, X), where the label is.
        prediction: of the same shape.
        instances: numbers that tell the reference's instances apart; without, they are its connected components.
            Voxels connect at faces, edges and corners.
        ignored: voxels where the reference is unknown.
        overlap: above 0 and at most 1.
    """
    counted = np.True_ if ignored is None else ~ignored
    known = reference & counted
    ours = components(reference.astype(np.uint8), [1]) if instances is None else instances
    theirs = components(prediction.astype(np.uint8), [1])
    number, found = _covered(ours[known], prediction[known], overlap)
    inside = prediction & counted
    predicted, right = _covered(theirs[inside], known[inside], overlap)
    return DetectionCounts(number, found, predicted, right)


def _covered(numbers: Labels, hits: Mask, overlap: float) -> tuple[int, int]:
    """How many instances there are, and how many have at least a share `overlap` of hits, by their voxels."""
    _, index, sizes = np.unique(numbers, return_inverse=True, return_counts=True)
    shares = np.bincount(index, weights=hits, minlength=len(sizes)) / sizes
    return len(sizes), int(np.count_nonzero(shares >= overlap))
