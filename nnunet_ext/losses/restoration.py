"""How well a network restores images, over the voxels that count."""

from torch import Tensor

from nnunet_ext.losses.soft_targets import masked_mean


def squared_error(restored: Tensor, image: Tensor, counts: Tensor) -> Tensor:
    """Mean squared error over the channels of the voxels that count; zero, with zero gradients, if none does.

    Args:
        restored: (B, C, [X,] Y, Z), of any precision.
        image: the image as it was, of the same shape.
        counts: (B, 1, [X,] Y, Z), true where a voxel counts.
    """
    return masked_mean((restored.float() - image).square(), counts)


def explained_variance(restored: Tensor, image: Tensor, counts: Tensor) -> Tensor:
    """1 - error / variance, both over the voxels that count: 1 is perfect, 0 as good as their mean value.

    Args:
        restored: (B, C, [X,] Y, Z), of any precision.
        image: the image as it was, of the same shape.
        counts: (B, 1, [X,] Y, Z), true where a voxel counts.
    """
    variance = masked_mean((image - masked_mean(image, counts)).square(), counts)
    return 1 - squared_error(restored, image, counts) / variance.clamp_min(1e-8)
