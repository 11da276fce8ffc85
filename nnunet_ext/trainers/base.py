"""The base of every trainer in this package: nnU-Net's training, cut into named steps that a technique can extend."""

import json
import os
import tempfile
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any, ClassVar, TypeAlias

import numpy as np
import torch
from nnunetv2.training.lr_scheduler.polylr import PolyLRScheduler
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.ddp_allgather import AllGatherGrad
from nnunetv2.utilities.helpers import dummy_context
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from torch import Tensor, nn
from torch import distributed as dist
from torch._dynamo import OptimizedModule
from torch.nn.parallel import DistributedDataParallel

from nnunet_ext.checkpoints.writing import write_checkpoint
from nnunet_ext.devices import on_device
from nnunet_ext.errors import UserError
from nnunet_ext.formats.own_key import KEY
from nnunet_ext.messages import listed
from nnunet_ext.nnunet_folders import folder_of_variable
from nnunet_ext.plans.settings import (
    Settings,
    configured_settings,
    differences,
    merged,
    validated_settings,
    with_whole_block,
)
from nnunet_ext.techniques import S, Technique
from nnunet_ext.techniques.base import BASE
from nnunet_ext.trainers.epoch_means import epoch_means
from nnunet_ext.trainers.memory_format import channels_last_format, faster_memory_format
from nnunet_ext.trainers.reproducibility import seed_global_generators, seeded_augmenter, single_torch_thread
from nnunet_ext.trainers.resuming import (
    best_dice_before,
    checkpoint_file,
    earlier_run,
    read_extra_state,
    refuse_changes,
)
from nnunet_ext.version import __version__

CUDA = torch.device("cuda")
MAX_GRADIENT_NORM = 12.0
OF_THE_OPTIMIZER = ("weight_decay", "momentum", "nesterov")

Batch = dict[str, Any]
"""``data``: (B, C, [X,] Y, Z) float; ``target``: the same with one channel (or one for each region), a list of them,
highest resolution first, under deep supervision; ``keys``: case names; and what a technique adds."""

Outputs: TypeAlias = Tensor | list[Tensor] | tuple[Tensor, ...]
"""Logits, one tensor or, under deep supervision, several, highest resolution first."""


class nnUNetTrainerConfigurable(nnUNetTrainer):
    """Stock nnU-Net training whose settings come from the plans file, and the base of every other trainer here.

    A training step is ``prepare_batch`` → ``forward`` → ``loss_terms`` → ``backward`` → ``edit_gradients`` →
    ``optimizer_step``. A technique is a subclass that overrides some of these and calls ``super()``, so that several
    combine by inheritance. Without overrides and settings the weights are bit-identical to those of ``nnUNetTrainer``.
    """

    techniques: ClassVar[tuple[Technique[Any], ...]] = (BASE,)
    """Those of the class and of all its bases, which are named as in ``class DBDMPMixin(Base, technique=DBDMP)``."""
    libraries: ClassVar[tuple[str, ...]] = ()
    """Optional libraries that this trainer needs, by the name that is imported."""
    alters_the_network: ClassVar[bool] = False
    """Whether it puts modules of its own into the network after it was built."""
    segments: ClassVar[bool] = True
    """Whether its checkpoint predicts a segmentation. Otherwise it is a start for other trainings."""
    needs_prior: ClassVar[bool] = False
    """Whether its data have channels of a prior scan beside the current one."""
    inference_module: ClassVar[str | None] = None
    """Where plain nnU-Net cannot build the network: the module of a trainer that can, for `nnunet_ext export-stock`."""
    default_settings: ClassVar[Mapping[str, Any]] = {}
    """Settings that hold where the plans file says nothing."""
    fixed_settings: ClassVar[frozenset[str]] = frozenset({"optimizer"})
    """Settings that count at the start of a training alone, so that one that goes on cannot change them, such as those
    that its weights were learned with."""
    cannot_be_mixed: ClassVar[str] = ""
    """Why MixUp cannot be combined with the trainer; empty if it can."""
    has_one_decoder: ClassVar[bool] = True
    """Whether the network's output in training is that of one decoder."""
    replaces_loss: ClassVar[bool] = False
    """Whether the class's own `loss_terms` are in place of those of the classes behind it, and not beside them."""
    unsupported: ClassVar[Mapping[str, str]] = {}
    """By capability that it lacks (see `needed_capabilities`), the reason and what to use instead."""

    _best_ema: float | None  # nnU-Net's: the best moving average of pseudo Dice so far

    def __init_subclass__(cls, *, technique: Technique[Any] | None = None, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        inherited = [one for base in reversed(cls.__mro__[1:]) for one in vars(base).get("techniques", ())]
        cls.techniques = tuple(dict.fromkeys([*inherited, technique] if technique else inherited))
        cls._refuse_skipped_loss()

    @classmethod
    def _refuse_skipped_loss(cls) -> None:
        """Raise a TypeError if a class's part of the loss is never asked for, as that of another base replaces it."""
        order = [one for one in cls.mro() if "loss_terms" in vars(one)]
        for place, first in enumerate(order):
            skipped = [one for one in order[place + 1 :] if not issubclass(first, one)]
            if not (skipped and vars(first).get("replaces_loss", False)):
                continue
            names = ", ".join(one.__name__ for one in skipped)
            if any(vars(one).get("replaces_loss", False) for one in skipped):
                raise TypeError(f"{cls.__name__} cannot combine {first.__name__} and {names}: each has its own loss.")
            if cls.has_one_decoder:  # else the mixin says that it wants one
                raise TypeError(
                    f"{cls.__name__} must name its bases with {names} before that with {first.__name__}, whose loss is "
                    "in place of theirs."
                )

    def __init__(  # nnU-Net's signature
        self, plans: dict, configuration: str, fold: int, dataset_json: dict, device: torch.device = CUDA
    ) -> None:
        # Everything that can be wrong is looked at before nnU-Net makes a folder.
        plans = self.resolved_plans(plans, configuration, dataset_json)
        settings = self.planned_settings(plans, configuration)
        self.refuse_unsupported(plans, configuration, dataset_json)
        require_folders()
        self.is_resuming = bool(plans.get("continue_training", False))
        self.has_loaded_checkpoint = False
        super().__init__(plans, configuration, fold, dataset_json, device)

        # what the plans file leaves out keeps the value of nnU-Net's trainer
        names = [name for name, field in Settings.model_fields.items() if field.default is None and name != "seed"]
        self.__dict__.update({name: value for name in names if (value := getattr(settings, name)) is not None})
        self.settings = settings.model_copy(update={name: getattr(self, name) for name in names})
        self.memory_format: str = settings.memory_format
        # Draws of this process, and draws that every process of a DDP training must make alike.
        self.rng = np.random.default_rng()
        self.shared_rng = np.random.default_rng()
        self._observations: dict[str, Tensor] = {}

    # ------------------------------------------------------------------ what a technique declares

    @classmethod
    def planned_settings(cls, plans: Mapping[str, Any], configuration: str) -> Settings:
        """The settings of a configuration, this trainer's own where the plans file says nothing."""
        values = merged(cls.default_settings, configured_settings(plans, configuration))
        where = f"configuration {configuration!r} of the plans {plans.get('plans_name', '')!r}"
        return validated_settings(values, where=where, techniques=cls.techniques)

    @classmethod
    def needed_capabilities(cls, plans: dict, configuration: str, dataset_json: dict) -> set[str]:
        """What a dataset and a configuration need: some of "2d", "3d", "cascade", "regions", "ignore_label"."""
        manager = PlansManager(plans)
        configuration_manager = manager.get_configuration(configuration)
        label_manager = manager.get_label_manager(dataset_json)
        present = {
            f"{len(configuration_manager.patch_size)}d": True,
            "cascade": configuration_manager.previous_stage_name is not None,
            "regions": label_manager.has_regions,
            "ignore_label": label_manager.has_ignore_label,
        }
        return {name for name, is_needed in present.items() if is_needed}

    @classmethod
    def refuse_unsupported(cls, plans: dict, configuration: str, dataset_json: dict) -> None:
        """Raise a NotImplementedError, before anything is written, if the dataset needs what is `unsupported`."""
        for capability in sorted(cls.needed_capabilities(plans, configuration, dataset_json)):
            if capability in cls.unsupported:
                raise NotImplementedError(f"{cls.__name__} cannot do {capability!r}: {cls.unsupported[capability]}")

    @classmethod
    def resolved_plans(cls, plans: dict, configuration: str, dataset_json: Mapping[str, Any]) -> dict:
        """The plans, or a changed copy, with everything that the network is built from, to be saved with the model.

        Prediction sees the plans and no dataset.json. A technique that needs something of it puts that in here.
        """
        return plans

    @classmethod
    def with_resolved_section(
        cls, plans: dict[str, Any], configuration: str, technique: Technique[Any], **changes: Any
    ) -> dict[str, Any]:
        """A copy of the plans whose configuration has all settings of a technique, this trainer's own included.

        Args:
            changes: values of the section to put in place of those that were planned.

        Raises:
            UserError: if the settings are wrong.
        """
        section = cls.planned_settings(plans, configuration).section(technique)
        resolved = section.model_copy(update=changes).model_dump(mode="json")
        return with_whole_block(plans, configuration, {technique.name: resolved})

    def section(self, technique: Technique[S]) -> S:
        """The settings of a technique; a TypeError if this trainer does not declare it and would not record them."""
        if technique not in self.techniques:
            raise TypeError(f"{type(self).__name__} reads settings of {technique.name!r}, which it does not declare.")
        return self.settings.section(technique)

    # ------------------------------------------------------------------ a training step, hook by hook

    def train_step(self, batch: Batch) -> dict[str, np.ndarray]:
        """One optimizer step; returns ``loss`` and every loss term and observation of this step by name."""
        self._observations = {}
        batch = self.prepare_batch(batch, training=True)
        further = self.further_batch(batch)
        self.optimizer.zero_grad(set_to_none=True)
        with self.without_sync() if further is not None else nullcontext():
            with self.autocast():
                outputs = self.forward(batch)
                terms = {**self.loss_terms(outputs, batch), **self.weight_terms()}
                loss = total_loss(terms)
            del outputs  # logits in half precision, of which losses keep none
            self.backward(loss)
        if further is not None:
            with self.autocast():
                more = self.further_terms(self.forward(further), further)
                further_loss = total_loss(more)
            self.backward(further_loss)
            terms, loss = {**terms, **more}, loss.detach() + further_loss.detach()
        if self.grad_scaler is not None:
            self.grad_scaler.unscale_(self.optimizer)
        self.edit_gradients()
        self.optimizer_step()
        for name, term in terms.items():
            self.observe(f"loss/{name}", term)
        # one transfer for all of them: each would cost a synchronisation of its own
        names = ["loss", *self._observations]
        values = torch.stack([loss.detach().float(), *self._observations.values()])
        return {name: np.asarray(value) for name, value in zip(names, values.cpu().numpy())}

    def prepare_batch(self, batch: Batch, *, training: bool) -> Batch:
        """A copy of the loader's batch on the device, in the layout chosen.

        Args:
            batch: is left as it is.
            training: False in validation, where a technique must not alter the data.
        """
        data, targets = batch["data"], [on_device(head, self.device) for head in self.heads(batch["target"])]
        layout = channels_last_format(data.ndim - 2) if self.memory_format == "channels_last" else torch.preserve_format
        data = on_device(data, self.device, layout)
        return {**batch, "data": data, "target": targets if isinstance(batch["target"], list) else targets[0]}

    def autocast(self) -> Any:
        """The precision of the forward pass: mixed on CUDA, full elsewhere, as in nnU-Net."""
        return torch.autocast(self.device.type, enabled=True) if self.device.type == "cuda" else dummy_context()

    @property
    def unknown_label(self) -> int | None:
        """What marks the voxels that the loss leaves out, for labels that exclude each other; None if nothing does."""
        return self.label_manager.ignore_label

    def forward(self, batch: Batch) -> Outputs:
        """The network's output for a prepared batch."""
        return self.network(batch["data"])

    def loss_terms(self, outputs: Outputs, batch: Batch) -> dict[str, Tensor]:
        """The terms of the loss by name, weights included; here nnU-Net's own loss, ``segmentation``."""
        return {"segmentation": self.loss(outputs, batch["target"])}

    def further_batch(self, batch: Batch) -> Batch | None:
        """A batch that the step learns from beside its own; None here.

        It has a forward and a backward pass of its own, so that what one of the two batches needs for its backward pass
        is gone before the other begins.
        """
        return None

    def further_terms(self, outputs: Outputs, further: Batch) -> dict[str, Tensor]:
        """The terms of the loss of `further_batch` by name, weights included; they add up with the others."""
        raise NotImplementedError

    def weight_terms(self) -> dict[str, Tensor]:
        """Terms of the loss that depend on the weights alone, by name: they count in every step, as weight decay does.

        There are none here.
        """
        return {}

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of a loss to those that are there, times the loss scale of mixed precision."""
        (loss if self.grad_scaler is None else self.grad_scaler.scale(loss)).backward()

    def edit_gradients(self) -> None:
        """What happens to the gradients, free of the loss scale, before the step: clipped to norm 12, as in nnU-Net."""
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), MAX_GRADIENT_NORM)

    def optimizer_step(self) -> None:
        """Move the weights."""
        if self.grad_scaler is None:
            self.optimizer.step()
        else:
            self.grad_scaler.step(self.optimizer)
            self.grad_scaler.update()

    def validation_step(self, batch: Batch) -> dict[str, np.ndarray]:
        """nnU-Net's loss and pseudo Dice on a validation batch, nothing of the technique."""
        return super().validation_step(self.prepare_batch(batch, training=False))

    # ------------------------------------------------------------------ tools for the hooks

    def observe(self, name: str, value: Tensor | float) -> None:
        """Log a scalar of this step under a name with a slash (``mixup/lambda``); the log shows its mean per epoch."""
        # a number is written by the device itself: a copy would wait for all that it has still to do
        scalar = value.detach() if isinstance(value, Tensor) else torch.full((), value, device=self.device)
        self._observations[name] = scalar.to(self.device).float()

    def total(self, sums: Tensor) -> Tensor:
        """Sums over this process's batch, of any shape, added up over all processes of a distributed training."""
        return AllGatherGrad.apply(sums).sum(dim=0) if self.is_ddp else sums

    def full_resolution(self, outputs: Outputs) -> Tensor:
        """The logits at the resolution of the patch, (B, C, [X,] Y, Z)."""
        return outputs[0] if isinstance(outputs, (list, tuple)) else outputs

    def heads(self, outputs: Any) -> list[Tensor]:
        """A decoder's outputs, or their targets, by resolution, the full one first."""
        return list(outputs) if isinstance(outputs, (list, tuple)) else [outputs]

    def head_weights(self) -> list[float]:
        """The weight of each resolution, as in nnU-Net's own loss."""
        return [float(weight) for weight in self.loss.weight_factors] if self.enable_deep_supervision else [1.0]

    def full_resolution_loss(self) -> nn.Module:
        """nnU-Net's loss for one resolution, without the sum over deep-supervision heads."""
        return self.loss.loss if self.enable_deep_supervision else self.loss

    def without_sync(self) -> Any:
        """Where the processes of a distributed training keep gradients to themselves: a backward pass is to follow."""
        return self.network.no_sync() if isinstance(self.network, DistributedDataParallel) else nullcontext()

    def unwrapped_network(self) -> nn.Module:
        """The network without the wrappers of DDP and torch.compile."""
        network = self.network.module if isinstance(self.network, DistributedDataParallel) else self.network
        return network._orig_mod if isinstance(network, OptimizedModule) else network

    # ------------------------------------------------------------------ optimizer

    def trainable_parameters(self) -> Any:
        """What the optimizer moves: parameters or parameter groups."""
        return self.network.parameters()

    def optimizer_class(self) -> type[torch.optim.Optimizer]:
        """What the setting ``optimizer`` stands for: torch's SGD or AdamW, or one that takes the same arguments."""
        return torch.optim.AdamW if self.settings.optimizer == "adamw" else torch.optim.SGD

    def configure_optimizers(self) -> tuple[torch.optim.Optimizer, Any]:
        """The optimizer of the settings, and its schedule."""
        arguments: dict[str, Any] = {"lr": self.initial_lr, "weight_decay": self.weight_decay}
        if self.settings.optimizer == "sgd":
            momentum = self.settings.momentum
            arguments.update(momentum=momentum, nesterov=self.settings.nesterov and momentum > 0)
        optimizer = self.optimizer_class()(self.trainable_parameters(), **arguments)
        return optimizer, self.learning_rate_schedule(optimizer)

    def learning_rate_schedule(self, optimizer: torch.optim.Optimizer) -> Any:
        """What sets the learning rate at the start of each epoch: nnU-Net's polynomial decay."""
        return PolyLRScheduler(optimizer, self.initial_lr, self.num_epochs)

    # ------------------------------------------------------------------ start, epochs, log

    def initialize(self) -> None:
        """Build network, optimizer and loss; under a seed, always the same initial weights."""
        if self.settings.seed is not None:
            seed_global_generators(self.settings.seed)
        super().initialize()
        if self.is_ddp:
            entropy = [self.shared_rng.integers(2**63)]
            dist.broadcast_object_list(entropy, src=0)
            self.shared_rng = np.random.default_rng(entropy[0])

    def get_dataloaders(self) -> tuple[Any, Any]:
        """nnU-Net's loaders; under a seed, with batches that follow from it."""
        with single_torch_thread():
            training, validation = super().get_dataloaders()
            if self.settings.seed is None:
                return training, validation
            first_training = self.current_epoch * self.num_iterations_per_epoch
            first_validation = self.current_epoch * self.num_val_iterations_per_epoch
            return (
                seeded_augmenter(training, entropy=(*self._entropy(), 0), first=first_training),
                seeded_augmenter(validation, entropy=(*self._entropy(), 1), first=first_validation),
            )

    def on_train_start(self) -> None:
        """Start as nnU-Net does, log the settings, settle the memory format.

        A training that begins anew beside a checkpoint of an earlier run says so: ``--c`` would go on with that one.
        """
        super().on_train_start()
        if not self.has_loaded_checkpoint and (warning := earlier_run(Path(self.output_folder), self.save_every)):
            self.print_to_log_file(warning)
        self.print_to_log_file(f"nnunet_ext {__version__} settings: {json.dumps(self.settings_record())}")
        self.logger.update_config({KEY: self.settings_record()})
        # after the data loading processes were forked: they must not inherit a busy thread pool
        self._settle_memory_format()

    def on_train_end(self) -> None:
        """End as nnU-Net does; no process of a distributed training goes on before the checkpoints are written.

        What is loaded from now on is validated (``--val_best``) and not resumed.
        """
        super().on_train_end()
        self.is_resuming = False
        if self.is_ddp:
            dist.barrier()

    def on_train_epoch_start(self) -> None:
        """Under a seed, make the draws of this epoch independent of what went before, so that it can be resumed."""
        super().on_train_epoch_start()
        if self.settings.seed is not None:
            seed_global_generators(*self._entropy(), 2, self.current_epoch)
            self.rng = np.random.default_rng((*self._entropy(), 3, self.current_epoch))
            self.shared_rng = np.random.default_rng((self.settings.seed, 4, self.current_epoch))

    def on_train_epoch_end(self, train_outputs: list[dict[str, np.ndarray]]) -> None:
        """Log the loss as nnU-Net does, and the epoch's mean of every term and observation."""
        super().on_train_epoch_end([{"loss": output["loss"]} for output in train_outputs])
        known = [name for name in self.logger.local_logger.my_fantastic_logging if "/" in name]
        means = epoch_means(train_outputs, all_processes=self.is_ddp)
        for name, mean in {**dict.fromkeys(known, float("nan")), **means}.items():
            self._log_value(name, mean)
            self.print_to_log_file(f"{name} {np.round(mean, decimals=4)}")

    def _log_value(self, name: str, value: float) -> None:
        """Log under a name that nnU-Net's logger may not know yet, e.g. after a checkpoint of another trainer."""
        values = self.logger.local_logger.my_fantastic_logging.setdefault(name, [])
        values.extend([float("nan")] * (self.current_epoch - len(values)))
        self.logger.log(name, value, self.current_epoch)

    def _settle_memory_format(self) -> None:
        """Replace ``auto`` by what is faster here, and convert the weights to the chosen layout."""
        if self.memory_format == "auto":
            self.memory_format = self._measured_memory_format()
        if self.memory_format == "channels_last":
            dims = len(self.configuration_manager.patch_size)
            self.unwrapped_network().to(memory_format=channels_last_format(dims))

    def _measured_memory_format(self) -> str:
        if self.device.type not in ("cpu", "cuda") or self.is_ddp or self._do_i_compile():
            reason = "torch.compile chooses layouts itself" if self._do_i_compile() else "nothing is measured here"
            self.print_to_log_file(f"memory_format auto: contiguous ({reason}).")
            return "contiguous"
        shape = (self.batch_size, self.num_input_channels, *self.configuration_manager.patch_size)
        chosen, seconds = faster_memory_format(self.unwrapped_network(), shape, self.device)
        times = ", ".join(f"{name} {value:.3f} s" for name, value in seconds.items()) or "no memory to measure it"
        self.print_to_log_file(f"memory_format auto: {chosen} (forward and backward pass: {times}).")
        return chosen

    def _entropy(self) -> tuple[int, int]:
        assert self.settings.seed is not None
        return self.settings.seed, self.local_rank

    # ------------------------------------------------------------------ checkpoints

    def settings_record(self) -> dict[str, Any]:
        """The settings in force, as plain data, those of other techniques left out."""
        return self.settings.record(self.techniques)

    def extra_state(self) -> dict[str, Any]:
        """What a checkpoint holds beyond nnU-Net's own, under ``nnunet_ext``; techniques with state add to it."""
        return {"version": __version__, "settings": self.settings_record(), "memory_format": self.memory_format}

    def load_extra_state(self, state: Mapping[str, Any]) -> None:
        """Take back what `extra_state` wrote; `state` is empty for a checkpoint of stock nnU-Net."""
        if self.settings.memory_format == "auto":
            self.memory_format = state.get("memory_format", "auto")

    def save_checkpoint(self, filename: str) -> None:
        """Write nnU-Net's checkpoint with our extra state in it, whole or not at all."""
        if self.local_rank != 0:
            return
        if self.disable_checkpointing:
            self.print_to_log_file("No checkpoint written, checkpointing is disabled")
            return
        checkpoint = {
            "network_weights": self.unwrapped_network().state_dict(),
            "optimizer_state": self.optimizer.state_dict(),
            "grad_scaler_state": None if self.grad_scaler is None else self.grad_scaler.state_dict(),
            "logging": self.logger.get_checkpoint(),
            "_best_ema": self._best_ema,
            "current_epoch": self.current_epoch + 1,
            "init_args": self.my_init_kwargs,
            "trainer_name": self.__class__.__name__,
            "inference_allowed_mirroring_axes": self.inference_allowed_mirroring_axes,
            KEY: self.extra_state(),
        }
        write_checkpoint(filename, checkpoint)

    def load_checkpoint(self, checkpoint: str | os.PathLike[str] | dict[str, Any]) -> None:
        """Load a checkpoint of this trainer or of one with the same network: a file, or the content of one.

        Raises:
            UserError: if the file is damaged, or a training is to be resumed with settings other than its own.
        """
        name = "the checkpoint" if isinstance(checkpoint, dict) else os.fspath(checkpoint)
        state = checkpoint.get(KEY, {}) if isinstance(checkpoint, dict) else read_extra_state(name)
        has_changed = self._compare_settings(state.get("settings"), name)
        with checkpoint_file(checkpoint) as file:
            super().load_checkpoint(file)
        if self.optimizer is not None:
            keep_steps_on_cpu(self.optimizer)
        if has_changed and self.optimizer is not None:
            # the state that was loaded brings the old values along
            for group in self.optimizer.param_groups:
                group.update({key: self.optimizer.defaults[key] for key in OF_THE_OPTIMIZER if key in group})
        self.load_extra_state(state)
        self.has_loaded_checkpoint = True
        if self.is_resuming:
            best = best_dice_before(self.current_epoch, Path(self.output_folder))
            if best is not None and (self._best_ema is None or best > self._best_ema):
                self._best_ema = best

    def _compare_settings(self, recorded: Mapping[str, Any] | None, filename: str) -> bool:
        """Whether settings differ from those of a checkpoint; a UserError if a training cannot go on with them."""
        if recorded is None:
            return False
        # a setting that an earlier version did not have was at its default
        defaults = type(self.settings)().record(self.techniques)
        changes = differences(merged(defaults, recorded), self.settings_record())
        if changes and self.is_resuming:
            refuse_changes(changes, filename, self.configuration_name, fixed=self.fixed_settings)
        if changes:
            self.print_to_log_file(
                f"Settings differ from those of {filename} (checkpoint -> now):{listed(changes, None)}"
            )
        return bool(changes)


def keep_steps_on_cpu(optimizer: torch.optim.Optimizer) -> None:
    """Put AdamW's numbers of steps where torch makes them: it would wait for the GPU to read each, in every step."""
    for group in optimizer.param_groups:
        if group.get("fused") or group.get("capturable"):
            continue  # torch wants them beside the weights
        for parameter in group["params"]:
            state = optimizer.state.get(parameter, {})
            if isinstance(state.get("step"), Tensor):
                state["step"] = state["step"].cpu()


def total_loss(terms: Mapping[str, Tensor]) -> Tensor:
    """Sum of the loss terms; one term alone is returned as it is."""
    first, *rest = terms.values()
    for term in rest:
        first = first + term
    return first


def require_folders() -> None:
    """Raise a UserError unless nnU-Net's folders for training are known and results can be written."""
    folder_of_variable("nnUNet_preprocessed")
    folder = folder_of_variable("nnUNet_results")
    try:
        os.makedirs(folder, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        reason = f"nnUNet_results={folder} cannot be written to ({error.strerror})"
        raise UserError(f"{reason}. Make it writable, or point the variable at another folder.") from None
