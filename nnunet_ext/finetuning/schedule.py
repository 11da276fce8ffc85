"""The learning rate of a fine-tuning, by epoch."""

from nnunetv2.training.lr_scheduler.polylr import PolyLRScheduler
from torch.optim import Optimizer

FACTOR = "lr_factor"
"""The key of a parameter group that multiplies its learning rate."""


class FineTuningSchedule(PolyLRScheduler):
    """nnU-Net's polynomial decay after a linear warm-up, times a factor of each parameter group.

    In epoch e (from 0) of N, with W epochs of warm-up, the rate is ``initial_lr · (e + 1) / (W + 1)`` while e < W, and
    ``initial_lr · (1 − (e − W) / (N − W))^0.9`` afterwards. With W = 0 it is nnU-Net's, bit for bit.

    Args:
        optimizer: its groups may have the key `FACTOR`.
        initial_lr: the rate after the warm-up.
        max_steps: N.
        warmup: W, less than N.
    """

    def __init__(self, optimizer: Optimizer, initial_lr: float, max_steps: int, *, warmup: int) -> None:
        self.warmup = warmup
        super().__init__(optimizer, initial_lr, max_steps)

    def rate(self, epoch: int) -> float:
        """The learning rate of an epoch, without the groups' factors."""
        if epoch < self.warmup:
            return self.initial_lr * (epoch + 1) / (self.warmup + 1)
        return self.initial_lr * (1 - (epoch - self.warmup) / (self.max_steps - self.warmup)) ** self.exponent

    def step(self, current_step: int | None = None) -> None:
        if current_step is None or current_step == -1:
            current_step = self.ctr
            self.ctr += 1
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate(current_step) * group.get(FACTOR, 1.0)
        self._last_lr = [group["lr"] for group in self.optimizer.param_groups]
