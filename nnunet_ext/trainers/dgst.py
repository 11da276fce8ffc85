"""Dynamic gradient sparsification training (arXiv 2503.00748): every step moves a few entries of each kernel."""

from collections.abc import Mapping
from typing import Any, ClassVar, cast

import torch
from torch import Tensor

from nnunet_ext.finetuning import strategies
from nnunet_ext.finetuning.entries import Entries, Rows, keep_only, random_entries, top_entries
from nnunet_ext.finetuning.strategies import Freedom
from nnunet_ext.finetuning.strict_optimizers import StrictAdamW, StrictSGD, StrictStep
from nnunet_ext.techniques.dgst import DGST
from nnunet_ext.trainers.fine_tuning import FineTuningMixin


class RowsOfKernels(dict[Tensor, Rows]):
    """How each kernel, the weight of a layer, falls into rows."""

    def __repr__(self) -> str:
        return f"{len(self)} kernels"  # nnU-Net's debug.json would have the weights, which a GPU gives slowly


class DGSTMixin(FineTuningMixin, technique=DGST):
    """After clipping, keeps ``dgst.top_k`` entries of the gradient in every row of a kernel, anew in each step.

    ``strict`` moves these entries alone, each with a momentum of its own that waits with it; with ``momentum`` 0 they
    follow the present gradient, which is the paper's rule. ``grad_mask`` leaves the step to the optimizer, whose
    momentum and weight decay move other entries too. Normalisations, biases and heads move freely.
    """

    strategy = staticmethod(strategies.dgst)
    fixed_settings = FineTuningMixin.fixed_settings | {"dgst.mode", "dgst.kernel_lr_factor"}

    rows: RowsOfKernels

    def optimizer_class(self) -> type[torch.optim.Optimizer]:
        if self.section(DGST).mode == "grad_mask":
            return super().optimizer_class()
        return StrictAdamW if self.settings.optimizer == "adamw" else StrictSGD

    def restrict_network(self) -> None:
        super().restrict_network()
        network = self.unwrapped_network()
        kernels = {
            parameter for name, parameter in network.named_parameters() if self.freedoms[name] is Freedom.SELECTED
        }
        layers = (module for module in network.modules() if getattr(module, "weight", None) in kernels)
        self.rows = RowsOfKernels({cast(Tensor, layer.weight): Rows.of(layer) for layer in layers})

    def lr_factor(self, parameter: Tensor, *, is_copied: bool) -> float:
        own = self.section(DGST).kernel_lr_factor if parameter in self.rows else 1.0
        return own * super().lr_factor(parameter, is_copied=is_copied)

    def edit_gradients(self) -> None:
        """Clip the whole gradient, then select of each kernel's what this step moves."""
        super().edit_gradients()
        selected = {
            weight: self.select(weight.grad, rows) for weight, rows in self.rows.items() if weight.grad is not None
        }
        if isinstance(self.optimizer, StrictStep):
            self.optimizer.selected = selected  # and it looks at no other entry of the gradient
        else:
            for weight, entries in selected.items():
                keep_only(cast(Tensor, weight.grad), entries)

    def select(self, gradient: Tensor, rows: Rows) -> Entries:
        """The entries of a kernel that this step may move."""
        settings = self.section(DGST)
        if settings.selection == "random":
            return random_entries(rows, settings.top_k, self.shared_rng, gradient.device)
        return top_entries(gradient, rows, settings.top_k)


class nnUNetTrainerDGST(DGSTMixin):
    """Few-shot fine-tuning by dynamic gradient sparsification.

    Of the momenta tried (``benchmarks/results/dgst_grid.md``: 150 steps, one seed) 0.9 was best, and nearly as good at
    a third and three times its best learning rate; 0.99 broke down at the latter, and without momentum only rates of 3
    and above served, which normalisations and heads take too. The default rate is a tenth of the best one there,
    because 50 epochs have 80 times as many steps; it was not tried at that length.
    """

    default_settings: ClassVar[Mapping[str, Any]] = {"momentum": 0.9, "initial_lr": 0.1, "num_epochs": 50}
