"""Two scans of one patient, prepared for registration, and what a transform between them is worth."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk
from scipy.stats import entropy

from nnunet_ext.messages import size
from nnunet_ext.preprocessing.pairs.body import body_mask, clipped
from nnunet_ext.preprocessing.pairs.images import as_bool, axis_directions, covered, moved_image

Floats = npt.NDArray[np.float64]

MOST_VOXELS = 4_000_000
FEWEST_VOXELS_OF_AXIS = 4
FEWEST_VOXELS_OF_BODY = 200
FEWEST_VOXELS_OF_SHRUNK_AXIS = 12
RIM_MM = 5.0
BINS = 32


@dataclass(frozen=True)
class ImagePair:
    """The two scans as they are registered: float32, clipped, large ones reduced."""

    current: sitk.Image  # the scan that stays
    prior: sitk.Image  # the scan that is moved
    current_body: sitk.Image  # mask of the body on current's grid
    prior_body: sitk.Image  # mask of the body on prior's grid
    region: sitk.Image  # the current body and a rim of some millimetres, so that its outline counts
    smooth_current: sitk.Image  # current at about twice the finest spacing, on which similarity is measured
    smooth_prior: sitk.Image  # prior likewise
    smooth_region: sitk.Image  # region likewise

    def similarity(self, transform: sitk.Transform) -> float:
        """Normalised mutual information of current and moved prior, 2 I / (H_current + H_prior), in the region.

        All voxels of the region count, whichever the transform (from points of current to points of prior): what the
        prior does not cover has its lowest value, so that two transforms compare, and a prior that is out of sight has
        0. The expected excess of independent images over zero is taken off (Miller and Madow's correction); equal
        images are near 1.

        It is measured on smoothed images of twice the finest spacing. On the scans themselves a transform that hits
        voxel centres, above all no movement, has an advantage over all others, which interpolation blurs: there, a
        deformation that lays organs on one another better can measure worse than none.
        """
        inside = as_bool(self.smooth_region)
        moved = moved_image(self.smooth_prior, self.smooth_current, transform)
        return normalised_mutual_information(
            sitk.GetArrayViewFromImage(self.smooth_current)[inside], sitk.GetArrayViewFromImage(moved)[inside]
        )

    def inside(self, transform: sitk.Transform) -> float:
        """The share of the current body that lies in the prior's field of view once that is moved."""
        return float(covered(self.current, self.prior, transform)[as_bool(self.current_body)].mean())

    def radius(self) -> float:
        """Root of the mean square distance of the current body's voxels from its centre, in mm."""
        return float(np.sqrt(body_points(self.current_body).var(axis=0).sum()))

    def shifts(self, transform: sitk.Transform) -> Floats:
        """By how much the body's voxels are moved, in mm, (N, dimensions)."""
        return self._field(transform)[as_bool(self.current_body)]

    def volume_changes(self, transform: sitk.Transform) -> Floats:
        """The Jacobian determinant at the body's voxels, (N,): 1 keeps the volume, 0 and less is a fold."""
        field, dimensions = self._field(transform), self.current.GetDimension()
        body = as_bool(self.current_body)
        # arrays are indexed (Z, Y, X), vectors are (X, Y, Z)
        along_axes = np.stack(
            [
                np.gradient(field, spacing, axis=dimensions - 1 - axis)[body]
                for axis, spacing in enumerate(self.current.GetSpacing())
            ],
            axis=-1,
        )
        return np.linalg.det(np.eye(dimensions) + along_axes @ axis_directions(self.current).T)

    def _field(self, transform: sitk.Transform) -> Floats:
        field = sitk.TransformToDisplacementFieldFilter()
        field.SetReferenceImage(self.current)
        field.SetOutputPixelType(sitk.sitkVectorFloat64)
        return sitk.GetArrayFromImage(field.Execute(transform))


def prepared_pair(current: sitk.Image, prior: sitk.Image) -> ImagePair | str:
    """The pair, or in a sentence why it cannot be registered."""
    small, bodies = [], []
    for name, image in (("current", current), ("prior", prior)):
        if min(image.GetSize()) < FEWEST_VOXELS_OF_AXIS:
            return (
                f"the {name} image has {size(image.GetSize())} voxels; "
                f"registration needs {FEWEST_VOXELS_OF_AXIS} along every axis"
            )
        reduced = shrunk(clipped(image), _reduction(image))
        body = body_mask(reduced)
        voxels = int(as_bool(body).sum())
        if voxels == 0:
            return f"the {name} image has next to no contrast: no body is found in it"
        if voxels < FEWEST_VOXELS_OF_BODY:
            return f"the body in the {name} image has {voxels} voxels; at least {FEWEST_VOXELS_OF_BODY} are needed"
        small.append(reduced)
        bodies.append(body)
    current_small, prior_small = small
    region = sitk.BinaryDilate(bodies[0], [round(RIM_MM / spacing) for spacing in current_small.GetSpacing()])
    spacing = 2 * min(current_small.GetSpacing())
    factors = shrink_factors(current_small, spacing)
    return ImagePair(
        current=current_small,
        prior=prior_small,
        current_body=bodies[0],
        prior_body=bodies[1],
        region=region,
        smooth_current=shrunk(current_small, factors),
        smooth_prior=shrunk(prior_small, shrink_factors(prior_small, spacing)),
        smooth_region=shrunk(region, factors),
    )


def normalised_mutual_information(first: npt.NDArray[np.float32], second: npt.NDArray[np.float32]) -> float:
    """2 I / (H + H) of the values at common places, by histograms; 0 if one of them is constant."""
    joint, _, _ = np.histogram2d(first, second, bins=BINS)
    rows, columns = joint.sum(axis=1), joint.sum(axis=0)
    entropies = entropy(rows), entropy(columns)
    if min(entropies) == 0:
        return 0.0
    excess = (np.count_nonzero(rows) - 1) * (np.count_nonzero(columns) - 1) / (2 * joint.sum())
    return float(2 * (sum(entropies) - entropy(joint, axis=None) - excess) / sum(entropies))


def body_points(body: sitk.Image) -> Floats:
    """Positions of a mask's voxels in mm, (N, dimensions)."""
    indices = np.argwhere(as_bool(body))[:, ::-1]
    return np.asarray(body.GetOrigin()) + (indices * np.asarray(body.GetSpacing())) @ axis_directions(body).T


def shrunk(image: sitk.Image, factors: Sequence[int]) -> sitk.Image:
    """The image with every axis reduced by its whole factor, smoothed before along the axes that are."""
    if max(factors) == 1:
        return image
    if image.GetPixelID() == sitk.sitkUInt8:
        return sitk.Shrink(image, factors)  # a mask
    variances = [
        (spacing * factor / 2) ** 2 if factor > 1 else 0.0 for spacing, factor in zip(image.GetSpacing(), factors)
    ]
    return sitk.Shrink(sitk.DiscreteGaussian(image, variances), factors)


def shrink_factors(image: sitk.Image, spacing: float) -> list[int]:
    """Factors that bring the axes to about `spacing` in mm; none is left with a few voxels, or with fewer than it has.

    Thick slices stay as they are while the axes within them are reduced.
    """
    return [
        max(1, min(round(spacing / own), voxels // FEWEST_VOXELS_OF_SHRUNK_AXIS))
        for own, voxels in zip(image.GetSpacing(), image.GetSize())
    ]


def _reduction(image: sitk.Image) -> list[int]:
    """Factors that bring a large image down to a size at which registration takes a minute or so."""
    factors = [1] * image.GetDimension()
    while np.prod([voxels // factor for voxels, factor in zip(image.GetSize(), factors)]) > MOST_VOXELS:
        finest = int(np.argmin([spacing * factor for spacing, factor in zip(image.GetSpacing(), factors)]))
        factors[finest] += 1
    return factors
