"""Does what an experiment declares: datasets, plans, learning rates, trainings and their scores, each step once."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import pandas as pd

from benchmarks.engine.experiment import Dataset, Draw, Experiment, Method, Test, Training
from benchmarks.engine.journal import ANEW, Journal, NotDone, OutOfTime
from benchmarks.engine.pilots import Pilots
from nnunet_ext.errors import UserError
from nnunet_ext.evaluation.scores_table import SCORES, read_scores
from nnunet_ext.files import write_json
from nnunet_ext.formats.splits import Fold, read_splits
from nnunet_ext.nnunet_names import FINAL, PLANS, SPLITS
from nnunet_ext.plans.plans_file import read_plans

CHECKPOINTS = "checkpoint_*.pth"
CONV_KWARGS = ("features_per_stage", "kernel_sizes", "strides", "n_conv_per_stage", "n_blocks_per_stage")


class Runner:
    """The steps of an experiment, in an order in which each has what it needs."""

    def __init__(self, experiment: Experiment, journal: Journal, device: str) -> None:
        self.experiment, self.journal, self.device = experiment, journal, device
        self.out = journal.folder
        self.pilots = Pilots(self)
        self.on_scored: Callable[[], object] = lambda: None
        """What is called when a model has been scored."""

    @cached_property
    def _checking(self) -> Runner:
        """One that does nothing, but sees that what has been done is what is declared now."""
        checking = Runner(self.experiment, self.journal.only_checking(), self.device)
        checking.pilots = self.pilots  # what is missing there has to be done
        return checking

    def run(self, *, at_once: int = 1, methods: Sequence[str] = ()) -> None:
        """Do everything that is missing; what depends on a step that fails is left out.

        Args:
            at_once: trainings at a time.
            methods: names of those that are trained now, with what they need; none for all.

        Raises:
            OutOfTime: if a step was not begun because the time is over.
            UserError: if there is no method of a name.
        """
        tasks = [partial(self.finish, training) for training in self.experiment.in_running_order(methods)]
        if not self.experiment.seeds:  # the search is all there is
            tasks += [partial(self.search, *search) for search in self.experiment.searches()]
        pool = ThreadPoolExecutor(at_once)
        try:
            for result in [pool.submit(task) for task in tasks]:
                result.result()
        except OutOfTime:
            raise  # what has been begun comes to its end
        except BaseException:
            self.journal.children.stop()
            raise
        finally:
            pool.shutdown(cancel_futures=True)

    def finish(self, training: Training) -> None:
        """Train a model and score it by all tests; one without a test is trained when another one needs it."""
        if tests := [test for test in self.experiment.tests if test.takes(training.method)]:
            with suppress(NotDone):
                self.score(training, tests)

    def score(self, training: Training, tests: Sequence[Test]) -> None:
        """Train a model and score it, unless it has been scored: then see that it was what is declared now.

        So a model that has been scored elsewhere, and is not here, is trained again only where another one needs it.
        """
        is_scored = all(self.is_scored(training, test) for test in tests)
        runner = self._checking if is_scored and not self.journal.is_dry else self
        runner.train(training)
        for test in tests:
            runner.evaluate(training, test)
        if not (is_scored or self.journal.is_dry):
            self.on_scored()

    def search(self, method: Method, steps: int) -> None:
        """Find the learning rate of a method that has none of its own."""
        if method.lr is None:
            with suppress(NotDone):
                self.pilots.chosen_lr(method, steps)

    def run_command(self, name: str, *command: str, declared: str = "") -> None:
        """Do a step that is a command; `declared` is as of `Journal.do`."""
        self.journal.do(name, lambda: command, declared=declared)

    # ------------------------------------------------------------------ data

    def raw(self, name: str) -> Path:
        """The raw dataset of a name."""
        return self.out / "nnUNet_raw" / name

    def preprocessed(self, name: str) -> Path:
        """The preprocessed dataset of a name."""
        return self.out / "nnUNet_preprocessed" / name

    def make(self, dataset: Dataset, training: Training) -> None:
        """Write the raw dataset and its folds."""
        name = dataset.name_for(training)
        teacher = None if dataset.teacher is None else training.of(dataset.teacher)
        if teacher is not None:
            self.train(teacher)
        decided_by = next((test.decided_by for test in self.experiment.tests if test.decided_by), "")
        threshold = self.pilots.chosen_threshold(teacher, decided_by) if teacher and decided_by else None
        draw = Draw(training.seed, training.fold, self.model(teacher) if teacher else None, self.device, threshold)

        def write() -> Sequence[str] | None:
            shutil.rmtree(self.raw(name), ignore_errors=True)  # what an interrupted step has left
            return dataset.make(self.raw(name), draw)

        self.journal.do(f"make_{name}", write, shown=f"write {name}", declared=dataset.made_by)
        self.journal.do(
            f"folds_{name}",
            lambda: self.write_folds(dataset, name),
            shown=f"write the folds of {name}",
            check=lambda: self.check_folds(dataset, name),
        )

    def folds_of(self, dataset: Dataset) -> list[Fold]:
        """The folds that are declared for a dataset."""
        return (dataset.folds or self.experiment.folds)(self.experiment.sizes, self.experiment.all_seeds)

    def check_folds(self, dataset: Dataset, name: str) -> None:
        """See that the folds that are there are those that are declared now; add what was declared behind them.

        Raises:
            UserError: if a fold is another one. A training is known by the number of its fold, and a seed that is added
                moves the folds of all sizes behind it.
        """
        file = self.preprocessed(name) / SPLITS
        if not file.is_file():  # removed after all was scored
            return
        there, declared = read_splits(file), self.folds_of(dataset)
        both = min(len(there), len(declared))
        if there[:both] != declared[:both]:
            number = next(number for number in range(both) if there[number] != declared[number])
            raise UserError(
                f"{file}: fold {number} has other cases than the experiment says now, as after a change of its sizes, "
                f"seeds or groups. {ANEW}"
            )
        if len(declared) > len(there) and not self.journal.is_dry:
            self.write_folds(dataset, name)

    def write_folds(self, dataset: Dataset, name: str) -> None:
        """Write splits_final.json, also where a dataset that is only predicted is looked for."""
        folds = self.folds_of(dataset)
        self.preprocessed(name).mkdir(exist_ok=True)
        for folder in (self.raw(name), self.preprocessed(name)):
            write_json(folder / SPLITS, folds)
        shutil.copyfile(self.raw(name) / "dataset.json", self.preprocessed(name) / "dataset.json")

    def prepare(self, dataset: Dataset, training: Training) -> None:
        """Write, plan and preprocess what a training learns from."""
        if dataset.plans_of is not None:
            self.prepare(dataset.plans_of, training)
        self.make(dataset, training)
        name, number, network = dataset.name_for(training), str(dataset.number_for(training)), self.experiment.network
        workers = os.environ.get("nnUNet_def_n_proc", "8")  # nnU-Net's own default
        planned = ["-d", number, "-c", network.configuration]
        shown = f"{network.name} gets {json.dumps(dict(network.changes))}, {network.stages} stages"
        wider = f"features times {dataset.width:g}"
        declared = f"{shown}, {wider}"  # of the plans, too, as a network without a change has no step that says so
        if dataset.plans_of is None:
            self.run_command(
                f"plan_{name}", "nnUNetv2_plan_and_preprocess", *planned, "-npfp", workers, "--no_pp", declared=declared
            )
            if network.preset:
                self.run_command(f"preset_{name}", "nnunet_ext", "plan", *planned, "--preset", network.preset)
            if network.changes or network.stages:
                file = self.preprocessed(name) / f"{PLANS}.json"
                self.journal.do(f"change_{name}", lambda: self.change_network(file), shown=shown)
        else:
            move = ["nnUNetv2_move_plans_between_datasets", "-s", str(dataset.plans_of.number_for(training))]
            self.run_command(f"plan_{name}", *move, "-t", number, "-sp", PLANS, "-tp", PLANS, declared=declared)
            fingerprint = f"{dataset.plans_of.name_for(training)}/dataset_fingerprint.json"

            def copy() -> None:
                shutil.copy(self.preprocessed(fingerprint), self.preprocessed(name))

            self.journal.do(f"fingerprint_{name}", copy, shown=f"copy {fingerprint}")
            if dataset.width != 1:
                own, origin = (
                    self.preprocessed(one) / f"{PLANS}.json" for one in (name, dataset.plans_of.name_for(training))
                )
                self.journal.do(f"widen_{name}", lambda: self.widen(own, origin, dataset.width), shown=wider)
        preprocess = ["nnUNetv2_preprocess", "-d", number, "-plans_name", PLANS, "-c", network.name, "-np", workers]
        self.run_command(f"preprocess_{name}", *preprocess)

    def change_network(self, plans_file: Path) -> None:
        """Give the configuration another patch, spacing or depth."""
        network, plans = self.experiment.network, read_plans(plans_file)
        chosen = plans["configurations"][network.name]
        chosen.update(network.changes)
        if network.stages:
            kwargs = chosen["architecture"]["arch_kwargs"]
            kwargs.update({key: kwargs[key][: network.stages] for key in CONV_KWARGS if key in kwargs})
            decoder = kwargs["n_conv_per_stage_decoder"][: network.stages - 1]
            kwargs.update(n_stages=network.stages, n_conv_per_stage_decoder=decoder)
        write_json(plans_file, plans)

    def widen(self, plans_file: Path, origin: Path, width: float) -> None:
        """Give each stage of the network as many features as in the original plans, times `width`."""
        plans, name = read_plans(plans_file), self.experiment.network.name
        wide, narrow = (
            content["configurations"][name]["architecture"]["arch_kwargs"] for content in (plans, read_plans(origin))
        )
        wide["features_per_stage"] = [round(width * features) for features in narrow["features_per_stage"]]
        write_json(plans_file, plans)

    # ------------------------------------------------------------------ trainings

    def model(self, training: Training) -> Path:
        """nnU-Net's folder of a model."""
        folder = f"{training.method.trainer}__{PLANS}__{training.name}"
        return self.out / "nnUNet_results" / training.dataset / folder

    def checkpoint(self, training: Training) -> Path:
        """The final checkpoint of a training."""
        return self.model(training) / f"fold_{training.fold}" / FINAL

    def settings(self, training: Training, lr: float) -> dict[str, Any]:
        """The settings of a training, those of its method last."""
        epochs, method = training.epochs, training.method
        settings: dict[str, Any] = {
            "seed": training.seed,
            "initial_lr": lr,
            "num_epochs": epochs,
            "num_iterations_per_epoch": min(self.experiment.steps_in_epoch, training.steps),
            "num_val_iterations_per_epoch": 1,  # nothing is chosen by the pseudo Dice that it is for
            "save_every": max(1, epochs // 10),
            "memory_format": "channels_last",
            **self.experiment.settings,
            **method.settings,
        }
        if method.start and not method.start_by.startswith("-"):
            # a variable of nnU-Net's, so that the folder can be moved
            start = self.checkpoint(training.of(method.start)).relative_to(self.out / "nnUNet_results")
            settings[method.start_by] = f"$nnUNet_results/{start.as_posix()}"
        return {key: value(epochs) if callable(value) else value for key, value in settings.items()}

    def train(self, training: Training) -> None:
        """Train a model, and before it whatever it needs."""
        method, number = training.method, str(training.method.data.number_for(training))
        self.prepare(method.data, training)
        start = None if method.start is None else training.of(method.start)
        if start is not None:
            self.train(start)
        if method.command is not None:
            shown = f"make {training.name}"
            self.journal.do(f"train_{training.name}", lambda: self.made_by_command(training, start), shown=shown)
            return
        settings = self.settings(training, self.lr_of(training))
        configure = ["nnunet_ext", "configure", "-d", number, "-c", self.experiment.network.name]
        configure += ["--name", training.name, *assignments(settings)]
        self.run_command(f"configure_{training.name}", *configure)
        train = ["nnUNetv2_train", number, training.name, str(training.fold), "-tr", method.trainer]
        train += ["-p", PLANS, "-device", self.device]
        if start is not None and method.start_by.startswith("-"):
            train += [method.start_by, str(self.checkpoint(start))]
        if any(self.checkpoint(training).parent.glob(CHECKPOINTS)):
            train.append("--c")
        self.run_command(f"train_{training.name}", *train)

    def made_by_command(self, training: Training, start: Training | None) -> Sequence[str]:
        """The command that makes a model from its start, whose network it has."""
        assert start is not None, f"{training.method.name}: a command needs a start"
        assert training.method.command is not None
        self.checkpoint(training).parent.mkdir(parents=True, exist_ok=True)
        for file in ("dataset.json", "plans.json"):
            shutil.copy(self.model(start) / file, self.model(training))
        return training.method.command(self.checkpoint(start), self.checkpoint(training))

    # ------------------------------------------------------------------ learning rates

    def lr_of(self, training: Training) -> float:
        """The learning rate: that of the pilot's trial, the method's own, the one that was chosen, or the only one."""
        if training.lr is not None:
            return training.lr
        if training.method.lr is not None:
            return training.method.lr
        if self.experiment.pilot is not None:
            piloted = self.experiment.piloting(training)
            return self.pilots.chosen_lr(piloted, self.experiment.pilot.steps or training.steps)
        assert self.experiment.lr is not None
        return self.experiment.lr

    # ------------------------------------------------------------------ scores

    def evaluation(self, training: Training, test: Test) -> Path:
        """The folder of an evaluation."""
        return self.out / "evaluations" / evaluation_name(training, test).removeprefix("evaluate_")

    def is_scored(self, training: Training, test: Test) -> bool:
        """Whether a model has been scored, here or elsewhere."""
        return self.journal.is_finished(evaluation_name(training, test))

    def scores(self, training: Training, test: Test) -> pd.DataFrame:
        """The scores table of an evaluation that is finished."""
        return read_scores(self.evaluation(training, test) / SCORES)

    def evaluate(self, training: Training, test: Test) -> None:
        """Score a model."""
        dataset = test.data or training.method.data
        self.make(dataset, training)
        command = ["nnunet_ext", "evaluate", str(self.model(training)), "-f", str(training.fold)]
        command += ["--on", f"{dataset.number_for(training)}:{test.cases}", "--metrics", *test.metrics]
        command += ["--labels", test.references] if test.references else []
        if test.decided_by:
            command += ["--threshold", f"{self.pilots.chosen_threshold(training, test.decided_by):g}"]
        # intervals are over the seeds, too; on few cores, starting a process takes longer than scoring
        command += [*test.options, "--bootstrap", "0", "--workers", "1", "--disable-tta", "--device", self.device]
        command += ["-o", str(self.evaluation(training, test))]
        self.run_command(evaluation_name(training, test), *command)


def evaluation_name(training: Training, test: Test) -> str:
    """The name of the step."""
    return f"evaluate_{training.name}__{test.name.replace(' ', '_')}"


def assignments(settings: Mapping[str, Any]) -> list[str]:
    """Settings as ``nnunet_ext configure`` takes them: JSON, but plain words without quotes."""
    shown = {k: v if isinstance(v, str) else json.dumps(v, separators=(",", ":")) for k, v in settings.items()}
    return [f"{key}={value}" for key, value in shown.items()]
