"""The body in a scan: where it is, the box around it, and a CT's with the histogram of an MRI's."""

import numpy as np
import SimpleITK as sitk
from scipy import ndimage

from nnunet_ext.errors import UserError
from nnunet_ext.preprocessing.pairs.images import Mask, as_bool, on_grid

CLIPPED_PERCENT = 0.5
CLOSED_MM = 6.0
HISTOGRAM_LEVELS = 256
MATCH_POINTS = 32  # quantiles that are matched; between them intensities are mapped linearly


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


def body_box(image: sitk.Image, margin_mm: float, *, name: object = "the image") -> tuple[slice, ...]:
    """The box around the body and a margin of so many mm, to be cut out by ``image[box]``; a UserError without body.

    `name` is the image's in the message.
    """
    inside = np.argwhere(_body_of(image, name))[:, ::-1]
    margin = np.ceil(margin_mm / np.asarray(image.GetSpacing())).astype(int)
    start = np.maximum(inside.min(axis=0) - margin, 0)
    end = np.minimum(inside.max(axis=0) + 1 + margin, image.GetSize())
    return tuple(map(slice, start.tolist(), end.tolist()))


def match_histogram(
    ct: sitk.Image, mr: sitk.Image, *, names: tuple[object, object] = ("the CT", "the MRI")
) -> sitk.Image:
    """A CT whose body has the distribution of intensities of an MRI's body, of any size, as float32.

    A network that is to segment MRI can be pre-trained on such CTs. The order of intensities within the CT stays; the
    air around the body, of which every scan has another share, is left out and gets the median of what surrounds the
    body in the MRI (its lowest value if nothing does). A UserError, with its name of `names`, says in which no body is.

    Source:
        pre-training of the HiLab entry to HNTS-MRG 2024 (arXiv 2412.14846).
    """
    values, imitated = (sitk.GetArrayFromImage(sitk.Cast(image, sitk.sitkFloat32)) for image in (ct, mr))
    body, body_of_mr = (_body_of(image, name) for image, name in zip((ct, mr), names))
    # the filter takes whole images: each body becomes one of a single row
    matched = sitk.HistogramMatching(
        sitk.GetImageFromArray(values[body][None]),
        sitk.GetImageFromArray(imitated[body_of_mr][None]),
        HISTOGRAM_LEVELS,
        MATCH_POINTS,
        thresholdAtMeanIntensity=False,
    )
    around = imitated[~body_of_mr]
    result = np.full_like(values, np.median(around) if around.size else imitated.min())
    result[body] = sitk.GetArrayFromImage(matched)[0]
    return on_grid(result, ct)


def _body_of(image: sitk.Image, name: object) -> Mask:
    body = as_bool(body_mask(image))
    if not body.any():
        raise UserError(f"No body is found in {name}: nearly all its voxels have one value. Leave this scan out.")
    return body
