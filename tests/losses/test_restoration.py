import numpy as np
import pytest
import torch

from nnunet_ext.losses.restoration import explained_variance, squared_error


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
    mean = sum(b for _, b in pairs) / len(pairs)
    variance = sum((b - mean) ** 2 for _, b in pairs) / len(pairs)
    tensors = [torch.from_numpy(one) for one in (restored, image, counts)]
    assert squared_error(*tensors).item() == pytest.approx(error, rel=1e-6)
    assert explained_variance(*tensors).item() == pytest.approx(1 - error / variance, rel=1e-5)


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
