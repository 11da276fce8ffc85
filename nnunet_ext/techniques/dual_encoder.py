"""A second encoder for a prior scan (arXiv 2412.14846)."""

from typing import Literal

from pydantic import Field, model_validator

from nnunet_ext.advice import Advice, Facts
from nnunet_ext.techniques import FOREGROUND, Section, Technique, TrainerEntry


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

    fusion: Literal["gated", "add", "concat", "difference", "early"] = Field(
        "add",
        description="How the prior's features are fused into the current ones: `add` adds a projection of them, "
        "`concat` projects both together, `gated` uses a spatial and a channel gate, as in the paper, `difference` "
        "weights those that the decoder gets, at every resolution, by their difference from the prior's (arXiv "
        "2409.13416). `early` has no second encoder: nnU-Net's own network sees all channels, with the augmentation of "
        "the prior below.",
    )
    context_width: float = Field(
        1.0, gt=0, le=4, description="Features of the prior's encoder, as a multiple of the plans' features."
    )
    fuse_skips: bool = Field(
        False,
        description="Fuse at full resolution too, and give the decoder fused skips. The paper's are unfused. Not for "
        "`difference`, which always does, nor for `early`.",
    )
    prior_dropout: float = Field(
        0.5, ge=0, le=1, description="Share of training samples whose prior is set to zero, as if there were none."
    )
    misalignment_probability: float = Field(
        0.0, ge=0, le=1, description="Share of training samples whose prior is moved, as by an error of registration."
    )
    misalignment_shift: float = Field(3.0, ge=0, description="Largest shift of such a move along each axis, in mm.")
    misalignment_rotation: float = Field(
        3.0, ge=0, le=180, description="Largest rotation of such a move about each axis, in degrees."
    )
    channels: ChannelRoles | None = Field(
        None,
        description="Which channels belong to which scan. Unset: what dataset.json says, else channel 0 is current and "
        "the others are the prior image.",
    )

    @model_validator(mode="after")
    def _only_a_second_encoder_has_a_width(self) -> "DualEncoderSettings":
        if self.fusion == "early" and (self.context_width != 1 or self.fuse_skips):
            raise ValueError("With fusion `early` there is no second encoder: leave out context_width and fuse_skips")
        return self

    @model_validator(mode="after")
    def _difference_always_fuses_skips(self) -> "DualEncoderSettings":
        if self.fusion == "difference" and self.fuse_skips:
            raise ValueError("The fusion `difference` weights every skip as it is: leave out fuse_skips")
        return self


def _some_without_prior(facts: Facts) -> bool:
    """Whether some cases have a prior scan with labels and others none, and no labels are missing by case."""
    has_some = facts.priors is not None and facts.priors < facts.cases and facts.has_prior_labels
    return has_some and not facts.partial


DUAL_ENCODER = Technique(
    "dual_encoder",
    settings=DualEncoderSettings,
    trainers=(
        TrainerEntry(
            "nnUNetTrainerDualEncoder",
            "a second encoder for a prior scan, its image and its labels",
            needs="channels of a prior scan beside the current one, as `nnunet_ext pair` writes them",
            paper="arXiv 2412.14846",
        ),
        TrainerEntry(
            "nnUNetTrainerDualEncoderMixUp",
            "the second encoder for a prior scan, with MixUp or CutMix",
            needs="channels of a prior scan beside the current one; a batch of at least two",
            paper="arXiv 2412.14846",
        ),
    ),
    checks=(FOREGROUND, "nnunet_ext.preprocessing.checks.longitudinal:LongitudinalCheck"),
    advice=(
        Advice(
            "nnUNetTrainerDualEncoder",
            lambda facts: _some_without_prior(facts) and not facts.missing_instances,
            why="Some cases have no prior scan. With fusion=early this is stock nnU-Net's network on all channels, and "
            "prior dropout teaches it to work without them; stock's own training does not.",
            evidence="The heart, 64 patients, 2,000 steps: Dice 0.827 where half of the priors are missing (5 seeds), "
            "without prior dropout 0.428 (1 seed, too few for a verdict); 0.861 with twice the steps (3 seeds).",
            verdict="not shown",
            results="docs/techniques/dual-encoder.md#results",
            commands=(
                "nnunet_ext configure -d {number}{plans} -c {c} --name {c}_early dual_encoder.fusion=early",
                "nnUNetv2_train {number} {c}_early 0 -tr nnUNetTrainerDualEncoder{plans}{device}",
            ),
            is_baseline=True,
        ),
        Advice(
            "nnUNetTrainerDualEncoder",
            _some_without_prior,
            why="A second encoder sees the prior scan. It also works where there is none.",
            evidence="The heart, 64 patients, 2,000 steps, 5 seeds: Dice +0.018 (+0.004 to +0.030) beside fusion=early"
            " where half of the priors are missing, +0.011 (-0.001 to +0.021) beside it in a network of as many "
            "parameters. Where priors are 10 mm off +0.047 (+0.034 to +0.061), not declared to decide. With "
            "twice the steps +0.005 (-0.004 to +0.013) and +0.030 (+0.018 to +0.039).",
            verdict="mixed",
            results="docs/techniques/dual-encoder.md#results",
            time=1.4,
            memory=1.39,
        ),
        Advice(
            "nnUNetTrainerDualEncoder",
            lambda facts: facts.all_have_prior_labels and not (facts.missing_instances or facts.partial),
            why="It is worth a try where priors may be misaligned by several millimetres, or patients to come may have "
            "none. A second encoder sees the prior scan, and prior dropout teaches it to work without.",
            evidence="The heart, 64 patients, 2,000 steps: with all priors Dice +0.028 (+0.014 to +0.043) beside "
            "fusion=early without prior dropout, nearly stock's network, by one seed, which does not decide. Beside "
            "fusion=early with the same prior dropout +0.009 (-0.004 to +0.021), and +0.047 (+0.034 to +0.061) where "
            "the priors are 10 mm off (5 seeds), +0.030 (+0.018 to +0.039) with twice the steps (3 seeds).",
            verdict="mixed",
            results="docs/techniques/dual-encoder.md#results",
            time=1.4,
            memory=1.39,
        ),
    ),
)
