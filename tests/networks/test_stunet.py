"""STU-Net's network. That it computes what the published one does is tested with its reader."""

import pytest
import torch
from torch import nn

from nnunet_ext.networks.stunet import STUNet

TINY = {
    "n_stages": 3,
    "features_per_stage": [4, 6, 8],
    "kernel_sizes": [[1, 3, 3], [3, 3, 3], [3, 3, 3]],
    "strides": [[1, 1, 1], [1, 2, 2], [2, 2, 2]],
    "n_blocks_per_stage": [1, 2, 1],
}


@pytest.mark.parametrize(
    ("width", "blocks", "published"), [(16, 1, 14.60), (32, 1, 58.26), (64, 2, 440.30), (96, 3, 1457.33)]
)
def test_number_of_parameters_is_the_published_one(width, blocks, published):
    """Of STU-Net-S, -B, -L and -H, in millions, with the 105 outputs of TotalSegmentator."""
    with torch.device("meta"):
        network = STUNet(
            1,
            105,
            n_stages=6,
            features_per_stage=[width * factor for factor in (1, 2, 4, 8, 16, 16)],
            kernel_sizes=[[3, 3, 3]] * 6,
            strides=[[1, 1, 1], *[[2, 2, 2]] * 5],
            n_blocks_per_stage=[blocks] * 6,
        )
    assert sum(one.numel() for one in network.parameters()) / 1e6 == pytest.approx(published, rel=2e-3)


def test_output_has_each_resolution_under_deep_supervision_and_the_full_one_otherwise():
    network = STUNet(2, 5, **TINY)
    data = torch.randn(1, 2, 4, 8, 12)
    network.decoder.deep_supervision = True
    full, half = network(data)
    assert (full.shape, half.shape) == ((1, 5, 4, 8, 12), (1, 5, 4, 4, 6))
    network.decoder.deep_supervision = False
    assert torch.equal(network(data), full)


def test_every_parameter_takes_part():
    network = STUNet(1, 2, **TINY, deep_supervision=True)
    sum(one.square().sum() for one in network(torch.randn(2, 1, 4, 8, 8))).backward()
    assert all(one.grad is not None for one in network.parameters())


def test_other_dimensions_and_numbers_of_stages_are_refused():
    for change in ({"conv_op": nn.Conv2d}, {"n_stages": 4}, {"strides": [[1, 1, 1]]}):
        with pytest.raises(ValueError, match="is a 3D network, with an entry for each of its"):
            STUNet(1, 2, **{**TINY, **change})
