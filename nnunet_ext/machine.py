"""What this machine has to predict and score with."""

import os

from nnunet_ext.errors import UserError

FEW_CORES = 4
MOST_WORKERS = 8  # each holds a whole case in memory


def available_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def default_workers() -> int:
    """Processes to score with, if nobody says otherwise."""
    return min(available_cores(), MOST_WORKERS)


def choose_device(wanted: str) -> str:
    """The device for nnU-Net's ``-device``: the wanted one, for ``auto`` the best; UserError if it is not there."""
    import torch

    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if wanted == "auto":
        return next(device for device, present in there.items() if present)
    if not there[wanted]:
        raise UserError(f"PyTorch finds no {wanted} device here. Use --device auto.")
    return wanted
