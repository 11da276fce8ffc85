"""Kernels of another size, checked by what the convolutions compute."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import conv3d, conv_transpose3d

from nnunet_ext.checkpoints.kernels import adapted_kernel


def adapted(weight: torch.Tensor, size: list[int], *, is_transposed: bool = False) -> torch.Tensor:
    found = adapted_kernel(weight, size, is_transposed=is_transposed)
    assert found is not None
    assert list(found[0].shape[2:]) == size
    return found[0]


def test_kernel_of_one_in_a_kernel_of_three_computes_the_same() -> None:
    weight = torch.randn(2, 3, 1, 3, 1, dtype=torch.float64)
    data = torch.randn(1, 3, 5, 6, 7, dtype=torch.float64)
    wide = adapted(weight, [3, 3, 3])
    torch.testing.assert_close(conv3d(data, wide, padding=1), conv3d(data, weight, padding=(0, 1, 0)))


def test_mean_over_a_dimension_gives_a_third_where_the_image_does_not_change_along_it() -> None:
    weight = torch.randn(2, 3, 3, 3, 3, dtype=torch.float64)
    data = torch.randn(1, 3, 1, 6, 7, dtype=torch.float64).expand(-1, -1, 5, -1, -1)
    flat = adapted(weight, [1, 3, 3])
    inside = conv3d(data, weight, padding=(0, 1, 1))
    torch.testing.assert_close(3 * conv3d(data, flat, padding=(0, 1, 1))[:, :, 1:-1], inside)


def test_transposed_kernel_is_averaged_or_repeated() -> None:
    weight = torch.randn(3, 2, 2, 2, 2, dtype=torch.float64)
    data = torch.randn(1, 3, 4, 4, 4, dtype=torch.float64)
    before = conv_transpose3d(data, weight, stride=2)
    flat = adapted(weight, [1, 2, 2], is_transposed=True)
    averaged = before.unflatten(2, (4, 2)).mean(dim=3)
    torch.testing.assert_close(conv_transpose3d(data, flat, stride=(1, 2, 2)), averaged)
    again = adapted(flat, [2, 2, 2], is_transposed=True)
    torch.testing.assert_close(conv_transpose3d(data, again, stride=2), averaged.repeat_interleave(2, dim=2))


@pytest.mark.parametrize(("before", "after"), [((3, 3, 3), (5, 3, 3)), ((3, 3, 3), (3, 3)), ((1, 1, 1), (2, 1, 1))])
def test_other_sizes_have_no_rule(before: tuple[int, ...], after: tuple[int, ...]) -> None:
    assert adapted_kernel(torch.zeros(1, 1, *before), after, is_transposed=False) is None


def test_same_size_is_left_as_it_is() -> None:
    weight = torch.randn(2, 3, 3, 3)
    assert torch.equal(adapted(weight, [3, 3]), weight)
