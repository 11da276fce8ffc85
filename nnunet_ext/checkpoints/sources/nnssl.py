"""Self-supervised pre-trainings of nnssl, such as OpenMind's, which carry an adaptation plan."""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from nnunet_ext.checkpoints.heads import IMAGES, OUTPUTS, UNNAMED
from nnunet_ext.checkpoints.reading import without_prefixes
from nnunet_ext.checkpoints.shapes import IMPORTED, PLAIN, RESIDUAL, unet_architecture
from nnunet_ext.checkpoints.sources.plans import described_plans
from nnunet_ext.checkpoints.sources.source import LEFT_OUT, Given, Source, encoder_alone, has_decoder
from nnunet_ext.errors import UserError
from nnunet_ext.formats.own_key import KEY
from nnunet_ext.formats.typed import validated

PLAN = "nnssl_adaptation_plan"
SEGMENTING = "volumefusion"
"""Part of the names of trainers whose decoder was trained to segment."""

RESENC_L = unet_architecture(
    RESIDUAL,
    kernel_sizes=[[3, 3, 3]] * 6,
    strides=[[1, 1, 1], *[[2, 2, 2]] * 5],
    features=[32, 64, 128, 256, 320, 320],
    blocks=[1, 3, 4, 6, 6, 6],
    decoder_convs=[1] * 5,
)
CLASSES = {"ResidualEncoderUNet": RESIDUAL, "PlainConvUNet": PLAIN}

Sizes = Annotated[list[Annotated[int, Field(ge=1)]], Field(min_length=2, max_length=3)]


class Architecture(BaseModel):
    """``architecture_plans``."""

    arch_class_name: str
    arch_kwargs: dict[str, Any] | None = None


class Configuration(BaseModel):
    """One of ``pretrain_plan.configurations``."""

    model_config = ConfigDict(extra="allow")

    spacing: list[Annotated[float, Field(gt=0, allow_inf_nan=False)]] | None = None
    patch_size: Sizes | None = None
    normalization_schemes: list[str] | None = None


class PretrainPlan(BaseModel):
    """``pretrain_plan``."""

    model_config = ConfigDict(extra="allow")

    dataset_name: str = "pre-training of nnssl"
    configurations: dict[str, Configuration] = Field(min_length=1)


class AdaptationPlan(BaseModel):
    """The keys that are used here."""

    model_config = ConfigDict(extra="allow")

    architecture_plans: Architecture
    pretrain_plan: PretrainPlan
    pretrain_num_input_channels: int = Field(ge=1)
    recommended_downstream_patchsize: Sizes | None = None
    key_to_encoder: str
    key_to_stem: str


class NnsslReader:
    """nnssl. Of most pre-trainings only the encoder is of use: the decoder restores images."""

    name = "nnssl"

    def recognises(self, given: Given) -> bool:
        return isinstance(given.content, Mapping) and PLAN in given.content

    def read(self, given: Given) -> Source:
        content = given.content
        where = f"The adaptation plan in {given.file}"
        plan = validated(AdaptationPlan, content.get(PLAN), where=where, what="an adaptation plan")
        found = content.get("network_weights")
        if not isinstance(found, Mapping) or not all(isinstance(one, Tensor) for one in found.values()) or not found:
            raise UserError(f"{given.file} has an adaptation plan of nnssl but no network_weights.")
        weights = _named_as_in_nnunet(plan, found, given)
        network = plan.architecture_plans.arch_class_name
        segments = SEGMENTING in str(content.get("trainer_name", "")).lower() and not network.startswith("NoSkip")
        weights, left_out, remarks = _usable(weights, given, segments=segments)
        arguments = described_plans(
            dataset_name=plan.pretrain_plan.dataset_name,
            plans_name="nnssl",
            configuration=next(iter(plan.pretrain_plan.configurations)),
            architecture=_architecture(plan, given),
            channels={str(number): f"channel {number}" for number in range(plan.pretrain_num_input_channels)},
            labels={"background": 0},
            more=_configuration(plan),
        )
        checkpoint = {
            "network_weights": weights,
            "init_args": arguments,
            "trainer_name": str(content.get("trainer_name", "nnssl")),
            KEY: {OUTPUTS: UNNAMED if segments else IMAGES, LEFT_OUT: left_out},
        }
        citation = (
            _text(content.get("citations"))
            or "Wald et al., An OpenMind for 3D medical vision self-supervised learning, arXiv 2412.17041"
        )
        licence = "CC BY 4.0 for OpenMind's models; others: see the page of the weights"
        return Source(checkpoint, self.name, remarks, citation, licence)


def _named_as_in_nnunet(plan: AdaptationPlan, weights: Mapping[str, Tensor], given: Given) -> dict[str, Tensor]:
    """The weights without what the plan says stands before ``encoder``."""
    prefix = plan.key_to_encoder.partition("encoder")[0]
    named = {without_prefixes(str(key)).removeprefix(prefix): tensor for key, tensor in weights.items()}
    for key in (plan.key_to_encoder, plan.key_to_stem):
        if not any(name.startswith(key.removeprefix(prefix)) for name in named):
            raise UserError(f"{given.file} contradicts its adaptation plan: no weights begin with {key!r}.")
    return named


def _usable(
    weights: dict[str, Tensor], given: Given, *, segments: bool
) -> tuple[dict[str, Tensor], dict[str, str], tuple[str, ...]]:
    """The weights that are taken, the reasons for the parts that are not, and what to say of it.

    `segments`: whether the decoder was trained to segment and fits a U-Net with skips.
    """
    if given.parts == "all" and not has_decoder(weights):
        raise UserError(
            f"{given.file} holds an encoder alone, no decoder, and --parts all was asked for. Leave the option out: "
            "the decoder then starts from random weights."
        )
    if given.parts == "all" and segments:
        kept = {key: one for key, one in weights.items() if ".seg_layers." not in key}
        return kept, {}, ("The decoder was trained to segment and is taken; its heads stand for no labels of yours.",)
    if not has_decoder(weights):
        reason = "the source has an encoder alone"
    elif segments:
        reason = "only the encoder is taken; --parts all takes the decoder, too"
    else:
        reason = "the source's decoder restores images and is never taken"
    return encoder_alone(weights), {"decoder": reason}, (f"Encoder: taken. Decoder: {reason}.",)


def _architecture(plan: AdaptationPlan, given: Given) -> dict[str, Any]:
    name, arguments = plan.architecture_plans.arch_class_name, plan.architecture_plans.arch_kwargs
    if name in ("ResEncL", "NoSkipResEncL"):
        return RESENC_L
    if name not in CLASSES or arguments is None:
        raise UserError(
            f"{given.file} is of the architecture {name!r}. Weights of ResEncL, ResidualEncoderUNet and PlainConvUNet "
            "can be used here."
        )
    arguments = dict(arguments)
    if CLASSES[name] == PLAIN and "n_conv_per_stage" not in arguments and "n_blocks_per_stage" in arguments:
        arguments["n_conv_per_stage"] = arguments.pop("n_blocks_per_stage")
    return {"network_class_name": CLASSES[name], "arch_kwargs": arguments, "_kw_requires_import": list(IMPORTED)}


def _configuration(plan: AdaptationPlan) -> dict[str, Any]:
    """What is known of patch, spacing and normalisation, in the words of nnU-Net's plans."""
    found = next(iter(plan.pretrain_plan.configurations.values()))
    schemes = found.normalization_schemes or ["ZScoreNormalization"]
    channels = plan.pretrain_num_input_channels
    known = {
        "patch_size": plan.recommended_downstream_patchsize or found.patch_size,
        "spacing": found.spacing,
        "normalization_schemes": [*schemes, *schemes[-1:] * channels][:channels],
        "use_mask_for_norm": [False] * channels,
        "batch_size": 2,
    }
    return {key: value for key, value in known.items() if value is not None}


def _text(citations: Any) -> str:
    """The citations that a checkpoint carries, as text of at most 2,000 characters."""
    if isinstance(citations, (list, tuple)):
        return "; ".join(filter(None, map(_text, citations)))[:2000]
    if isinstance(citations, Mapping):
        return _text(list(citations.values()))
    return " ".join(str(citations).split())[:2000] if isinstance(citations, str) else ""
