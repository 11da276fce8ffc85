"""Where the patient is in a scan."""

import numpy as np
import SimpleITK as sitk
from scipy import ndimage

from nnunet_ext.preprocessing.pairs.images import as_bool, on_grid

CLIPPED_PERCENT = 0.5
CLOSED_MM = 6.0


def clipped(image: sitk.Image) -> sitk.Image:
    """The image as float32 with the half per cent of its lowest and highest values cut off.

    A few extreme voxels (vessels, metal, reconstruction artefacts) would otherwise set the scale of every histogram.
    """
    low, high = np.percentile(sitk.GetArrayViewFromImage(image), [CLIPPED_PERCENT, 100 - CLIPPED_PERCENT])
    return sitk.Clamp(sitk.Cast(image, sitk.sitkFloat32), sitk.sitkFloat32, float(low), float(high))


def body_mask(image: sitk.Image) -> sitk.Image:
    """The body in a scan of any modality and one channel, cavities and lungs included, as uint8 on the image's grid.

    Otsu's threshold on the square root of the intensities keeps dark tissue with the body where fat is much brighter
    (MRI) and changes little in CT. Gaps of a few millimetres are closed, the largest component is kept, and its holes
    are filled slice by slice, since a cavity may leave the volume. The mask of an image of a single value is empty.
    """
    lifted = clipped(image)
    values = sitk.GetArrayFromImage(lifted)
    values = np.sqrt(values - values.min())
    if values.max() == 0:
        # the few voxels that differ, if any, are what the clipping takes away
        return on_grid(np.zeros(values.shape, dtype=bool), image)
    tissue = sitk.OtsuThreshold(on_grid(values, image), 0, 1, 128)
    # an axis of thick slices is not closed across: its radius is zero voxels
    radius = [int(CLOSED_MM / 2 / spacing) for spacing in image.GetSpacing()]
    tissue = sitk.BinaryMorphologicalClosing(tissue, radius)
    tissue = sitk.RelabelComponent(sitk.ConnectedComponent(tissue)) == 1
    mask = as_bool(tissue)
    slices = mask if mask.ndim == 3 else mask[None]
    filled = np.stack([ndimage.binary_fill_holes(one) for one in slices])
    return on_grid(filled.reshape(mask.shape), image)
