"""Learning from dense labels of which some are wrong (ADELE, arXiv 2110.03740)."""

from collections.abc import Mapping
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, ValidationError
from torch import Tensor
from torch import distributed as dist
from torch.nn.functional import interpolate

from nnunet_ext.devices import on_device
from nnunet_ext.errors import UserError
from nnunet_ext.formats.dataset_json import foreground_labels
from nnunet_ext.losses.early_learning import (
    corrected_labels,
    corrected_regions,
    label_agreement,
    lasting_slope_fall,
    region_agreement,
)
from nnunet_ext.losses.soft_targets import masked_mean
from nnunet_ext.techniques.adele import ADELE
from nnunet_ext.trainers.base import Batch, Outputs
from nnunet_ext.trainers.image_border import ImageBorderMixin
from nnunet_ext.trainers.mixup import MixUpMixin
from nnunet_ext.trainers.partial_labels import PartialLabelsMixin

STATE = "early_learning"


class EarlyLearning(BaseModel):
    """What is known of each label or region, by name, when an epoch ends."""

    model_config = ConfigDict(extra="forbid", strict=True)

    iou: dict[str, list[Annotated[float, Field(ge=0, le=1)] | None]]
    """Between the network in training and the labels as they are, by epoch; None if neither had it."""
    corrected_from: dict[str, NonNegativeInt] = {}
    """The first epoch in which it is corrected; those that are not, are missing."""


class ADELEMixin(ImageBorderMixin, technique=ADELE):
    """Corrects labels by confident predictions, class by class, once the network has learned what is easy to learn.

    In every epoch the network's own outputs in training are compared with the labels, without a further forward pass.
    When a class's learning curve has been flat for five epochs, voxels of that class and of background become, in each
    batch, what the network is sure of. Files stay as they are. Until the first class is corrected, the loss is
    nnU-Net's own. Voxels of the ignore label and outside the image neither count nor change. Validation sees the labels
    as they are.
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if not cls.has_one_decoder:
            raise TypeError(f"{cls.__name__} cannot have ADELE: its network has several decoders.")
        order = cls.mro()
        if MixUpMixin in order:  # asked here, as a mixin may withdraw a base's `cannot_be_mixed`
            raise TypeError(
                f"{cls.__name__} cannot have ADELE and MixUp: mixed patches have the labels as they are, also where "
                "ADELE has corrected them."
            )
        if PartialLabelsMixin in order and order.index(PartialLabelsMixin) > order.index(ADELEMixin):
            raise TypeError(
                f"{cls.__name__} must name its base for partial labels before ADELE's: ADELE corrects by "
                "what each case was annotated for."
            )

    early_learning: EarlyLearning
    agreement: Tensor | None = None  # (2, C), intersections and unions so far in this epoch

    def initialize(self) -> None:
        super().initialize()
        self.early_learning = EarlyLearning(iou={name: [] for name in self.class_names()})

    def class_names(self) -> list[str]:
        """The names of the labels or regions, without background, in the order of the network's channels."""
        labels = foreground_labels(self.dataset_json)
        return list(labels) if self.label_manager.has_regions else sorted(labels, key=lambda name: min(labels[name]))

    # ------------------------------------------------------------------ a training step

    def loss_terms(self, outputs: Outputs, batch: Batch) -> dict[str, Tensor]:
        logits, labels = self.full_resolution(outputs).detach(), self.label_manager
        target, counts = self.heads(batch["target"])[0], self.heads(batch["inside"])[0]
        known, ignored = target, target[:, :0]
        if labels.has_regions and labels.has_ignore_label:
            known, ignored = target[:, :-1], target[:, -1:]
            counts = counts & ~ignored.bool()
        elif self.unknown_label is not None:
            counts = counts & (target != self.unknown_label)
        count = region_agreement if labels.has_regions else label_agreement
        now = count(logits, known, counts)
        self.agreement = now if self.agreement is None else self.agreement + now

        is_open = [name in self.early_learning.corrected_from for name in self.class_names()]
        if any(is_open):
            channels = on_device(np.array([True] * (not labels.has_regions) + is_open), logits.device)
            correct = corrected_regions if labels.has_regions else corrected_labels
            corrected, changed = correct(logits, known, counts, channels, confidence=self.section(ADELE).confidence)
            self.observe("adele/corrected", masked_mean(changed.any(dim=1, keepdim=True).float(), counts))
            batch = {**batch, "target": self.at_every_resolution(torch.cat([corrected, ignored], dim=1), batch)}
        return super().loss_terms(outputs, batch)

    def at_every_resolution(self, target: Tensor, batch: Batch) -> Tensor | list[Tensor]:
        """A target of the full resolution in place of a batch's, reduced as nnU-Net does."""
        if not isinstance(batch["target"], list):
            return target
        shapes = [head.shape[2:] for head in batch["target"][1:]]
        lower = [interpolate(target.float(), shape, mode="nearest-exact").to(target.dtype) for shape in shapes]
        return [target, *lower]

    # ------------------------------------------------------------------ epochs

    def on_train_epoch_start(self) -> None:
        super().on_train_epoch_start()
        self.agreement = None

    def on_train_epoch_end(self, train_outputs: list[dict[str, Any]]) -> None:
        """Extend the learning curves, and decide what is corrected from the next epoch on."""
        ious = self.epoch_ious()
        known = {name: iou for name, iou in ious.items() if iou is not None}
        mean = np.asarray(np.mean(list(known.values())) if known else np.nan)
        super().on_train_epoch_end([{**output, "adele/iou": mean} for output in train_outputs])
        self.print_to_log_file("IoU with the labels:", ", ".join(f"{name} {iou:.3f}" for name, iou in known.items()))
        settings, state = self.section(ADELE), self.early_learning
        for name, iou in ious.items():
            state.iou[name].append(iou)
            if name in state.corrected_from:
                continue
            fall = lasting_slope_fall(state.iou[name], min_epochs=settings.min_epochs)
            if fall is not None and fall > settings.slope_fall:
                state.corrected_from[name] = self.current_epoch + 1
                self.print_to_log_file(f"The slope of {name} has fallen by {fall:.1%}: corrected from the next epoch.")

    def epoch_ious(self) -> dict[str, float | None]:
        """The IoU of each class over the epoch's patches, those of all processes together."""
        names, first = self.class_names(), 0 if self.label_manager.has_regions else 1
        counted = self.agreement
        if counted is None:  # no step of this process compared
            counted = torch.zeros((2, first + len(names)), dtype=torch.long, device=self.device)
        if self.is_ddp:
            dist.all_reduce(counted)
        both, either = counted[:, first:].tolist()
        return {name: one / union if union else None for name, one, union in zip(names, both, either)}

    # ------------------------------------------------------------------ checkpoints

    def extra_state(self) -> dict[str, Any]:
        return {**super().extra_state(), STATE: self.early_learning.model_dump()}

    def load_extra_state(self, state: Mapping[str, Any]) -> None:
        super().load_extra_state(state)
        if STATE not in state:
            return
        try:
            loaded = EarlyLearning.model_validate(state[STATE])
        except ValidationError as error:
            problem = error.errors()[0]
            place = ".".join(map(str, (STATE, *problem["loc"])))
            raise UserError(f"The checkpoint's learning curves cannot be read: {place}: {problem['msg']}.") from None
        if set(loaded.iou) != set(self.class_names()) or not set(loaded.corrected_from) <= set(loaded.iou):
            raise UserError(
                f"The checkpoint's learning curves are of {', '.join(loaded.iou)}; the dataset has "
                f"{', '.join(self.class_names())}. Continue with the dataset that the training began with."
            )
        self.early_learning = loaded


class nnUNetTrainerADELE(ADELEMixin):
    """nnU-Net for dense labels of which some are wrong."""
