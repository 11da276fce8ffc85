"""Self-supervised pre-training by undoing corruptions of an image (arXiv 2004.07882)."""

from pydantic import Field

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
)
