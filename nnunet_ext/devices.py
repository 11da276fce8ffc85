"""Bringing small tensors to where the large ones are."""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor


def on_device(
    values: Tensor | npt.NDArray[np.generic],
    device: torch.device,
    memory_format: torch.memory_format = torch.preserve_format,
) -> Tensor:
    """The values as a tensor on a device in a memory format, without waiting for what a CUDA device has still to do.

    Only CUDA takes its copy of unpinned memory before this returns; on other devices the copy is waited for, as the
    values may be gone by then.
    """
    tensor = values if isinstance(values, Tensor) else torch.from_numpy(values)
    return tensor.to(device, non_blocking=device.type == "cuda", memory_format=memory_format)
