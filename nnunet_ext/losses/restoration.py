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


def squared_sums(restored: Tensor, image: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
    """Sums over the voxels that count: the squared error, and the squared distance to their mean.

    The mean is that of each patch and channel, so that a constant patch adds nothing to the second sum. 1 minus the
    quotient of the two is the explained variance: 1 is perfect, 0 as good as the patches' mean values.

    Args:
        restored: (B, C, [X,] Y, Z), of any precision.
        image: the image as it was, of the same shape.
        counts: (B, 1, [X,] Y, Z), true where a voxel counts.
    """
    axes = tuple(range(2, image.ndim))
    total = image.masked_fill(~counts, 0).sum(axes, keepdim=True)
    mean = total / counts.sum(axes, keepdim=True).clamp_min(1)
    error, distance = ((one - image).square().masked_fill(~counts, 0).sum() for one in (restored.float(), mean))
    return error, distance
