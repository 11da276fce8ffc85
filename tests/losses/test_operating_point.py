"""From which share of annotated voxels on DBDMP's cross-entropies call a voxel foreground, by the losses themselves.

docs/techniques/partial-instances.md gives the formulas, under "Choose an operating point".
"""

import math

import pytest
import torch

from nnunet_ext.losses.hard_labels import (
    label_log_probabilities,
    log_probabilities,
    one_hot,
    partial_cross_entropy,
)
from nnunet_ext.losses.partial_instances import LOG_OF_ZERO, symmetric_cross_entropy

VOXELS = 400_000
HALF = 2 * 0.8 + LOG_OF_ZERO
"""By how much 0.8 CE + RCE of a voxel falls with the probability of its label, at 1/2."""


def slope(q, f, w, p):
    """d(SCE + w PCE)/dz of voxels that look alike, with the foreground probability p = sigmoid(z).

    A share q of them is annotated foreground. They are half of all annotated foreground, which is a share f of all
    voxels; the network is sure, and right, of the others.
    """
    annotated = round(f * VOXELS / 2)
    number = torch.arange(VOXELS)
    alike = number < round(annotated / q)
    labels = ((number < annotated) | (number >= VOXELS - annotated)).long().reshape(1, 1, 1, VOXELS)
    z = torch.tensor(math.log(p / (1 - p)), requires_grad=True)
    logit = torch.where(alike, z, 60.0 * labels - 30.0)
    logits = torch.cat([torch.zeros_like(logit), logit], dim=1)
    label_log_p = label_log_probabilities(log_probabilities(logits), one_hot(labels, 2))
    loss = symmetric_cross_entropy(label_log_p) + w * partial_cross_entropy(label_log_p, labels > 0)
    return torch.autograd.grad(loss, z)[0].item()


@pytest.mark.parametrize(
    ("f", "w", "expected"),
    [(0.0054, 1, 0.028), (0.0023, 1, 0.012), (0.0054, 0.1, 0.184), (0.0023, 0.1, 0.100), (0.0054, 0, 0.5)],
)
def test_voxels_are_foreground_from_the_share_of_annotated_ones_on_that_the_documentation_gives(f, w, expected):
    assert (round(HALF, 2), round(2 * HALF, 2)) == (10.81, 21.62)
    q = HALF / (2 * HALF + 2 * w / f)
    assert q == pytest.approx(expected, abs=0.0005)
    for share, is_foreground in ((0.95 * q, False), (1.05 * q, True)):
        rises = [slope(share, f, w, p) > 0 for p in (0.01, 0.1, 0.3, 0.5, 0.7, 0.9, 0.99)]
        assert rises == sorted(rises)  # one minimum, so that the slope at 1/2 tells on which side it is
        assert rises[3] is not is_foreground


@pytest.mark.parametrize(("w", "expected"), [(1, 0.996), (0.1, 0.960), (0, 0.5)])
def test_at_the_threshold_that_the_documentation_gives_half_of_the_voxels_are_annotated(w, expected):
    f = 0.0054
    odds = 1 + w / (0.8 * f)
    threshold = odds / (1 + odds)
    assert threshold == pytest.approx(expected, abs=0.0005)
    assert slope(0.48, f, w, threshold) > 0 > slope(0.52, f, w, threshold)
