"""Fitting the kernel of a convolution to another size, where the plans' kernels or strides differ."""

from collections.abc import Sequence

from torch import Tensor
from torch.nn.functional import pad


def adapted_kernel(weight: Tensor, size: Sequence[int], *, is_transposed: bool) -> tuple[Tensor, str] | None:
    """A kernel of another size along some of its dimensions.

    From 3 to 1 it is averaged, as in nnU-Net's own adaptation of pre-trained weights: an image that does not change
    along the dimension gives a third of the response, which the following normalisation undoes. From 1 to 3 it stands
    in the middle of zeros, which computes the same. The kernel of a transposed convolution is its stride: to 1 it is
    averaged, from 1 it is repeated.

    Args:
        weight: (out, in, [X,] Y, Z), of a transposed convolution (in, out, [X,] Y, Z).
        size: of the kernel that is needed, for each dimension.
        is_transposed: whether it is of a transposed convolution.

    Returns:
        The weight and what was done; None if there is no rule for these sizes.
    """
    old = list(weight.shape[2:])
    if len(old) != len(size):
        return None
    for dimension, (before, after) in enumerate(zip(old, size), start=2):
        if before == after:
            continue
        if after == 1:
            weight = weight.mean(dim=dimension, keepdim=True)
        elif before == 1 and is_transposed:
            weight = weight.repeat_interleave(after, dim=dimension)
        elif before == 1 and after % 2:
            around = [0, 0] * (weight.ndim - 1 - dimension) + [after // 2, after // 2]
            weight = pad(weight, around)
        else:
            return None
    return weight.contiguous(), f"kernel {_size(old)} -> {_size(size)}"


def _size(kernel: Sequence[int]) -> str:
    return "x".join(map(str, kernel))
