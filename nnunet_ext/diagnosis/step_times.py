"""How long a training step of nnU-Net takes: measured by a short probe, or taken from the benchmarks."""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

FEATURES, MAX_FEATURES, STAGES = 32, 320, 6  # nnU-Net's usual network
PROBED = {2: (1, 256, 256), 3: (1, 32, 64, 64)}
"""Batch and patch, in voxels; the network's strides divide them. They take seconds on two cores."""
PROBED_ON_CUDA = {2: (4, 512, 512), 3: (1, 128, 128, 128)}
"""A fast GPU would spend a small patch on starting its kernels, and seem slow for each voxel."""
H200 = {2: 0.064 / (12 * 512 * 512), 3: 0.076 / (2 * 128**3)}
"""Seconds for each voxel of a batch, on one NVIDIA H200: docs/benchmarks.md, step time."""
VALIDATION = 1 / 3  # of a training step's time: a step of validation has no backward pass
STEPS, VALIDATION_STEPS = 250, 50  # nnU-Net's, of an epoch


@dataclass(frozen=True)
class StepTime:
    """Seconds for each voxel of a batch, for networks of a number of features, and how that is known."""

    seconds_per_voxel: float
    basis: str

    def hours(
        self, patch: Sequence[int], batch: int, *, epochs: int, steps: int = STEPS, validation: int = VALIDATION_STEPS
    ) -> float:
        """Hours of a training; loading data that takes longer than a step is not in it."""
        seconds = self.seconds_per_voxel * math.prod(patch) * batch
        return epochs * seconds * (steps + VALIDATION * validation) / 3600


def benchmarked(dims: int) -> StepTime:
    """What was measured on one NVIDIA H200."""
    basis = "estimated from step times on one NVIDIA H200 (docs/benchmarks.md); most GPUs are slower"
    return StepTime(H200[dims], basis)


def probed(dims: int, device: str, *, features: int = FEATURES) -> StepTime:
    """Time two steps of nnU-Net's usual network, after one to warm up.

    Args:
        dims: 2 or 3, of the network.
        device: cpu, cuda or mps.
        features: of the network's first stage.
    """
    import torch

    size = PROBED_ON_CUDA[dims] if device == "cuda" else PROBED[dims]
    try:
        seconds = _seconds_of_a_step(size, device, features)
    except torch.OutOfMemoryError:  # which holds the memory of what has failed as long as it is handled
        seconds = None
    if seconds is None:
        size = PROBED[dims]
        seconds = _seconds_of_a_step(size, device, features)
    kind = "small" if size == PROBED[dims] else "usual"
    where = torch.cuda.get_device_name() if device == "cuda" else device
    basis = (
        f"estimated from two steps on a {kind} patch on this machine ({where}), without torch.compile, scaled by voxels"
    )
    return StepTime(seconds / math.prod(size), basis)


def _seconds_of_a_step(size: Sequence[int], device: str, features: int) -> float:
    """The shorter of two training steps without their loss, which takes little; `size` is the batch and the patch."""
    import torch
    from dynamic_network_architectures.architectures.unet import PlainConvUNet
    from torch import nn

    batch, *patch = size
    network = PlainConvUNet(
        input_channels=1,
        n_stages=STAGES,
        features_per_stage=[min(features * 2**stage, MAX_FEATURES) for stage in range(STAGES)],
        conv_op=nn.Conv3d if len(patch) == 3 else nn.Conv2d,
        kernel_sizes=3,
        strides=[1] + [2] * (STAGES - 1),
        n_conv_per_stage=2,
        num_classes=3,
        n_conv_per_stage_decoder=2,
        conv_bias=True,
        norm_op=nn.InstanceNorm3d if len(patch) == 3 else nn.InstanceNorm2d,
        norm_op_kwargs={"affine": True},
        nonlin=nn.LeakyReLU,
        deep_supervision=True,
    ).to(device)
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-4)
    data = torch.randn(batch, 1, *patch, device=device)

    def step() -> float:
        started = time.perf_counter()
        optimizer.zero_grad()
        with torch.autocast(device, enabled=device == "cuda"):
            sum(output.float().square().mean() for output in network(data)).backward()
        optimizer.step()
        if device != "cpu":
            torch.accelerator.synchronize()
        return time.perf_counter() - started

    step()
    return min(step() for _ in range(2))
