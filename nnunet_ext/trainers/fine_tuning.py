"""Fine-tuning a trained model with few cases: where it starts from, what may move, and what did."""

import os
from collections.abc import Collection, Iterable, Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from nnunet_ext.checkpoints.adaptation import adapt
from nnunet_ext.checkpoints.description import ModelDescription
from nnunet_ext.checkpoints.heads import is_head
from nnunet_ext.checkpoints.outcome import ALL, NOTHING
from nnunet_ext.checkpoints.reading import checkpoint_in
from nnunet_ext.checkpoints.sources import read_source
from nnunet_ext.errors import UserError
from nnunet_ext.files import sha256
from nnunet_ext.finetuning import lora, strategies
from nnunet_ext.finetuning.anchor import Anchor
from nnunet_ext.finetuning.groups import find_groups_again, regroup, single_group
from nnunet_ext.finetuning.movement import Movement, shares_table
from nnunet_ext.finetuning.roles import parameter_roles
from nnunet_ext.finetuning.schedule import FACTOR, FineTuningSchedule
from nnunet_ext.finetuning.strategies import Freedom, freeze, freeze_statistics
from nnunet_ext.messages import some
from nnunet_ext.plans.settings import Settings
from nnunet_ext.techniques.fine_tuning import FINE_TUNING
from nnunet_ext.trainers.base import nnUNetTrainerConfigurable


class FineTuningMixin(nnUNetTrainerConfigurable, technique=FINE_TUNING):
    """Starts from the weights of another model and moves what a strategy allows.

    The start is what ``-pretrained_weights`` loaded, or else the checkpoint of the setting ``fine_tuning.source``. What
    moved is logged after every epoch and kept in the checkpoint.
    """

    fixed_settings = frozenset({"optimizer", "fine_tuning.l2_sp", "fine_tuning.copied_lr_factor"})
    freedoms: dict[str, Freedom]
    """What the strategy said of each parameter of the plain network, by name."""
    needed: set[str]
    """What `needed_of_source` says of the network."""
    origin: Mapping[str, Any] | None = None
    """The file that the training began with, its SHA-256, citation and licence, and whether its heads were kept."""
    anchor: Anchor | None = None
    """The weights that L2-SP holds the network near, if it is on."""

    @classmethod
    def planned_settings(cls, plans: Mapping[str, Any], configuration: str) -> Settings:
        """The settings; a UserError if nothing is left of the training after the warm-up."""
        settings = super().planned_settings(plans, configuration)
        warmup, epochs = settings.section(FINE_TUNING).warmup_epochs, settings.num_epochs
        if epochs is not None and warmup >= epochs:
            raise UserError(
                f"fine_tuning.warmup_epochs is {warmup}, and the training has {epochs} epochs (num_epochs). The "
                "warm-up must be shorter than the training."
            )
        return settings

    @staticmethod
    def strategy(network: nn.Module) -> dict[str, Freedom]:
        """Which parameters may move: one of `nnunet_ext.finetuning.strategies`."""
        raise NotImplementedError

    @classmethod
    def needed_of_source(cls, network: nn.Module) -> set[str]:
        """The names of the weights of a plain network that the source has to have, as they are frozen.

        Those under adapters are among them: an update of low rank does not train a random kernel.
        """
        return strategies.frozen_weights(network, cls.strategy(network))

    @classmethod
    def refuse_random_weights(cls, needed: Collection[str], known: Mapping[str, Tensor]) -> None:
        """Raise a UserError if weights would stay random.

        Args:
            needed: of `needed_of_source`.
            known: by name, which entries the source gave.
        """
        if missing := sorted(name for name in needed if not known.get(name, NOTHING).all()):
            raise UserError(
                f"{cls.__name__} does not train {some(missing)}, and the source lacks them or some of their input "
                "channels: they would stay random. Use nnUNetTrainerFineTune, which trains every weight, or a "
                "source that has them, such as one adapted without --channels name or --partial."
            )

    def configure_optimizers(self) -> tuple[torch.optim.Optimizer, Any]:
        """Freeze what may not move, then the optimizer for the rest."""
        # the network exists and is not yet wrapped by DDP, which then wants a gradient of everything not frozen
        network = self.unwrapped_network()
        try:
            roles = parameter_roles(network)
            self.freedoms = type(self).strategy(network)
            self.needed = self.needed_of_source(network)
        except ValueError as error:
            raise UserError(f"{type(self).__name__} cannot fine-tune this network: {error}") from None
        self.movement = Movement(roles, {name: tensor.shape for name, tensor in network.named_parameters()})
        self.restrict_network()
        optimizer, schedule = super().configure_optimizers()
        find_groups_again(optimizer)
        return optimizer, schedule

    def restrict_network(self) -> None:
        """Bring the network into the state in which only what is allowed to can move."""
        freeze(self.unwrapped_network(), self.freedoms)

    def trainable_parameters(self) -> Any:
        """One group, which is divided when it is known what comes from the source."""
        return single_group(parameter for parameter in self.network.parameters() if parameter.requires_grad)

    def learning_rate_schedule(self, optimizer: torch.optim.Optimizer) -> Any:
        warmup = self.section(FINE_TUNING).warmup_epochs
        return FineTuningSchedule(optimizer, self.initial_lr, self.num_epochs, warmup=warmup)

    def named_trainable_parameters(self) -> dict[str, nn.Parameter]:
        """What moves, by its name in the plain network; adapters, which have none there, by their own."""
        named = self.unwrapped_network().named_parameters()
        return {lora.plain_name(name): parameter for name, parameter in named if parameter.requires_grad}

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
            names = self.unwrapped_network().state_dict()
            if self.needed:
                self.print_to_log_file(
                    f"{type(self).__name__} does not train every kernel. That option does not tell which weights are "
                    "random, such as a decoder behind an encoder alone: these would stay so."
                )
            if settings.l2_sp > 0 or settings.copied_lr_factor != 1:
                self.print_to_log_file(
                    "WARNING: that option does not tell which weights are random, such as those of channels that the "
                    "source does not have. They count as the source's, for fine_tuning.l2_sp and "
                    "fine_tuning.copied_lr_factor. Set fine_tuning.source in its place if there are any."
                )
            self.treat_apart({name: NOTHING if is_head(name) else ALL for name in names})
            if settings.source is not None:
                self.print_to_log_file(f"fine_tuning.source ({settings.source}) is not used: that option comes first.")
            return
        source = settings.source_file
        if source is None:
            if settings.allow_random_start:
                self.set_lr_factors(())
                self.print_to_log_file("Not a fine-tuning: fine_tuning.allow_random_start is on and nothing is loaded.")
                return
            raise UserError(
                f"{type(self).__name__} fine-tunes a trained model, and none was given. Set fine_tuning.source "
                "(nnunet_ext configure … fine_tuning.source=CHECKPOINT.pth), or call nnUNetv2_train with "
                "-pretrained_weights CHECKPOINT.pth. To do without, set fine_tuning.allow_random_start=true."
            )
        network = self.unwrapped_network()
        target = ModelDescription(self.plans_manager.plans, self.configuration_name, self.dataset_json)
        given = read_source(source)
        adaptation = adapt(given.checkpoint, network, target, keep_heads=settings.keep_heads)
        self.refuse_random_weights(self.needed, adaptation.known)
        network.load_state_dict(adaptation.weights)
        self.treat_apart(adaptation.known)
        began = {"file": source.name, "sha256": sha256(checkpoint_in(source)[0]), "keep_heads": settings.keep_heads}
        self.origin = began | given.about()
        self.print_to_log_file(f"Fine-tuning from {source}:\n{adaptation.table()}")

    def treat_apart(self, known: Mapping[str, Tensor]) -> None:
        """Set learning rate, weight decay and anchor of what comes from the source, as the settings say.

        Args:
            known: bool, by name in the plain network, broadcast to the weight's shape: which entries the source gave.
        """
        parameters = self.named_trainable_parameters()
        # a tensor that the source has in part has one rate: the whole one, which its new entries need
        self.set_lr_factors([parameter for name, parameter in parameters.items() if known.get(name, NOTHING).all()])
        if self.section(FINE_TUNING).l2_sp > 0:
            self.hold(Anchor(parameters, {name: known.get(name, NOTHING) for name in parameters}))

    def set_lr_factors(self, copied: Iterable[Tensor]) -> None:
        """Give each parameter its `lr_factor`, where `copied` are those that come from the source as a whole."""
        known = set(map(id, copied))
        regroup(self.optimizer, lambda one: {FACTOR: self.lr_factor(one, is_copied=id(one) in known)})

    def lr_factor(self, parameter: Tensor, *, is_copied: bool) -> float:
        """The factor of a parameter's learning rate, by whether it comes from the source."""
        return self.section(FINE_TUNING).copied_lr_factor if is_copied else 1.0

    def hold(self, anchor: Anchor) -> None:
        """Hold the network near an anchor, in place of the weight decay of the tensors that are in it."""
        self.anchor = anchor
        held = {id(one) for name, one in self.named_trainable_parameters().items() if name in anchor.start}
        regroup(self.optimizer, lambda parameter: {"weight_decay": 0.0} if id(parameter) in held else {})

    def weight_terms(self) -> dict[str, Tensor]:
        """L2-SP if it is on (``l2_sp``)."""
        terms = super().weight_terms()
        if self.anchor is not None and self.anchor.start:
            strength = self.section(FINE_TUNING).l2_sp
            parameters = self.named_trainable_parameters()
            terms["l2_sp"] = self.anchor.penalty(parameters, strength=strength, decay=self.weight_decay)
        return terms

    def _weight_sums(self) -> list[float]:
        """One number for each weight tensor, to see whether nnU-Net, which does not tell, has loaded others.

        They are added on the CPU, as Apple's GPUs have no double precision.
        """
        return [float(parameter.detach().cpu().double().sum()) for parameter in self.unwrapped_network().parameters()]

    # ------------------------------------------------------------------ what moved

    def watched_parameters(self) -> Mapping[str, Tensor]:
        """The present values of the parameters that `movement` watches."""
        return self.unwrapped_network().state_dict()

    def on_train_epoch_start(self) -> None:
        super().on_train_epoch_start()
        freeze_statistics(self.unwrapped_network())

    def on_train_epoch_end(self, train_outputs: list[dict[str, Any]]) -> None:
        self.movement.look(self.watched_parameters())
        shares = {f"moved/{role}": np.asarray(share.fraction) for role, share in self.movement.shares().items()}
        super().on_train_epoch_end([{**output, **shares} for output in train_outputs])

    def on_train_end(self) -> None:
        super().on_train_end()
        self.print_to_log_file(f"Entries that ever moved:\n{shares_table(self.movement.shares())}")

    def extra_state(self) -> dict[str, Any]:
        more: dict[str, Any] = {} if self.anchor is None else {"l2_sp": self.anchor.state()}
        more |= {} if self.origin is None else {"source": dict(self.origin)}
        return {**super().extra_state(), "moved": self.movement.state(), **more}

    def load_extra_state(self, state: Mapping[str, Any]) -> None:
        super().load_extra_state(state)
        if "moved" in state:
            self.movement.load_state(state["moved"])
        self.origin = state.get("source")
        if "l2_sp" in state and self.section(FINE_TUNING).l2_sp > 0:
            self.hold(Anchor.from_state(state["l2_sp"], self.device))


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
    fixed_settings = FineTuningMixin.fixed_settings | {"fine_tuning.lora_rank", "fine_tuning.lora_alpha"}

    def restrict_network(self) -> None:
        network, settings = self.unwrapped_network(), self.section(FINE_TUNING)
        lora.add_adapters(network, rank=settings.lora_rank, alpha=settings.lora_alpha, dropout=settings.lora_dropout)
        for name, parameter in network.named_parameters():
            is_free = lora.is_adapter(name) or self.freedoms[lora.plain_name(name)] is Freedom.FREE
            parameter.requires_grad_(is_free)

    def load_checkpoint(self, checkpoint: str | os.PathLike[str] | dict[str, Any]) -> None:
        with lora.names_alone():
            super().load_checkpoint(checkpoint)

    def extra_state(self) -> dict[str, Any]:
        return {**super().extra_state(), "lora": lora.raw_parameters(self.unwrapped_network())}

    def load_extra_state(self, state: Mapping[str, Any]) -> None:
        super().load_extra_state(state)
        if "lora" in state:
            lora.load_raw_parameters(self.unwrapped_network(), state["lora"])
