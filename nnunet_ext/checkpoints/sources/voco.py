"""VoComni for nnU-Net (``VoComni_nnunet.pt``): a plain U-Net in one of several wrappers, without its plans."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from nnunet_ext.checkpoints.shapes import PLAIN, contradictions, unet_architecture
from nnunet_ext.checkpoints.sources.nnunet import with_parts
from nnunet_ext.checkpoints.sources.plans import described_plans
from nnunet_ext.checkpoints.sources.source import Given, Source
from nnunet_ext.checkpoints.sources.wrapped import unet_weights, unnamed_labels, unwrapped, without_prefix
from nnunet_ext.errors import UserError
from nnunet_ext.messages import listed

ARCHITECTURE: dict[str, Any] = unet_architecture(
    PLAIN,
    kernel_sizes=[[3, 3, 3]] * 6,
    strides=[[1, 1, 1], *[[2, 2, 2]] * 4, [1, 2, 2]],
    features=[32, 64, 128, 256, 320, 320],
    blocks=[2] * 6,
    decoder_convs=[2] * 5,
)
OUTPUTS = 21
CONFIGURATION: dict[str, Any] = {
    "patch_size": [80, 160, 160],
    "spacing": [1.5, 0.78125, 0.7820000052452087],
    "normalization_schemes": ["CTNormalization"],
    "use_mask_for_norm": [False],
    "batch_size": 2,
}
"""What the plans that belong to the weights say (Luffy03/Large-Scale-Medical, VoComni/nnUNet_preprocessed)."""


class VoComniReader:
    """VoComni, described here because the file has no plans."""

    name = "vocomni"

    def recognises(self, given: Given) -> bool:
        if not isinstance(given.content, dict) or "init_args" in given.content:
            return False
        weights = without_prefix(unwrapped(given.content) or {})
        is_whole = any(key.startswith("decoder.") for key in weights)
        fits = not contradictions(ARCHITECTURE, weights) and len(unnamed_labels(weights)) == OUTPUTS
        return is_whole and fits and any(key.startswith("encoder.stages.0.0.convs.") for key in weights)

    def read(self, given: Given) -> Source:
        weights = unet_weights(given)
        if problems := contradictions(ARCHITECTURE, weights):
            raise UserError(f"{given.file} is not VoComni's U-Net of nnU-Net:{listed(problems)}")
        return with_parts(self.described(weights), given)

    def described(self, weights: Mapping[str, Tensor]) -> Source:
        """The weights, none if only the description is of interest, with the plans that belong to them."""
        arguments = described_plans(
            dataset_name="Dataset503_VoComni",
            plans_name="nnUNetPlans",
            configuration="3d_fullres",
            architecture=ARCHITECTURE,
            channels={"0": "CT"},
            labels=unnamed_labels(weights),
            more=CONFIGURATION,
        )
        return Source(
            {"network_weights": weights, "init_args": arguments},
            self.name,
            ("The plans are built in, because the file has none; its labels have no names here.",),
            "Wu et al., Large-Scale 3D Medical Image Pre-training with Geometric Context Priors, arXiv 2410.09890",
            "see huggingface.co/Luffy503/VoCo",
        )
