"""nnU-Net's own training with settings from the plans file."""

from nnunet_ext.advice import FEW, Advice
from nnunet_ext.nnunet_names import TRAINER
from nnunet_ext.techniques import FOREGROUND, Section, Technique, TrainerEntry

SCRIBBLE_RESULTS = "docs/techniques/scribbles.md#results"
SCRIBBLES = (
    "Hearts with scribbles, 2,000 and 4,000 steps: Dice 0.773 and 0.807, and 0.803 and 0.829 by the largest component "
    "alone. Train for long, and remove islands."
)

BASE: Technique[Section] = Technique(
    "base",
    trainers=(
        TrainerEntry(
            "nnUNetTrainerConfigurable",
            "stock nnU-Net training with epochs, optimizer, … taken from the plans file",
            paper="Isensee et al., doi 10.1038/s41592-020-01008-z",
        ),
    ),
    checks=(FOREGROUND, "nnunet_ext.preprocessing.checks.scribbles:IgnoreLabelCheck"),
    advice=(
        Advice(
            TRAINER,
            lambda facts: facts.missing_instances,
            why="Stock nnU-Net tolerates gaps in the labels. Where it takes days and not months, annotate the rest.",
            evidence="30 % of the lesions annotated, 42 tiles of 4 patients, 360 steps, 3 seeds: Dice 0.492 against "
            "0.543 with all lesions, and above every variant of DBDMP, in an earlier version. Each seed tested one "
            "patient, which is too few for a verdict.",
            verdict="not shown",
            results="docs/techniques/partial-instances.md#results",
            is_baseline=True,
        ),
        Advice(
            TRAINER,
            lambda facts: facts.all_have_prior_labels and not (facts.missing_instances or facts.partial),
            why="The channels of the prior scan are input of stock nnU-Net like any others (early concatenation). It "
            "has no prior dropout, so that such a model is of no use for patients without a prior.",
            evidence="Cardiac MRI, 16 patients, 200 steps, 3 seeds: aggregated Dice 0.826 with the prior, +0.226 "
            "(0.137 to 0.319) over none. By fusion=early without dropout, which is nearly the same, 64 patients, 2,000 "
            "steps: Dice 0.845 (one seed) against 0.830 of no prior (two seeds), which does not decide; 0.699 where "
            "the priors are 10 mm off, and 0 without them.",
            verdict="mixed",
            results="docs/techniques/dual-encoder.md#results",
            is_baseline=True,
        ),
        Advice(
            TRAINER,
            lambda facts: facts.priors is not None and not facts.has_prior_labels and not facts.missing_instances,
            why="Whether the image of the prior scan alone helps is open; draw its labels if you can.",
            evidence="Cardiac MRI, 16 patients, 200 steps, 3 seeds: +0.025 (-0.084 to 0.127) over no prior, a wide "
            "interval.",
            verdict="not shown",
            results="docs/techniques/dual-encoder.md#results",
            is_baseline=True,
        ),
        Advice(
            TRAINER,
            lambda facts: facts.scribbled > 0 and not facts.is_mixed and facts.priors is None,
            why="With the ignore label in dataset.json stock nnU-Net learns from the annotated voxels alone.",
            evidence=f"{SCRIBBLES} It is the baseline of every scribble method, and none is shown to beat it by a "
            "declared comparison here.",
            verdict="not shown",
            results=SCRIBBLE_RESULTS,
            is_baseline=True,
        ),
        Advice(
            TRAINER,
            lambda facts: facts.sliced > 0 and not facts.is_mixed and facts.priors is None,
            why="Slices that are labelled in full are what the ignore label of stock nnU-Net is made for.",
            evidence="Not measured here; methods for scribbles have no known advantage on full slices.",
            verdict="not measured",
            results="docs/choose.md",
            is_baseline=True,
        ),
        Advice(
            TRAINER,
            lambda facts: facts.dense > 0 and (facts.partial > 0 or facts.unlabelled > 0 or facts.is_mixed),
            why="Train on the dense cases alone first: stock nnU-Net takes what is missing in the others for "
            "background. Put these cases into a dataset of their own (here 999), and test all on the same cases. Where "
            "nnunet_ext merge made this dataset, its dense source is that one.",
            evidence="Hearts, 24 patients of whom a quarter has every label, 2,000 steps, 3 seeds: Dice 0.781 on that "
            "quarter, 0.541 on all with missing labels as background.",
            verdict="better",
            results="docs/techniques/partial-labels.md#results",
            dataset="999",
            is_baseline=True,
        ),
        Advice(
            TRAINER,
            lambda facts: facts.partial > 0 and facts.dense == 0 and not facts.missing_instances,
            why="Train a stock model for each set of labels, on the cases that were annotated for it: on all cases "
            "stock nnU-Net takes missing labels for background. Each set gets a dataset of its own (here 999), with "
            "these labels alone in dataset.json. Where nnunet_ext merge made this dataset, its sources are these.",
            evidence="Hearts, 24 patients, each label annotated in half of them, 3 seeds: Dice 0.802 of three models, "
            "one for each label, 2,000 steps each; 0.541 on all with missing labels as background, 2,000 steps.",
            verdict="not shown",
            results="docs/techniques/partial-labels.md#results",
            needs="five cases of each set, or a fold that nnunet_ext split draws",
            dataset="999",
            is_baseline=True,
        ),
        Advice(
            TRAINER,
            lambda facts: facts.is_mixed and facts.dense == facts.partial == 0,
            why="Train on the scribbled cases alone first, with the ignore label in dataset.json: stock nnU-Net takes "
            "cases whose label maps are empty for background. Put the scribbled ones into a dataset of their own "
            "(here 999), and test all on the same cases.",
            evidence=SCRIBBLES,
            verdict="not shown",
            results=SCRIBBLE_RESULTS,
            dataset="999",
            is_baseline=True,
        ),
        Advice(
            TRAINER,
            lambda facts: facts.is_few_dense and not facts.wrong_labels,
            why=f"Up to {FEW} dense cases are few, but stock nnU-Net is the baseline that all else must beat. One "
            "fold of few cases shows little: the commands here and below train fold 0; train the other folds, too.",
            evidence="The baseline of every comparison of this package.",
            verdict="not measured",
            results="docs/benchmarks.md#accuracy",
            is_baseline=True,
        ),
        Advice(
            TRAINER,
            lambda facts: facts.is_dense and facts.wrong_labels and not facts.has_regions,
            why="The model shows which labels look wrong: correct these, and train again. Before the review, "
            "train the other folds, too: a case is reviewed by a fold that has not trained on it.",
            evidence="Not measured here yet.",
            verdict="not measured",
            results="docs/techniques/noisy-labels.md#find-the-wrong-labels",
            commands=("{train}", 'nnunet_ext review "{model}" -d {number} -o review'),
            is_baseline=True,
        ),
        Advice(
            TRAINER,
            lambda facts: facts.is_dense and facts.wrong_labels and facts.has_regions,
            why="Stock nnU-Net is the baseline that all else must beat.",
            evidence="Hearts, 64 patients, errors in a fifth of the labels, 5 seeds, 4,000 steps: Dice 0.861.",
            verdict="not shown",
            results="docs/techniques/noisy-labels.md#results",
            is_baseline=True,
        ),
        Advice(
            TRAINER,
            lambda facts: facts.is_dense and not facts.is_few_dense and not facts.wrong_labels,
            why="Many dense cases are what stock nnU-Net is made for. Expect little from anything in this package.",
            evidence="Hippocampus, 160 cases, one seed, 1,000 steps: Dice 0.833, with MixUp 0.838. Half of the tested "
            "cases have the other side of their brain in training.",
            verdict="not shown",
            results="docs/techniques/mixup.md#results",
            is_baseline=True,
        ),
    ),
)
