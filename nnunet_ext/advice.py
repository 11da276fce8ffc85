"""What a technique says of itself for ``nnunet_ext advise``, and what it is told of a dataset."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

Verdict = Literal["better", "mixed", "not shown", "not measured", "worse"]
VERDICTS: tuple[Verdict, ...] = ("better", "mixed", "not shown", "not measured", "worse")
"""What was measured of a technique against the simplest baseline, in the order in which advice is given."""

FEW = 20
"""Up to how many dense cases are few: a rule of thumb, which nothing here was measured for."""


@dataclass(frozen=True)
class Facts:
    """What is seen of a raw dataset, beyond its names.

    Attributes:
        dense: cases in which every voxel is annotated for every label, or in which the ignore label marks the unknown
            part of an annotated image.
        scribbled: cases of which less than half of the voxels is annotated, not by whole slices.
        sliced: cases of which some slices are annotated in full, and the others not.
        partial: cases that dataset.json lists as annotated for some of the labels.
        unlabelled: cases without any annotation.
        placeholders: whether these are all cases, with placeholders that ``nnunet_ext unlabelled`` wrote as labels.
        patients: number of patients; None if nothing says which cases are of one patient.
        shape: median shape of the cases in voxels, (Z, Y, X); 2D images have Z = 1.
        labels: number of labels or regions but background and ignore.
        has_regions: whether there are regions.
        instances: median number of connected components of a label in a case that has it.
        missing_instances: whether instances are known to be missing in the labels.
        wrong_labels: whether some labels are known to be wrong.
        priors: cases with a prior scan; None if the dataset has no channels for one.
        has_prior_labels: whether labels of the prior scan are among the channels.
    """

    dense: int = 0
    scribbled: int = 0
    sliced: int = 0
    partial: int = 0
    unlabelled: int = 0
    placeholders: bool = False
    patients: int | None = None
    shape: tuple[int, ...] = (1, 1, 1)
    labels: int = 1
    has_regions: bool = False
    instances: float = 0
    missing_instances: bool = False
    wrong_labels: bool = False
    priors: int | None = None
    has_prior_labels: bool = False

    @property
    def cases(self) -> int:
        return self.dense + self.scribbled + self.sliced + self.partial + self.unlabelled

    @property
    def all_have_prior_labels(self) -> bool:
        """Whether every case has a prior scan with its labels."""
        return self.has_prior_labels and self.priors == self.cases

    @property
    def is_dense(self) -> bool:
        """Whether every case is dense, without a prior scan, and nothing is known to be missing."""
        return 0 < self.dense == self.cases and self.priors is None and not self.missing_instances

    @property
    def is_few_dense(self) -> bool:
        """Whether that holds for few cases."""
        return self.is_dense and self.dense <= FEW

    @property
    def is_mixed(self) -> bool:
        """Whether scribbled cases, or unlabelled ones beside partial ones, are to be learned from with others."""
        kinds = sum(map(bool, (self.dense, self.scribbled, self.partial, self.unlabelled)))
        return kinds > 1 and bool(self.scribbled or (self.partial and self.unlabelled))


@dataclass(frozen=True)
class Advice:
    """When a trainer is worth a try, and why.

    Attributes:
        trainer: its name; one of nnU-Net's for a baseline.
        applies: whether it is, for a dataset.
        why: the reason, in a sentence.
        evidence: what was measured: data, length, seeds, interval; or that nothing was.
        verdict: the same in a word. Baselines come first, whatever it is.
        results: where the results are, below the repository: ``page.md#heading``.
        commands: what is run before the training, and the training itself. ``{number}`` is the dataset's, ``{name}``
            its whole name, ``{base}`` the planned configuration and ``{c}`` the one to train, which may be a short
            one of ``{base}``; ``{plans}`` is an option that names the plans if they are not nnU-Net's usual ones,
            ``{p}`` their name, ``{device}`` an option that names the device if one is needed, ``{epochs}`` a setting of
            the number of epochs if it is not nnU-Net's. ``{train}`` is the usual training by this trainer, ``{model}``
            the folder that it writes.
        needs: what it needs that the dataset cannot tell; empty if nothing.
        when_short: settings of a training that is shorter than nnU-Net's; ``{third}`` is a third of its epochs.
        epochs: how many it trains where no setting says it; None for as many as nnU-Net.
        has_own_network: whether it trains the network of a source, and not that of the planned configuration.
        time: a step's time beside stock nnU-Net's; docs/benchmarks.md has the measurements.
        memory: peak memory beside stock nnU-Net's.
        is_baseline: whether everything else is compared with it.
        dataset: number of the dataset that it is trained on; empty if that is the one that was looked at.
    """

    trainer: str
    applies: Callable[[Facts], bool]
    why: str
    evidence: str
    verdict: Verdict
    results: str
    commands: Sequence[str] = ("{train}",)
    needs: str = ""
    when_short: str = ""
    epochs: int | None = None
    has_own_network: bool = False
    time: float = 1.0
    memory: float = 1.0
    is_baseline: bool = False
    dataset: str = ""
