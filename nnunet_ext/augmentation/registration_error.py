"""Small random motions of a prior scan against the current one, as imperfect registration leaves them."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform
from scipy.spatial.transform import Rotation
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample

from nnunet_ext.augmentation.draws import drawn_generator


class Misalignment(BasicTransform):
    """Moves some channels of the image together, by a random rigid motion in millimetres.

    Returns ``image`` with these channels moved and the others as they were, bit by bit; the rest of the sample is not
    looked at. Interpolation is linear, so that a binary channel gets soft edges, as from nnU-Net's own transforms.

    It belongs right before the first intensity transform of nnU-Net's (after Convert2DTo3DTransform): later, their
    noise would be interpolated; earlier, the patch has not got its shape. It is no ImageOnlyTransform, by which
    nnU-Net's intensity transforms are recognised.
    """

    def __init__(
        self, channels: Sequence[int], max_shift: float, max_rotation: float, spacing: Sequence[float]
    ) -> None:
        """
        Args:
            channels: those that move, from 0, none twice.
            max_shift: the shift along each axis is uniform in ± this many millimetres.
            max_rotation: the rotation about each axis is uniform in ± this many degrees; in 2D there is one, in plane.
            spacing: of the voxels along the patch's axes, in millimetres: the configuration's.
        """
        super().__init__()
        self.channels, self.spacing = list(channels), [float(length) for length in spacing]
        self.max_shift, self.max_rotation = max_shift, max_rotation

    def get_parameters(self, **data_dict: Any) -> dict[str, Any]:
        rng = drawn_generator()
        dims = len(self.spacing)
        return {
            "shift": rng.uniform(-self.max_shift, self.max_shift, dims),
            "rotation": rng.uniform(-self.max_rotation, self.max_rotation, 3 if dims == 3 else 1),
        }

    def apply(self, data_dict: dict[str, Any], **params: Any) -> dict[str, Any]:
        image = data_dict["image"].clone()
        image[self.channels] = moved(image[self.channels], **params, spacing=self.spacing)
        return {**data_dict, "image": image}


def moved(image: Tensor, *, shift: Sequence[float], rotation: Sequence[float], spacing: Sequence[float]) -> Tensor:
    """An image turned about its centre, then shifted: out(x) = image(Rᵀ (x − t)), x in mm from the centre.

    Args:
        image: (C, X, Y) or (C, X, Y, Z), floating point.
        shift: t in mm along each axis.
        rotation: degrees, see `rotation_matrix`.
        spacing: of the voxels along each axis in mm.

    Returns:
        Same shape and type; linear interpolation, and zeros outside.

    Raises:
        ValueError: if spacing or shift do not have one value for each spatial axis.
    """
    dims = image.ndim - 1
    if not len(spacing) == len(shift) == dims:
        raise ValueError(f"The image has {dims} spatial axes, shift {len(shift)} values and spacing {len(spacing)}.")
    # affine_grid's coordinates run from -1 to 1 over the outer borders of the voxels, so that this is 1 in mm
    half = np.array(image.shape[1:]) * np.asarray(spacing) / 2
    inverse = rotation_matrix(rotation).T
    matrix = inverse * half / half[:, None]
    offset = -(inverse @ np.asarray(shift)) / half
    # and they have the last axis first
    theta = np.column_stack([matrix[::-1, ::-1], offset[::-1]])
    grid = affine_grid(torch.from_numpy(theta)[None].to(image), [1, *image.shape], align_corners=False)
    return grid_sample(image[None], grid, mode="bilinear", padding_mode="zeros", align_corners=False)[0]


def rotation_matrix(degrees: Sequence[float]) -> np.ndarray:
    """Rotations about axis 2, then 1, then 0 as one matrix.

    Args:
        degrees: about each of the axes 0, 1, 2, from the next axis towards the one after it (about 0: from 1 towards
            2); or one value, in two dimensions, from axis 0 towards axis 1.

    Returns:
        (3, 3) or (2, 2) float64, for column vectors.
    """
    if len(degrees) == 1:
        return Rotation.from_euler("Z", degrees[0], degrees=True).as_matrix()[:2, :2]
    return Rotation.from_euler("XYZ", degrees, degrees=True).as_matrix()
