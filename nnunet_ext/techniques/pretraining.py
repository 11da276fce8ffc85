"""Pre-training on images without labels: Models Genesis, Volume Fusion, masked autoencoder."""

from __future__ import annotations

from dataclasses import replace

from pydantic import Field, model_validator

from nnunet_ext.advice import Advice
from nnunet_ext.techniques import Section, Technique, TrainerEntry

NEEDS = "images; labels are not looked at"
CHECKS = ("nnunet_ext.preprocessing.checks.pretraining:PlaceholderCheck",)
PAGE = "pretraining"


class ModelsGenesisSettings(Section):
    """Self-supervised pre-training by undoing corruptions of an image (arXiv 2004.07882)."""

    dropout: float = Field(
        0.5, ge=0, lt=1, description="Channel dropout of every feature that the auxiliary decoder receives."
    )
    shuffling_probability: float = Field(
        0.5, ge=0, le=1, description="Probability that voxels of a patch are shuffled locally."
    )
    intensity_probability: float = Field(
        0.9, ge=0, le=1, description="Probability that the intensities of a patch are mapped by a curve."
    )
    painting_probability: float = Field(
        0.9, ge=0, le=1, description="Probability that parts of a patch are replaced by noise."
    )


PRETRAIN = Advice(
    "nnUNetTrainerModelsGenesis",
    lambda facts: facts.unlabelled > 0 and facts.dense == 0,
    why="Images without labels can pre-train the network. start.pth is what -pretrained_weights takes.",
    evidence="The heart, 5 labelled patients of 64, 3 seeds: Dice +0.038 (0.011 to 0.071) beside stock with "
    "the same steps on the labels, +0.017 (-0.014 to 0.055) with as many in all, as was declared to decide; with "
    "self-training after it, added later, +0.047 (0.006 to 0.096), 8,000 steps against 6,000. With 10 labelled "
    "patients stock was not trained for as many steps in all, so that no gain is shown.",
    verdict="mixed",
    results="docs/techniques/pretraining.md#results",
    commands=(
        "nnUNetv2_train {number} {c} all -tr nnUNetTrainerModelsGenesis{plans}{device}",
        'nnunet_ext adapt-weights "$nnUNet_results/{name}/nnUNetTrainerModelsGenesis__{p}__{c}/fold_all/'
        'checkpoint_final.pth" --to {number} {c}{plans} -tr nnUNetTrainerConfigurable -o start.pth',
    ),
    time=1.6,
    memory=1.49,
)
PRETRAIN_FOR_DENSE = replace(
    PRETRAIN,
    applies=lambda facts: facts.unlabelled > 0 and facts.dense > 0,
    why="Images without labels can pre-train the network. The dense cases (999, as above) are then trained on from its "
    "weights, with the plans of the pre-training. That has seen all images: score on cases of neither dataset. "
    "Self-training can follow: docs/techniques/pretraining.md#then-self-train has the commands.",
    time=2.6,  # of the pre-training and what follows
    commands=(
        *PRETRAIN.commands,
        "nnUNetv2_move_plans_between_datasets -s {number} -t 999 -sp {p} -tp {p}_pretrained",
        "nnUNetv2_preprocess -d 999 -plans_name {p}_pretrained -c {c}",
        "nnUNetv2_train 999 {c} 0 -tr nnUNetTrainerConfigurable -p {p}_pretrained -pretrained_weights start.pth"
        "{device}",
    ),
)

MODELS_GENESIS = Technique(
    "models_genesis",
    settings=ModelsGenesisSettings,
    trainers=(
        TrainerEntry(
            "nnUNetTrainerModelsGenesis",
            "self-supervised pre-training: undo the corruptions of an image",
            needs=NEEDS,
            paper="arXiv 2004.07882",
        ),
    ),
    checks=CHECKS,
    page=PAGE,
    advice=(PRETRAIN, PRETRAIN_FOR_DENSE),
)


class VolumeFusionSettings(Section):
    """Self-supervised pre-training by telling how two crops of a scan were blended (arXiv 2306.16925)."""

    classes: int = Field(
        4, ge=1, le=100, description="Number of blending coefficients beside 0, K in the paper: 1/K, 2/K, … 1."
    )
    smallest_block: int = Field(
        8, ge=1, description="Smallest side of a block in voxels; along each axis at most a quarter of the patch."
    )
    largest_block: int = Field(
        32, ge=1, description="Largest side of a block in voxels; along each axis at most half of the patch."
    )
    blended_share: float = Field(0.7, gt=0, lt=1, description="Share of the blocks with a coefficient other than 0.")
    smallest_crop: float = Field(
        0.7, gt=0, le=10, description="Smallest side of a crop, as a factor of the patch's, to which it is resampled."
    )
    largest_crop: float = Field(1.5, gt=0, le=10, description="Largest side of a crop, as a factor of the patch's.")
    intensity_probability: float = Field(
        0.5, ge=0, le=1, description="Probability that the contrast of a crop is changed, and that its gamma is."
    )
    inversion_probability: float = Field(
        0.25, ge=0, le=1, description="Probability that the intensities of a crop are inverted."
    )

    @model_validator(mode="after")
    def _ordered(self) -> VolumeFusionSettings:
        for what in ("block", "crop"):
            low, high = getattr(self, f"smallest_{what}"), getattr(self, f"largest_{what}")
            if low > high:
                raise ValueError(f"smallest_{what} ({low}) must not be above largest_{what} ({high})")
        return self


VOLUME_FUSION = Technique(
    "volume_fusion",
    settings=VolumeFusionSettings,
    trainers=(
        TrainerEntry(
            "nnUNetTrainerVolumeFusion",
            "self-supervised pre-training: tell how two crops of a scan were blended",
            needs=NEEDS,
            paper="arXiv 2306.16925",
        ),
    ),
    checks=CHECKS,
    page=PAGE,
)


class MAESettings(Section):
    """Self-supervised pre-training by restoring masked blocks of an image (arXiv 2111.06377)."""

    block_size: int = Field(
        16, ge=1, description="Side of a block in voxels; along each axis at most a quarter of the patch."
    )
    masked_share: float = Field(0.75, gt=0, lt=1, description="Share of the blocks that are masked.")


MAE = Technique(
    "mae",
    settings=MAESettings,
    trainers=(
        TrainerEntry(
            "nnUNetTrainerMAE",
            "self-supervised pre-training of the encoder: restore masked blocks of an image",
            needs=NEEDS,
            paper="arXiv 2111.06377",
        ),
    ),
    checks=CHECKS,
    page=PAGE,
)
