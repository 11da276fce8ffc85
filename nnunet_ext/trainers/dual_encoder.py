"""Segmentation of a scan beside an earlier one of the same patient (DFUNet, arXiv 2412.14846)."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
from batchgeneratorsv2.transforms.utils.random import RandomTransform
from torch import Tensor, nn

from nnunet_ext.augmentation.registration_error import Misalignment
from nnunet_ext.augmentation.selected_channels import before_intensity, only_image_channels
from nnunet_ext.formats.dataset_json import channel_names
from nnunet_ext.formats.own_key import KEY
from nnunet_ext.formats.splits import check_has_folds, read_splits
from nnunet_ext.networks.dual_encoder_plans import dual_encoder_unet
from nnunet_ext.nnunet_names import SPLITS
from nnunet_ext.plans.channel_roles import check_roles, roles_of_dataset
from nnunet_ext.plans.settings import validated_section
from nnunet_ext.techniques.dual_encoder import DUAL_ENCODER, ChannelRoles
from nnunet_ext.trainers.base import Batch, nnUNetTrainerConfigurable
from nnunet_ext.trainers.mixup import MixUpMixin


class DualEncoderMixin(nnUNetTrainerConfigurable, technique=DUAL_ENCODER):
    """A second encoder sees the prior scan; its features are fused into those of the current scan.

    Loss and schedule are nnU-Net's. The channels' roles come from the setting ``dual_encoder.channels`` or from
    dataset.json, and are written into the plans that are saved with the model and that prediction builds it from.
    """

    needs_prior = True
    inference_module = "nnunet_ext.trainers.dual_encoder_inference"
    fixed_settings = nnUNetTrainerConfigurable.fixed_settings | {
        f"dual_encoder.{name}" for name in ("channels", "fusion", "context_width", "fuse_skips")
    }

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        order = cls.mro()
        if MixUpMixin in order and order.index(MixUpMixin) < order.index(DualEncoderMixin):
            raise TypeError(
                f"{cls.__name__} must name its base for the dual encoder before MixUp's: a mixed patch has its prior "
                "removed as a whole."
            )

    @classmethod
    def resolved_plans(cls, plans: dict, configuration: str, dataset_json: Mapping[str, Any]) -> dict:
        """A copy of the plans whose configuration says which channels belong to which scan."""
        plans = super().resolved_plans(plans, configuration, dataset_json)
        where = f"configuration {configuration!r} of the plans {plans.get('plans_name', '')!r}"
        roles = cls.planned_settings(plans, configuration).section(DUAL_ENCODER).channels
        roles = roles or roles_of_dataset(dataset_json)
        check_roles(roles, len(channel_names(dataset_json)), where=f"dual_encoder.channels in {where}")
        return cls.with_resolved_section(plans, configuration, DUAL_ENCODER, channels=roles)

    @staticmethod
    def build_network_architecture(
        plans_manager: Any, configuration_manager: Any, *arguments: Any, **keywords: Any
    ) -> nn.Module:
        """The plans' U-Net with a second encoder, by the settings and roles in the configuration."""
        block = configuration_manager.configuration.get(KEY, {})
        settings = validated_section(block, DUAL_ENCODER, where="the plans")
        channels = len(configuration_manager.normalization_schemes)
        roles = settings.channels or ChannelRoles(current=[0], prior_image=list(range(1, channels)))
        resolved = settings.model_copy(update={"channels": roles}).model_dump()
        return dual_encoder_unet(configuration_manager, *arguments, **keywords, settings=resolved)

    @property
    def roles(self) -> ChannelRoles:
        """Which channels belong to which scan."""
        return cast(ChannelRoles, self.section(DUAL_ENCODER).channels)

    def do_split(self) -> tuple[list[str], list[str]]:
        """nnU-Net's; a UserError for a fold that splits_final.json does not have.

        nnU-Net would draw one by cases, with scans of one patient in both of its parts.
        """
        file = Path(self.preprocessed_dataset_folder_base, SPLITS)
        if self.fold != "all" and file.is_file():
            more = "Train one that is there, or add others of whole patients (nnunet_ext split --cross-validation "
            more += "--seed S --append, with --group REGEX unless nnunet_ext pair made the dataset)."
            check_has_folds(read_splits(file), [int(self.fold)], file=file, advice=more)
        return super().do_split()

    # nnU-Net's is static, but it calls it on the trainer, whose settings this needs
    def get_training_transforms(self, *args: Any, **kwargs: Any) -> ComposeTransforms:
        """nnU-Net's, but intensities change in image channels alone, and the prior may be moved by itself."""
        transforms = cast(ComposeTransforms, super().get_training_transforms(*args, **kwargs))
        settings = self.section(DUAL_ENCODER)
        if settings.misalignment_probability > 0:
            motion = (settings.misalignment_shift, settings.misalignment_rotation)
            misalignment = Misalignment(self.roles.prior, *motion, self.configuration_manager.spacing)
            transforms = before_intensity(transforms, RandomTransform(misalignment, settings.misalignment_probability))
        return only_image_channels(transforms, [*self.roles.current, *self.roles.prior_image])

    def prepare_batch(self, batch: Batch, *, training: bool) -> Batch:
        batch = super().prepare_batch(batch, training=training)
        share = self.section(DUAL_ENCODER).prior_dropout
        if not training or share == 0:
            return batch
        is_dropped = self.rng.random(len(batch["data"])) < share
        self.observe("dual_encoder/without_prior", float(is_dropped.mean()))
        samples = np.flatnonzero(is_dropped).tolist()
        # after mixing: a patch has a prior or none, and never a weaker one because its partner's was removed
        prepared = {**batch, "data": without_prior(batch["data"], samples, self.no_prior)}
        if mixed := batch.get("mixed"):
            prepared["mixed"] = {**mixed, "data": without_prior(mixed["data"], samples, self.no_prior)}
        return prepared

    @cached_property
    def no_prior(self) -> dict[int, float]:
        """What each prior channel holds where there is no prior: 0, as nnU-Net normalises it."""
        channels = len(self.configuration_manager.normalization_schemes)
        image, no_labels = np.zeros((channels, 1, 1, 1)), np.zeros((1, 1, 1, 1))
        intensities = self.plans_manager.foreground_intensity_properties_per_channel
        preprocessor = self.configuration_manager.preprocessor_class(verbose=False)
        normalized = preprocessor._normalize(image, no_labels, self.configuration_manager, intensities)
        return {channel: float(normalized[channel].item()) for channel in self.roles.prior}


def without_prior(data: Tensor, samples: Sequence[int], no_prior: Mapping[int, float]) -> Tensor:
    """(B, C, [X,] Y, Z) data with the prior channels of some samples at the values given; a copy if there are any."""
    if samples:
        data = data.clone()
    for sample in samples:
        for channel, value in no_prior.items():
            data[sample, channel] = value
    return data


class nnUNetTrainerDualEncoder(DualEncoderMixin):
    """nnU-Net with a second encoder for a prior scan."""


class nnUNetTrainerDualEncoderMixUp(DualEncoderMixin, MixUpMixin):
    """nnU-Net with a second encoder for a prior scan, and MixUp or CutMix."""
