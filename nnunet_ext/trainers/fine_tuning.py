"""Fine-tuning a trained model with few cases: where it starts from, what may move, and what did."""

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from nnunet_ext.checkpoints.adaptation import ModelDescription, adapt
from nnunet_ext.checkpoints.reading import read_checkpoint
from nnunet_ext.errors import UserError
from nnunet_ext.finetuning import lora, strategies
from nnunet_ext.finetuning.movement import Movement, shares_table
from nnunet_ext.finetuning.roles import parameter_roles
from nnunet_ext.finetuning.strategies import Freedom, freeze
from nnunet_ext.techniques.fine_tuning import FINE_TUNING
from nnunet_ext.trainers.base import nnUNetTrainerConfigurable


class FineTuningMixin(nnUNetTrainerConfigurable, technique=FINE_TUNING):
    """Starts from the weights of another model and moves what a strategy allows.

    The start is what ``-pretrained_weights`` loaded, or else the checkpoint of the setting ``fine_tuning.source``. What
    moved is logged after every epoch and kept in the checkpoint.
    """

    freedoms: dict[str, Freedom]
    """What the strategy said of each parameter of the plain network, by name."""

    @staticmethod
    def strategy(network: nn.Module) -> dict[str, Freedom]:
        """Which parameters may move: one of `nnunet_ext.finetuning.strategies`."""
        raise NotImplementedError

    def configure_optimizers(self) -> tuple[torch.optim.Optimizer, Any]:
        """Freeze what may not move, then the optimizer for the rest."""
        # the network exists and is not yet wrapped by DDP, which then wants a gradient of everything not frozen
        network = self.unwrapped_network()
        try:
            roles = parameter_roles(network)
            self.freedoms = type(self).strategy(network)
        except ValueError as error:
            raise UserError(f"{type(self).__name__} cannot fine-tune this network: {error}") from None
        self.movement = Movement(roles, {name: tensor.shape for name, tensor in network.named_parameters()})
        self.restrict_network()
        return super().configure_optimizers()

    def restrict_network(self) -> None:
        """Bring the network into the state in which only what is allowed to can move."""
        freeze(self.unwrapped_network(), self.freedoms)

    def trainable_parameters(self) -> Any:
        return [parameter for parameter in self.network.parameters() if parameter.requires_grad]

    def initialize(self) -> None:
        super().initialize()
        self._initial_sums = self._weight_sums()

    def on_train_start(self) -> None:
        if not self.was_initialized:
            self.initialize()
        if not self.has_loaded_checkpoint:
            self.load_start()
        super().on_train_start()
        self.movement.start(self.watched_parameters())

    def load_start(self) -> None:
        """Load what the fine-tuning starts from; a UserError if there is nothing, or if it does not fit."""
        settings = self.section(FINE_TUNING)
        if self._weight_sums() != self._initial_sums:
            self.print_to_log_file("Fine-tuning from the weights that -pretrained_weights loaded; heads start anew.")
            if settings.source is not None:
                self.print_to_log_file(f"fine_tuning.source ({settings.source}) is not used: that option comes first.")
            return
        source = settings.source_file
        if source is None:
            if settings.allow_random_start:
                self.print_to_log_file("Not a fine-tuning: fine_tuning.allow_random_start is on and nothing is loaded.")
                return
            raise UserError(
                f"{type(self).__name__} fine-tunes a trained model, and none was given. Set fine_tuning.source "
                "(nnunet_ext configure … fine_tuning.source=CHECKPOINT.pth), or call nnUNetv2_train with "
                "-pretrained_weights CHECKPOINT.pth. To do without, set fine_tuning.allow_random_start=true."
            )
        network = self.unwrapped_network()
        target = ModelDescription(self.plans_manager.plans, self.configuration_name, self.dataset_json)
        adaptation = adapt(read_checkpoint(source), network, target, keep_heads=settings.keep_heads)
        network.load_state_dict(adaptation.weights)
        self.print_to_log_file(f"Fine-tuning from {source}:\n{adaptation.table()}")

    def _weight_sums(self) -> list[float]:
        """One number for each weight tensor, to see whether nnU-Net, which does not tell, has loaded others."""
        return [float(parameter.detach().double().sum()) for parameter in self.unwrapped_network().parameters()]

    # ------------------------------------------------------------------ what moved

    def watched_parameters(self) -> Mapping[str, Tensor]:
        """The present values of the parameters that `movement` watches."""
        return self.unwrapped_network().state_dict()

    def on_train_epoch_end(self, train_outputs: list[dict[str, Any]]) -> None:
        self.movement.look(self.watched_parameters())
        shares = {f"moved/{role}": np.asarray(share.fraction) for role, share in self.movement.shares().items()}
        super().on_train_epoch_end([{**output, **shares} for output in train_outputs])

    def on_train_end(self) -> None:
        super().on_train_end()
        self.print_to_log_file(f"Entries that ever moved:\n{shares_table(self.movement.shares())}")

    def extra_state(self) -> dict[str, Any]:
        return {**super().extra_state(), "moved": self.movement.state()}

    def load_extra_state(self, state: Mapping[str, Any]) -> None:
        super().load_extra_state(state)
        if "moved" in state:
            self.movement.load_state(state["moved"])


class nnUNetTrainerFineTune(FineTuningMixin):
    """Fine-tuning of every weight."""

    strategy = staticmethod(strategies.full)
    default_settings: ClassVar[Mapping[str, Any]] = {"initial_lr": 1e-3, "num_epochs": 50}


class nnUNetTrainerHeadOnly(FineTuningMixin):
    """Fine-tuning of the segmentation heads."""

    strategy = staticmethod(strategies.head_only)
    default_settings: ClassVar[Mapping[str, Any]] = {"initial_lr": 1e-3, "num_epochs": 50}


class nnUNetTrainerDecoderOnly(FineTuningMixin):
    """Fine-tuning of the decoder, its heads included."""

    strategy = staticmethod(strategies.decoder_only)
    default_settings: ClassVar[Mapping[str, Any]] = {"initial_lr": 1e-3, "num_epochs": 50}


class nnUNetTrainerBiasOnly(FineTuningMixin):
    """Fine-tuning of all biases, and of the heads."""

    strategy = staticmethod(strategies.bias_only)
    default_settings: ClassVar[Mapping[str, Any]] = {"initial_lr": 1e-2, "num_epochs": 200}


class nnUNetTrainerNormOnly(FineTuningMixin):
    """Fine-tuning of the normalisations, and of the heads."""

    strategy = staticmethod(strategies.norm_only)
    default_settings: ClassVar[Mapping[str, Any]] = {"initial_lr": 1e-3, "num_epochs": 200}


class nnUNetTrainerLoRA(FineTuningMixin):
    """Fine-tuning of low-rank adapters on the convolutions, of all biases, and of the heads.

    Checkpoints hold the adapted weights under the names of the plain network, so prediction needs no adapters; what
    resuming needs beyond them is in the extra state.
    """

    libraries = ("peft",)
    alters_the_network = True
    strategy = staticmethod(strategies.bias_only)
    default_settings: ClassVar[Mapping[str, Any]] = {"initial_lr": 1e-3, "num_epochs": 200}

    def restrict_network(self) -> None:
        network, settings = self.unwrapped_network(), self.section(FINE_TUNING)
        lora.add_adapters(network, rank=settings.lora_rank, alpha=settings.lora_alpha, dropout=settings.lora_dropout)
        for name, parameter in network.named_parameters():
            is_free = lora.is_adapter(name) or self.freedoms[lora.plain_name(name)] is Freedom.FREE
            parameter.requires_grad_(is_free)

    def extra_state(self) -> dict[str, Any]:
        return {**super().extra_state(), "lora": lora.raw_parameters(self.unwrapped_network())}

    def load_extra_state(self, state: Mapping[str, Any]) -> None:
        super().load_extra_state(state)
        if "lora" in state:
            lora.load_raw_parameters(self.unwrapped_network(), state["lora"])
