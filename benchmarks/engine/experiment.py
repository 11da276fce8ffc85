"""What an experiment is: data, folds, methods with settings, lengths, tests and comparisons. Nothing here runs."""

from __future__ import annotations

import importlib
import re
import runpy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import Any, Literal

from nnunet_ext.errors import UserError
from nnunet_ext.evaluation.metrics import METRICS
from nnunet_ext.formats.splits import Fold

Folds = Callable[[Sequence[int | None], Sequence[int]], list[Fold]]
"""Takes sizes and seeds; returns the pilot's fold, then for each size one for each seed."""

PILOT_FOLD = 0


@dataclass(frozen=True)
class Draw:
    """For which training a dataset is made."""

    seed: int  # of the training
    fold: int  # of the training
    model: Path | None  # folder of the teacher's model; None without a teacher
    device: str  # that the experiment runs on
    threshold: float | None = None  # the probability at which the teacher decides; None for nnU-Net's own decision


@dataclass(frozen=True, eq=False)
class Dataset:
    """A dataset that the experiment makes in its own nnUNet_raw."""

    number: int  # nnU-Net's id
    title: str  # the rest of nnU-Net's name
    # writes the dataset to a folder, or returns the command that does
    make: Callable[[Path, Draw], Sequence[str] | None]
    folds: Folds | None = None  # where they are not the experiment's
    # a dataset whose plans it takes over, so that both get the same network and patches
    plans_of: Dataset | None = None
    width: float = 1.0  # factor of the features in each stage of the network that it takes over
    per_seed: bool = False  # whether each seed has a dataset of its own, under `number` + seed
    # a method whose model of the same seed and size labels the dataset, under `number` + fold
    teacher: Method | None = None

    @property
    def made_by(self) -> str:
        """What `make` is and what the declaration gives it, as text that is the same in each process."""
        return re.sub(r" at 0x[0-9a-fA-F]+", "", repr(self.make))

    def number_for(self, training: Training) -> int:
        """nnU-Net's id of the dataset for a training."""
        if self.teacher is None:
            return self.number + (training.seed if self.per_seed else 0)
        number, experiment = self.number + training.fold, training.experiment
        if training.is_pilot and training.seed:  # the pilot's trainings share a fold, and each has its own teacher
            number += len(experiment.sizes) * len(experiment.all_seeds) + training.seed
        return number

    def name_for(self, training: Training) -> str:
        """nnU-Net's name of the dataset for a training."""
        return f"Dataset{self.number_for(training):03d}_{self.title}"


@dataclass(frozen=True, eq=False)
class Method:
    """A way to come to a model."""

    name: str  # in the results
    trainer: str  # class name
    data: Dataset  # what it is trained on
    # beside those of the experiment; a function takes the number of epochs
    settings: Mapping[str, Any] = field(default_factory=dict)
    description: str = ""  # for the results
    family: str = ""  # methods of a family share the learning rate that its first method chooses (default: the name)
    lr: float | None = None  # a fixed learning rate, which needs no pilot
    steps: tuple[int, ...] = ()  # lengths, where they are not the experiment's
    sizes: tuple[int | None, ...] = ()  # numbers of training cases, where they are not all of the experiment's
    seeds: tuple[int, ...] = ()  # where they are not all of the experiment's
    # method whose model of the same seed and size, or of its only size, is trained first and is the start
    start: Method | None = None
    # how the start is given: an option of ``nnUNetv2_train``, or the name of a setting
    start_by: str = "-pretrained_weights"
    is_shared: bool = False  # whether one model, of seed 0 and the first fold of its data, serves all seeds and sizes
    is_scored: bool = True  # whether the tests are made; a mere start may do without
    labels: tuple[str, ...] = ()  # those that it is scored by; all by default
    part_of: str = ""  # name of the run in the results, where several methods with labels of their own make up one
    # makes the model from the start's checkpoint, given the path to write to, in place of a training
    command: Callable[[Path, Path], Sequence[str]] | None = None

    @property
    def slug(self) -> str:
        """The name as part of the names of files and configurations."""
        return re.sub(r"[^a-z0-9.]+", "_", self.name.lower()).strip("_")

    @property
    def family_name(self) -> str:
        """What the learning rate is chosen for."""
        return self.family or self.name


@dataclass(frozen=True)
class Test:
    """What models are scored on."""

    __test__ = False

    name: str = "test"  # in the results, in the column ``dataset``
    data: Dataset | None = None  # the dataset; None for that of the training
    cases: str = "val"  # ``val`` of the training's fold, ``test`` or ``all``
    references: str = ""  # folder of the dataset with the references, if not nnU-Net's own
    metrics: tuple[str, ...] = ("dice",)  # for ``nnunet_ext evaluate``
    options: tuple[str, ...] = ()  # further ones
    # ``voxel`` or ``lesion``: the F1 of these in the pilot's test, which needs ``--thresholds``, chooses the threshold
    # of the probability that each method is scored at; nnU-Net's own decision by default
    decided_by: str = ""
    methods: tuple[str, ...] = ()  # names of those that are scored on it; all by default

    @property
    def has_curve(self) -> bool:
        """Whether precision and recall are measured at many thresholds."""
        return "--thresholds" in self.options

    @property
    def level(self) -> str:
        """What precision and recall are of."""
        return "lesion" if "lesions" in self.metrics else "voxel"

    def takes(self, method: Method) -> bool:
        """Whether a method is scored on it."""
        return method.is_scored and (not self.methods or method.name in self.methods)


@dataclass(frozen=True)
class Pilot:
    """How learning rates are chosen: for each family, length by length, on cases that are in no test.

    The search begins at `first` and goes on to the neighbours of the best rate, until none is better: so the best one
    is not at the edge of what was tried. Where it is at the end of `rates`, the results say so.
    """

    # from the smallest to the largest
    rates: tuple[float, ...] = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3, 1.0, 3.0)
    first: float | Mapping[str, float] = 3e-3  # by family, or one for all
    seeds: tuple[int, ...] = (0,)  # each rate's score is the mean over them
    test: Test | None = None  # what is scored; by default the experiment's first test
    metric: str = "dice"  # the mean over cases and labels chooses
    # ``voxel`` or ``lesion``: in place of the metric, the F1 of these at the best threshold; needs ``--thresholds``
    level: str = ""
    steps: int | None = None  # length of the pilot's trainings; by default as long as the trainings that it is for

    def first_for(self, family: str) -> float:
        """The rate that is tried first."""
        return self.first if isinstance(self.first, float) else self.first[family]


@dataclass(frozen=True)
class Comparison:
    """One method beside another: the difference in a metric, pair by pair."""

    ours: str  # name of a method
    theirs: str  # name of the one it is compared with
    metric: str = "dice"  # in the scores table
    test: str = ""  # name of the test; the first by default
    margin: float = 0.0  # the least gain that counts, in the metric's unit or, if `is_relative`, as a share of theirs
    is_relative: bool = False  # see `margin`
    is_primary: bool = False  # whether it decides; Holm's correction is over the primary ones
    size: int | None | Literal["first"] = "first"  # of both trainings; None for all cases
    steps: tuple[int, int] | None = None  # of ours and theirs; the first of each by default


@dataclass(frozen=True)
class TradeOff:
    """What methods gain on one test and keep on another, drawn as curves; one curve is compared with another.

    Compared is the most that is kept where as much is gained: the highest figure on the second test of all models on
    the curve that reach on the first one what both of the curves' last models reach. Models between two neighbours of a
    curve are taken to lie on the straight line between their figures.
    """

    gained: str  # name of the test on which the last models are best
    kept: str  # name of the test on which the first ones are
    curves: Mapping[str, tuple[str, ...]]  # by name the methods of each, from the one that keeps most
    ours: str  # name of a curve
    theirs: str  # name of the one it is compared with; the comparison is a primary one
    metric: str = "dice"  # of both tests

    @property
    def comparison(self) -> Comparison:
        """What is compared, which is primary."""
        test = f"{self.kept} at equal {self.gained}"
        return Comparison(self.ours, self.theirs, self.metric, test, is_primary=True)


@dataclass(frozen=True)
class Network:
    """Which configuration is trained."""

    configuration: str = "3d_fullres"  # that nnU-Net plans
    preset: str = "quick"  # of ``nnunet_ext plan``; empty for the planned configuration itself
    # of its content, such as ``patch_size``; another spacing needs a ``data_identifier`` of its own
    changes: Mapping[str, Any] = field(default_factory=dict)
    stages: int | None = None  # the network is cut to so many; None for all

    @property
    def name(self) -> str:
        """Of the configuration that the trainings inherit from."""
        return f"{self.configuration}_{self.preset}" if self.preset else self.configuration


@dataclass(frozen=True)
class Training:
    """One training, or what takes its place."""

    experiment: Experiment  # that it belongs to
    method: Method  # how
    seed: int  # of the draw of cases and of the training
    size: int | None  # training cases (patients) of the fold; None for all
    steps: int  # how many
    lr: float | None = None  # what a training of the pilot tries; None outside of the pilot
    is_pilot: bool = False  # whether it is of the pilot, or the start of one that is

    @property
    def fold(self) -> int:
        """Of splits_final.json."""
        if self.is_pilot or self.method.is_shared:
            return PILOT_FOLD
        sizes, seeds = self.experiment.sizes, self.experiment.all_seeds
        return 1 + sizes.index(self.size) * len(seeds) + seeds.index(self.seed)

    @property
    def name(self) -> str:
        """Of its configuration, folders and steps."""
        parts = ["pilot" if self.is_pilot else "", self.method.slug, "" if self.size is None else f"n{self.size}"]
        parts += [f"{self.steps}steps", "" if self.lr is None else f"lr{self.lr:g}", f"s{self.seed}"]
        return "_".join(part for part in parts if part)

    @property
    def label(self) -> str:
        """Of its run in the scores table; trainings of several seeds are one run."""
        size = "" if self.size is None else f", n={self.size}"
        pilot = f", pilot lr={self.lr:g}" if self.lr is not None else ""
        return f"{self.method.part_of or self.method.name}{size}, {self.steps} steps{pilot}"

    @property
    def epochs(self) -> int:
        """How many epochs the steps are."""
        return max(1, round(self.steps / self.experiment.steps_in_epoch))

    @property
    def dataset(self) -> str:
        """nnU-Net's name of what it is trained on."""
        return self.method.data.name_for(self)

    def of(self, method: Method) -> Training:
        """The training of another method, a start or a teacher, for this one."""
        if method.is_shared:
            return Training(self.experiment, method, 0, None, self.experiment.steps_of(method)[0])
        has_size = self.is_pilot or not method.sizes or self.size in method.sizes
        size = self.size if has_size else method.sizes[0]
        return replace(self, method=method, size=size, steps=self.experiment.steps_of(method)[0], lr=None)


@dataclass(frozen=True, eq=False)
class Experiment:
    """A comparison of methods."""

    name: str  # of the results' files
    title: str  # of the results
    description: str  # what is learned from what, for the results
    originals: tuple[str, ...]  # datasets of the user's nnUNet_raw
    folds: Folds  # who is trained on and tested
    methods: tuple[Method, ...]  # in the order in which they are trained
    tests: tuple[Test, ...] = (Test(),)  # what each model is scored on
    comparisons: tuple[Comparison, ...] = ()  # which differences are asked about
    trade_off: TradeOff | None = None  # of two tests
    network: Network = Network()  # which configuration is trained
    seeds: tuple[int, ...] = (0, 1, 2)  # of draws and trainings
    more_seeds: tuple[int, ...] = ()  # further ones, for what the primary comparisons need
    sizes: tuple[int | None, ...] = (None,)  # numbers of training cases (patients); None for all
    steps: tuple[int, ...] = (1000,)  # lengths of the trainings
    steps_in_epoch: int = 50  # nnU-Net's iterations in an epoch
    lr: float | None = None  # learning rate without a pilot
    pilot: Pilot | None = None  # how learning rates are chosen; None takes `lr`
    settings: Mapping[str, Any] = field(default_factory=dict)  # of all trainings
    patient_of: Callable[[str], str] = str  # the patient of a case
    columns: tuple[tuple[str, str], ...] = ()  # test and metric of each column of the table; all tests' Dice by default

    def __post_init__(self) -> None:
        names = [method.name for method in self.methods]
        runs = {*names, *(method.part_of for method in self.methods)}
        unknown = {name for one in self.comparisons for name in (one.ours, one.theirs)} - runs
        unknown |= {name for test in self.tests for name in test.methods} - set(names)
        if self.trade_off is not None:
            unknown |= {name for curve in self.trade_off.curves.values() for name in curve} - set(names)
            unknown |= {self.trade_off.ours, self.trade_off.theirs} - set(self.trade_off.curves)
        metrics = {*(one.metric for one in self.comparisons), *(metric for _, metric in self.columns)}
        if self.pilot is not None:
            metrics.add(self.pilot.metric)
        if metrics := metrics - {metric.name for metric in METRICS}:
            raise UserError(f"{self.name}: there is no metric {', '.join(sorted(metrics))}.")
        distances = {metric.name for metric in METRICS if metric.better == "lower"}
        if self.pilot is not None and not self.pilot.level and self.pilot.metric in distances:
            raise UserError(
                f"{self.name}: a pilot by {self.pilot.metric} would prefer rates that miss labels. Use Dice."
            )
        has_curves = any(test.has_curve for test in self.tests)
        if has_curves and any(method.part_of or method.labels for method in self.methods):
            raise UserError(f"{self.name}: curves are of whole models; leave out --thresholds, or part_of and labels.")
        asks_points = self.pilot is not None and (self.pilot.level or any(test.decided_by for test in self.tests))
        if asks_points and not self.pilot_test.has_curve:
            raise UserError(f"{self.name}: the test of the pilot needs --thresholds to choose one.")
        if unknown or len({method.slug for method in self.methods}) < len(names):
            raise UserError(f"{self.name}: methods must have names of their own; unknown: {sorted(unknown)}.")
        if self.pilot is None and any(one.lr is None for one in self.methods) and self.lr is None:
            raise UserError(f"{self.name}: give lr or a pilot.")

    @property
    def all_seeds(self) -> tuple[int, ...]:
        """In the order of the folds."""
        return (*self.seeds, *self.more_seeds)

    def steps_of(self, method: Method) -> tuple[int, ...]:
        """The lengths of a method's trainings."""
        return method.steps or self.steps

    def trainings(self) -> Iterator[Training]:
        """The trainings that are compared: the first size and length first, one whole seed after another."""
        own = [method for method in self.methods if not method.is_shared]
        ranks = range(max((len(self.steps_of(method)) for method in own), default=0))
        deciding = self.deciding_runs()
        for rank, size, seed, method in product(ranks, self.sizes, self.all_seeds, own):
            for steps in self.steps_of(method)[rank : rank + 1] if size in (method.sizes or self.sizes) else ():
                training = Training(self, method, seed, size, steps)
                if seed in (method.seeds or self.seeds) or (seed in self.more_seeds and training.label in deciding):
                    yield training

    def all_trainings(self) -> list[Training]:
        """The trainings that serve all seeds, then the others."""
        shared = [Training(self, one, 0, None, self.steps_of(one)[0]) for one in self.methods if one.is_shared]
        return [*shared, *self.trainings()]

    @property
    def pilot_test(self) -> Test:
        """What the pilot's trainings are scored on."""
        return self.pilot.test if self.pilot and self.pilot.test else self.tests[0]

    def trials(self, method: Method, steps: int, lr: float) -> list[Training]:
        """The trainings of the pilot that try a learning rate, one for each of its seeds."""
        seeds = self.pilot.seeds if self.pilot else ()
        return [Training(self, method, seed, None, steps, lr=lr, is_pilot=True) for seed in seeds]

    def searches(self) -> Iterator[tuple[Method, int]]:
        """The methods and lengths that learning rates may have been searched for."""
        for method in self.methods if self.pilot else ():
            own = self.pilot and self.pilot.steps
            yield from ((method, steps) for steps in ((own,) if own else self.steps_of(method)))

    def scorings(self) -> Iterator[tuple[Training, list[Test]]]:
        """What may be scored, with the tests of each: the pilot's trainings first."""
        for search, lr in product(self.searches(), self.pilot.rates if self.pilot else ()):
            yield from ((trial, [self.pilot_test]) for trial in self.trials(*search, lr))
        for training in self.all_trainings():
            if tests := [test for test in self.tests if test.takes(training.method)]:
                yield training, tests

    def piloting(self, training: Training) -> Method:
        """The method that chooses the learning rate for a training: the first of its family."""
        family = training.method.family_name
        return next((one for one in self.methods if one.family_name == family), training.method)

    def primary_comparisons(self) -> list[Comparison]:
        """Those that decide, the trade-off among them."""
        return [
            *(one for one in self.comparisons if one.is_primary),
            *([] if self.trade_off is None else [self.trade_off.comparison]),
        ]

    def check_methods(self, names: Sequence[str]) -> None:
        """Raise a UserError if one of the names is no method's."""
        known = [one.name for one in self.methods]
        if unknown := [name for name in names if name not in known]:
            raise UserError(f"{self.name} has no method {unknown[0]!r}. Choose one of {', '.join(map(repr, known))}.")

    def test_named(self, name: str = "") -> Test:
        """The test of this name, the first one without; a UserError if there is none."""
        found = [one for one in self.tests if name in ("", one.name)]
        if not found:
            known = ", ".join(repr(one.name) for one in self.tests)
            raise UserError(f"{self.name} has no test {name!r}. Choose one of {known or 'none: it only searches'}.")
        return found[0]

    def in_running_order(self, methods: Sequence[str] = ()) -> list[Training]:
        """The trainings, those that the primary comparisons need first, one whole seed of these after another.

        Args:
            methods: names of those whose trainings are wanted; none for all.
        """
        self.check_methods(methods)
        deciding, seeds = self.deciding_runs(), self.all_seeds

        def rank(training: Training) -> tuple[int, int]:
            return (0, seeds.index(training.seed)) if training.label in deciding else (1, 0)

        wanted = [one for one in self.all_trainings() if not methods or one.method.name in methods]
        return sorted(wanted, key=rank)

    def deciding_runs(self) -> set[str]:
        """The runs that the primary comparisons need."""
        runs = {run for one in self.comparisons if one.is_primary for run in self.runs_of(one)}
        if asked := self.trade_off:
            runs |= {self.run_of(name) for curve in (asked.ours, asked.theirs) for name in asked.curves[curve]}
        return runs

    def runs_of(self, comparison: Comparison) -> tuple[str, str]:
        """The runs in the scores table that are compared: ours and theirs."""
        ours, theirs = comparison.steps or (None, None)
        size = comparison.size
        return self.run_of(comparison.ours, size, ours), self.run_of(comparison.theirs, size, theirs)

    def run_of(self, name: str, size: int | None | Literal["first"] = "first", steps: int | None = None) -> str:
        """The run of a method in the scores table: of its first size and length, if no others are given."""
        method = next(one for one in self.methods if name in (one.name, one.part_of))
        chosen = (method.sizes or self.sizes)[0] if size == "first" else size
        return Training(self, method, 0, None if method.is_shared else chosen, steps or self.steps_of(method)[0]).label


def load_experiment(name: str) -> Experiment:
    """The experiment of a name in ``benchmarks/experiments``, or of a Python file that defines ``EXPERIMENT``.

    Raises:
        UserError: if there is none.
    """
    if name in experiment_names():
        found = importlib.import_module(f"benchmarks.experiments.{name}").EXPERIMENT
    elif not name.endswith(".py"):
        raise UserError(f"{name} is no experiment. There are: {', '.join(experiment_names())}; or give a .py file.")
    elif not Path(name).is_file():
        raise UserError(f"{name} is not a Python file.")
    else:
        found = runpy.run_path(name).get("EXPERIMENT")
    if not isinstance(found, Experiment):
        raise UserError(f"{name} defines no EXPERIMENT.")
    return found


def experiment_names() -> list[str]:
    """Those that are declared here."""
    folder = Path(__file__).parents[1] / "experiments"
    return sorted(path.stem for path in folder.glob("*.py") if path.stem != "__init__")
