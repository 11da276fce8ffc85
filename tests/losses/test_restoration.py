import numpy as np
import pytest
import torch

from nnunet_ext.losses.restoration import squared_error, squared_sums


def example():
    rng = np.random.default_rng(0)
    restored, image = rng.normal(size=(2, 2, 3, 5, 4, 3)).astype(np.float32)
    counts = rng.random((2, 1, 5, 4, 3)) < 0.3
    return restored, image, counts


def test_errors_and_variance_are_over_the_voxels_that_count():
    restored, image, counts = example()
    kept = np.broadcast_to(counts, image.shape)
    pairs = list(zip(restored.astype(np.float64)[kept], image.astype(np.float64)[kept]))
    error = sum((a - b) ** 2 for a, b in pairs) / len(pairs)
    of_patches = [image[b, c].astype(np.float64)[kept[b, c]] for b in range(2) for c in range(3)]
    variance = sum(((values - values.mean()) ** 2).sum() for values in of_patches)
    tensors = [torch.from_numpy(one) for one in (restored, image, counts)]
    assert squared_error(*tensors).item() == pytest.approx(error, rel=1e-6)
    assert [one.item() for one in squared_sums(*tensors)] == pytest.approx([error * len(pairs), variance], rel=1e-5)


def test_means_of_patches_and_channels_explain_nothing_and_constant_patches_count_nothing():
    generator = torch.Generator().manual_seed(0)
    offsets = torch.tensor([[0.0, 5.0], [3.0, -40.0]])[..., None, None]
    image = offsets + 0.1 * torch.randn((2, 2, 9, 8), generator=generator)
    counts = torch.ones(2, 1, 9, 8, dtype=torch.bool)
    error, variance = squared_sums(image.mean((2, 3), keepdim=True).expand_as(image), image, counts)
    assert error.item() == pytest.approx(variance.item(), rel=1e-4)
    error, variance = squared_sums(torch.full((1, 1, 9, 8), 1.5), torch.ones(1, 1, 9, 8), counts[:1])
    assert (error.item(), variance.item()) == (0.25 * 72, 0)
    assert [one.item() for one in squared_sums(image, image, torch.zeros_like(counts))] == [0, 0]


def test_what_does_not_count_has_no_gradient():
    restored, image, counts = (torch.from_numpy(one) for one in example())
    restored.requires_grad_()
    squared_error(restored, image, counts).backward()
    assert restored.grad is not None
    assert ((restored.grad != 0) == counts.expand_as(image)).all()


def test_nothing_that_counts_is_a_loss_of_zero():
    restored, image, counts = (torch.from_numpy(one) for one in example())
    restored.requires_grad_()
    loss = squared_error(restored, image, torch.zeros_like(counts))
    loss.backward()
    assert loss.item() == 0
    assert not restored.grad.any()


def test_half_precision_is_summed_in_single():
    image = torch.zeros(1, 1, 64, 64)
    restored = torch.full_like(image, 300.0).half()  # its square is infinite in half precision
    assert squared_error(restored, image, torch.ones_like(image, dtype=torch.bool)).item() == 90000.0
