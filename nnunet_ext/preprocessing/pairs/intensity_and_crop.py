"""Making scans alike before training: cropped to the body, CT with the histogram of an MRI."""

from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk

from nnunet_ext.errors import UserError
from nnunet_ext.preprocessing.pairs.body import body_mask
from nnunet_ext.preprocessing.pairs.images import Mask, as_bool, on_grid

HISTOGRAM_LEVELS = 256
MATCH_POINTS = 32
"""Quantiles that are matched; between them intensities are mapped linearly."""


@dataclass(frozen=True)
class Region:
    """A box of voxels, to cut the same part out of a scan, its other channels and its labels."""

    start: tuple[int, ...]  # first voxel, along X, Y, Z
    size: tuple[int, ...]  # number of voxels

    def cut(self, image: sitk.Image) -> sitk.Image:
        """The part of an image; its voxels stay where they are in the patient."""
        return sitk.RegionOfInterest(image, self.size, self.start)


def crop_to_body(image: sitk.Image, margin_mm: float) -> Region:
    """The box around the body and a margin of so many mm, within the image; a UserError if no body is found."""
    inside = np.argwhere(_body_of(image, "image"))[:, ::-1]
    margin = np.ceil(margin_mm / np.asarray(image.GetSpacing())).astype(int)
    start = np.maximum(inside.min(axis=0) - margin, 0)
    end = np.minimum(inside.max(axis=0) + 1 + margin, image.GetSize())
    return Region(tuple(start.tolist()), tuple((end - start).tolist()))


def match_histogram(ct: sitk.Image, mr: sitk.Image) -> sitk.Image:
    """A CT whose body has the distribution of intensities of an MRI's body, of any size, as float32.

    A network that is to segment MRI can be pre-trained on such CTs. The order of intensities within the CT stays; the
    air around the body, of which every scan has another share, is left out and gets the median of what surrounds the
    body in the MRI (its lowest value if nothing does). A UserError says if no body is found in one of them.

    Source:
        pre-training of the HiLab entry to HNTS-MRG 2024 (arXiv 2412.14846).
    """
    values, imitated = (sitk.GetArrayFromImage(sitk.Cast(image, sitk.sitkFloat32)) for image in (ct, mr))
    body, body_of_mr = _body_of(ct, "CT"), _body_of(mr, "MRI")
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


def _body_of(image: sitk.Image, name: str) -> Mask:
    body = as_bool(body_mask(image))
    if not body.any():
        raise UserError(f"No body is found in the {name}: nearly all its voxels have one value. Leave this scan out.")
    return body
