"""Self-supervised pre-training by undoing corruptions of an image (arXiv 2004.07882)."""

from pydantic import Field

from nnunet_ext.advice import Advice
from nnunet_ext.techniques import Section, Technique, TrainerEntry


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


MODELS_GENESIS = Technique(
    "models_genesis",
    settings=ModelsGenesisSettings,
    trainers=(
        TrainerEntry(
            "nnUNetTrainerModelsGenesis",
            "self-supervised pre-training: undo the corruptions of an image",
            needs="images; labels are not looked at",
            paper="arXiv 2004.07882",
        ),
    ),
    checks=("nnunet_ext.preprocessing.checks.pretraining:PlaceholderCheck",),
    advice=(
        Advice(
            "nnUNetTrainerModelsGenesis",
            lambda facts: facts.unlabelled > 0,
            why="Images without labels can pre-train the network. start.pth is what -pretrained_weights takes.",
            evidence="As the start of DBDMP, 360 steps, 3 seeds: Dice +0.035 (0.020 to 0.049), with 360 steps more "
            "than the other; as the start of other trainings not measured.",
            verdict="mixed",
            results="docs/techniques/models-genesis.md#results",
            commands=(
                "nnUNetv2_train {number} {c} all -tr nnUNetTrainerModelsGenesis{plans}{device}",
                'nnunet_ext adapt-weights "$nnUNet_results/{name}/nnUNetTrainerModelsGenesis__{p}__{c}/fold_all/'
                'checkpoint_final.pth" --to {number} {c}{plans} -tr nnUNetTrainerConfigurable -o start.pth',
            ),
            time=1.6,
            memory=1.49,
        ),
    ),
)
