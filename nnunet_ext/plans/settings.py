"""Settings of the trainers: what may stand in a plans file under the key ``nnunet_ext`` of a configuration.

They are inherited along ``inherits_from``, key by key, and validated when a trainer is built. Importing this module
imports neither torch nor nnunetv2.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from nnunet_ext.errors import UserError

KEY = "nnunet_ext"


class Section(BaseModel):
    """A block of settings: no unknown keys, no silent conversion of types, no infinities, no change after reading."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False, protected_namespaces=())


class MixUpSettings(Section):
    """MixUp and CutMix of the patches in a batch (arXiv 2412.14846)."""

    kind: Literal["mixup", "cutmix"] = Field(
        "mixup", description="`mixup` blends two patches and their labels, `cutmix` pastes a box of half the patch."
    )
    mode: Literal["additional", "alternate"] = Field(
        "additional",
        description="`additional` adds the mixed loss to the usual one (a second forward pass); `alternate` replaces "
        "the usual loss by it in a share of the steps (one forward pass).",
    )
    alpha: float = Field(0.4, gt=0, description="The mixing ratio is drawn from Beta(alpha, alpha), per sample.")
    weight: float = Field(1.0, ge=0, description="Factor of the mixed loss.")
    probability: float | None = Field(
        None, ge=0, le=1, description="Share of steps that mix. Default: 1 for `additional`, 0.5 for `alternate`."
    )


class FineTuningSettings(Section):
    """Fine-tuning of a trained model with few cases: where it starts from, for every strategy."""

    source: str | None = Field(
        None,
        description="Checkpoint to start from (.pth, of nnU-Net or of `nnunet_ext adapt-weights`); adapted as that "
        "command does. `~` and environment variables are expanded. Unset: what `-pretrained_weights` gives.",
    )
    keep_heads: bool = Field(
        True,
        description="Keep the source's segmentation heads for labels of the same name. Needs `source`: nnU-Net's "
        "`-pretrained_weights` never loads heads.",
    )
    allow_random_start: bool = Field(
        False, description="Train although there is nothing to start from (an error otherwise)."
    )
    lora_rank: int = Field(32, ge=1, description="`nnUNetTrainerLoRA`: rank r of the adapters.")
    lora_alpha: float = Field(16.0, gt=0, description="`nnUNetTrainerLoRA`: the adapters count alpha / r.")
    lora_dropout: float = Field(0.1, ge=0, lt=1, description="`nnUNetTrainerLoRA`: dropout of the adapters' input.")

    @property
    def source_file(self) -> Path | None:
        """`source` as a path on this machine."""
        return None if self.source is None else Path(os.path.expandvars(self.source)).expanduser()


class DGSTSettings(Section):
    """Dynamic gradient sparsification training (arXiv 2503.00748)."""

    top_k: int = Field(1, ge=1, description="Entries of each kernel (output channel) that a step may move.")
    mode: Literal["strict", "grad_mask"] = Field(
        "strict",
        description="`strict`: an entry that was not selected stays bit for bit as it is. `grad_mask`: its gradient "
        "is zero, but momentum and weight decay go on moving it.",
    )
    selection: Literal["top", "random"] = Field(
        "top", description="`top`: the entries of largest gradient. `random`: any, the ablation."
    )


class ModelsGenesisSettings(Section):
    """Self-supervised pre-training by undoing corruptions of an image (arXiv 2004.07882)."""

    dropout: float = Field(
        0.5, ge=0, lt=1, description="Channel dropout of every feature that the auxiliary decoder receives."
    )
    shuffling_probability: float = Field(0.5, ge=0, le=1, description="Of a patch to have voxels shuffled locally.")
    intensity_probability: float = Field(0.9, ge=0, le=1, description="Of a patch to have its intensities mapped.")
    painting_probability: float = Field(0.9, ge=0, le=1, description="Of a patch to have parts replaced by noise.")


class DBDMPSettings(Section):
    """Learning from partially annotated instances with dynamically mixed pseudo labels (arXiv 2408.09411)."""

    dropout: float = Field(
        0.5, ge=0, lt=1, description="Channel dropout of every feature that the auxiliary decoder receives."
    )
    supervised_weight: float = Field(0.25, ge=0, description="Factor of the supervised terms of each branch.")
    tversky_weight: float = Field(1.0, ge=0, description="Factor of the Tversky loss among the supervised terms.")
    tversky_alpha: float = Field(0.4, gt=0, description="Weight of false positives in the Tversky loss.")
    tversky_beta: float = Field(0.6, gt=0, description="Weight of false negatives in the Tversky loss.")
    ce_weight: float = Field(0.8, ge=0, description="Cross-entropy within the symmetric cross-entropy.")
    rce_weight: float = Field(1.0, ge=0, description="Reverse cross-entropy within it.")
    partial_ce_weight: float = Field(
        1.0, ge=0, description="Factor of the cross-entropy over annotated voxels among the supervised terms."
    )
    pseudo_label_weight: float = Field(
        1.0, ge=0, description="Factor of the pseudo-label term at the end of the ramp. 0 leaves it out."
    )
    ramp_epochs: int = Field(99, ge=0, description="Epochs over which the pseudo-label term rises to its factor.")
    temperature: float = Field(
        0.3,
        gt=0,
        description="Temperature of the softmax that sharpens the pseudo labels; from 0.5 on it does nothing.",
    )


class ChannelRoles(Section):
    """Which of a dataset's channels belong to which scan, by their numbers."""

    current: list[int] = Field(min_length=1, description="Channels of the current image.")
    prior_image: list[int] = Field(default=[], description="Channels of the prior image.")
    prior_labels: list[int] = Field(default=[], description="Binary channels, one for each label of the prior scan.")

    @property
    def prior(self) -> list[int]:
        """Everything that is known of the prior scan."""
        return [*self.prior_image, *self.prior_labels]


class DualEncoderSettings(Section):
    """A second encoder for a prior scan (arXiv 2412.14846)."""

    fusion: Literal["gated", "add", "concat"] = Field(
        "add",
        description="How the prior's features come to the current ones: `add` by a projection that is added, `concat` "
        "by a projection of both, `gated` by a spatial and a channel gate (the paper's).",
    )
    context_width: float = Field(
        1.0, gt=0, le=4, description="Features of the prior's encoder, as a multiple of the plans' features."
    )
    fuse_skips: bool = Field(
        False, description="Fuse at full resolution too, and give the decoder fused skips. The paper: skips unfused."
    )
    prior_dropout: float = Field(
        0.1, ge=0, le=1, description="Share of training samples whose prior is set to zero, as if there were none."
    )
    misalignment_probability: float = Field(
        0.0, ge=0, le=1, description="Share of training samples whose prior is moved, as by an error of registration."
    )
    misalignment_shift: float = Field(
        3.0, ge=0, description="Such a move along each axis: at most this many millimetres."
    )
    misalignment_rotation: float = Field(
        3.0, ge=0, le=180, description="And about each axis: at most this many degrees."
    )
    channels: ChannelRoles | None = Field(
        None,
        description="Which channels belong to which scan. Unset: what dataset.json says, else channel 0 is current and "
        "the others are the prior image.",
    )


class PartialCESettings(Section):
    """Cross-entropy over scribbled voxels, for stock networks."""

    entropy_weight: float = Field(
        0.0, ge=0, description="Factor of the mean entropy of the voxels that nobody annotated. 0 leaves it out."
    )


Supervision: TypeAlias = Literal["partial_ce", "dice_ce"]
SUPERVISION: Supervision = "partial_ce"
SUPERVISION_HELP = (
    "What each branch learns from the annotated voxels: `partial_ce`, cross-entropy (the paper's), or `dice_ce`, "
    "nnU-Net's own Dice and cross-entropy."
)


class DMPLSSettings(Section):
    """Two decoders that learn from scribbles and from pseudo labels mixed of both (arXiv 2203.02106)."""

    dropout: float = Field(
        0.5, ge=0, lt=1, description="Channel dropout of every feature that the auxiliary decoder receives."
    )
    supervision: Supervision = Field(SUPERVISION, description=SUPERVISION_HELP)
    pseudo_label_weight: float = Field(0.5, ge=0, description="Factor of the Dice loss against the pseudo labels.")
    pseudo_label_dice: Literal["squared", "foreground"] = Field(
        "squared",
        description="`squared`: Dice of all classes with squared probabilities in the denominator (the authors' code). "
        "`foreground`: soft Dice of the foreground classes, as in nnU-Net.",
    )
    ramp_epochs: int = Field(
        0, ge=0, description="Epochs over which the pseudo-label term rises to its factor. 0: no ramp (the paper's)."
    )


class TDNetSettings(Section):
    """Three decoders that learn from scribbles and from each other (arXiv 2309.09730)."""

    dilations: list[int] = Field(
        [1, 3, 6],
        min_length=2,
        description="Dilation of each decoder, the deepest stage apart. The first is 1: its decoder is the plans' own, "
        "and alone it predicts.",
    )
    dropout: float = Field(
        0.5, ge=0, lt=1, description="The bottleneck's dropout before the other decoders is drawn from 0 to this."
    )
    supervision: Supervision = Field(SUPERVISION, description=SUPERVISION_HELP)
    uspc_weight: float = Field(
        10.0, ge=0, description="Factor of the pixel-wise consistency at the end of the ramp. 0 leaves it out."
    )
    mpcc_weight: float = Field(
        1.0, ge=0, description="Factor of the class consistency of projections at the end of the ramp. 0 leaves it out."
    )
    uncertainty_weights: bool = Field(
        True, description="Whether voxels of which the decoders are unsure together count less in the former."
    )
    detach_target: bool = Field(
        True, description="Whether the decoders' mean is a fixed target, through which no gradient flows."
    )
    ramp_epochs: int | None = Field(
        None, ge=0, description="Epochs over which both rise to their factors. Unset: the whole training."
    )

    @field_validator("dilations")
    @classmethod
    def _check_dilations(cls, dilations: list[int]) -> list[int]:
        if dilations[0] != 1 or min(dilations) < 1:
            raise ValueError("the first dilation is 1, and the others are at least 1")
        return dilations


class Settings(Section):
    """Everything that may stand under ``nnunet_ext``: general keys, and one section for each technique.

    A key that is left out keeps the trainer's own value, which is nnU-Net's wherever a technique's page does not say
    otherwise.
    """

    num_epochs: int | None = Field(None, ge=1, description="Length of the training. nnU-Net: 1000.")
    num_iterations_per_epoch: int | None = Field(None, ge=1, description="Training steps in an epoch. nnU-Net: 250.")
    num_val_iterations_per_epoch: int | None = Field(
        None, ge=1, description="Validation batches in an epoch, for the pseudo Dice of the log. nnU-Net: 50."
    )
    initial_lr: float | None = Field(
        None, gt=0, description="Learning rate at the start of the polynomial decay. nnU-Net: 0.01."
    )
    weight_decay: float | None = Field(None, ge=0, description="Weight decay. nnU-Net: 3e-5.")
    momentum: float = Field(0.99, ge=0, lt=1, description="Momentum of SGD. nnU-Net: 0.99.")
    nesterov: bool = Field(True, description="Whether SGD's momentum is Nesterov's, as in nnU-Net.")
    optimizer: Literal["sgd", "adamw"] = Field("sgd", description="`sgd` (nnU-Net's) or `adamw`.")
    oversample_foreground_percent: float | None = Field(
        None, ge=0, le=1, description="Share of a batch whose patches are sure to hold foreground. nnU-Net: 0.33."
    )
    save_every: int | None = Field(
        None, ge=1, description="Epochs between two writings of checkpoint_latest.pth. nnU-Net: 50."
    )
    seed: int | None = Field(
        None,
        ge=0,
        lt=2**32,
        description="Makes a run repeatable: initial weights, batches and every draw of this package follow from it, "
        "whatever the number of workers, and a resumed run equals one that was never interrupted. "
        "Unset: random, as in nnU-Net.",
    )
    memory_format: Literal["auto", "channels_last", "contiguous"] = Field(
        "contiguous",
        description="Layout of the activations. `auto` measures both at the start and logs what it chose; results "
        "agree to rounding.",
    )
    mixup: MixUpSettings = Field(MixUpSettings(), description="MixUp and CutMix.")
    fine_tuning: FineTuningSettings = Field(FineTuningSettings(), description="Fine-tuning with few cases.")
    models_genesis: ModelsGenesisSettings = Field(ModelsGenesisSettings(), description="Self-supervised pre-training.")
    dbdmp: DBDMPSettings = Field(DBDMPSettings(), description="Partially annotated instances.")
    partial_ce: PartialCESettings = Field(PartialCESettings(), description="Cross-entropy over scribbles.")
    dmpls: DMPLSSettings = Field(DMPLSSettings(), description="Scribbles, by two decoders.")
    tdnet: TDNetSettings = Field(TDNetSettings(), description="Scribbles, by three decoders.")
    dual_encoder: DualEncoderSettings = Field(DualEncoderSettings(), description="A prior scan beside the current one.")
    dgst: DGSTSettings = Field(DGSTSettings(), description="Dynamic gradient sparsification.")


def section_names() -> tuple[str, ...]:
    """Names of the techniques' sections in `Settings`."""
    return tuple(name for name, field in Settings.model_fields.items() if _is_section(field.annotation))


def _is_section(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, Section)


def merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with `changes` laid over it, nested mappings key by key; neither is modified."""
    result = dict(base)
    for key, value in changes.items():
        present = result.get(key)
        result[key] = merged(present, value) if isinstance(present, Mapping) and isinstance(value, Mapping) else value
    return result


def configured_settings(plans: Mapping[str, Any], configuration: str) -> dict[str, Any]:
    """What a plans file says under ``nnunet_ext`` for a configuration, inherited settings included.

    Args:
        plans: content of a plans file.
        configuration: a configuration's name, e.g. ``3d_fullres``.

    Returns:
        The settings as they stand there, not validated.

    Raises:
        UserError: if the configuration, or one it inherits from, does not exist, if the inheritance has a cycle, or if
            the value under ``nnunet_ext`` is no mapping.
    """
    configurations = plans["configurations"]
    chain: list[str] = []
    name: str | None = configuration
    while name is not None:
        if name in chain:
            raise UserError(f"The configurations {' -> '.join([*chain, name])} inherit from each other in a circle.")
        if name not in configurations:
            raise UserError(
                f"The plans {plans.get('plans_name', '')!r} have no configuration {name!r}; they have: "
                f"{', '.join(configurations)}. If nnUNetv2_plan_and_preprocess has rewritten the plans file, repeat "
                "the `nnunet_ext configure` or `nnunet_ext plan` command that made it."
            )
        chain.append(name)
        name = configurations[name].get("inherits_from")
    result: dict[str, Any] = {}
    for name in reversed(chain):
        block = configurations[name].get(KEY, {})
        if not isinstance(block, Mapping):
            raise UserError(
                f'The value of "{KEY}" in the configuration {name!r} must be a mapping of settings, found: {block!r}.'
            )
        result = merged(result, block)
    return result


def with_whole_block(plans: dict[str, Any], configuration: str, changes: Mapping[str, Any]) -> dict[str, Any]:
    """Plans whose configuration says all its settings itself, inherited ones included.

    nnU-Net's own inheritance replaces the block as a whole. What builds a network from the saved plans, and sees them
    only through nnU-Net's eyes, would miss what an ancestor says.

    Args:
        plans: content of a plans file; it is not modified.
        configuration: a configuration's name.
        changes: laid over its settings.
    """
    block = merged(configured_settings(plans, configuration), changes)
    own = {**plans["configurations"][configuration], KEY: block}
    return {**plans, "configurations": {**plans["configurations"], configuration: own}}


def validated_settings(values: Mapping[str, Any], *, where: str) -> Settings:
    """Check settings and fill in the defaults.

    Args:
        values: settings by name, sections as mappings.
        where: what to call their place in an error, e.g. "configuration '3d_fullres'".

    Raises:
        UserError: naming every unknown key and wrong value, with the keys and values that are valid.
    """
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        problems = "\n".join(f"  - {_describe(problem)}" for problem in error.errors())
        raise UserError(f"Wrong nnunet_ext settings in {where}:\n{problems}") from None


def _describe(problem: Any) -> str:
    """One line for one of pydantic's errors: the key, what is wrong, what would be right."""
    path = [str(part) for part in problem["loc"]]
    key = ".".join(path)
    if problem["type"] == "extra_forbidden":
        owner = _model_at(path[:-1])
        place = f"in {'.'.join(path[:-1])!r} " if path[:-1] else ""
        return f"{key}: no such setting. Valid keys {place}are: {', '.join(owner.model_fields)}."
    return f"{key}: {problem['msg'][0].lower()}{problem['msg'][1:]}, found {problem['input']!r}."


def _model_at(path: list[str]) -> type[Section]:
    model: type[Section] = Settings
    for part in path:
        annotation: Any = model.model_fields[part].annotation
        # a section that may be left out is a union with None
        model = next((one for one in get_args(annotation) if _is_section(one)), annotation)
    return model


def settings_record(settings: Settings, sections: tuple[str, ...]) -> dict[str, Any]:
    """Settings as plain JSON data: the general ones and the sections that a trainer uses.

    Sections of other techniques are left out, so that adding one to a shared configuration changes nothing for this
    trainer.
    """
    unused = set(section_names()) - set(sections)
    return settings.model_dump(mode="json", exclude=unused)


def differences(recorded: Mapping[str, Any], present: Mapping[str, Any], prefix: str = "") -> list[str]:
    """One line for each setting that differs between two records, e.g. ``mixup.alpha: 0.4 -> 0.2``."""
    lines = []
    for key in sorted({*recorded, *present}):
        old, new = recorded.get(key), present.get(key)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            lines += differences(old, new, f"{prefix}{key}.")
        elif old != new:
            lines.append(f"{prefix}{key}: {old} -> {new}")
    return lines
