"""The rounds of a self-training: commands of nnU-Net and of this package, one after the other, each done once."""

import os
import shlex
import socket
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from nnunet_ext.claims import Claim, holder
from nnunet_ext.errors import UserError
from nnunet_ext.evaluation.bootstrap import Estimate, Resampling, SeedScores
from nnunet_ext.evaluation.metrics import DICE
from nnunet_ext.evaluation.scores_table import SCORES, labels_with, read_scores, seed_scores
from nnunet_ext.files import read_json, write_json
from nnunet_ext.formats.own_key import KEY
from nnunet_ext.formats.plans import require
from nnunet_ext.formats.splits import read_splits
from nnunet_ext.formats.typed import read_typed
from nnunet_ext.jobs import sweep as jobs
from nnunet_ext.jobs.local import LocalJobs
from nnunet_ext.jobs.runs import run_training
from nnunet_ext.jobs.sweep import Resources, Sweep
from nnunet_ext.machine import FEW_CORES, available_cores
from nnunet_ext.nnunet_folders import dataset_number
from nnunet_ext.nnunet_names import SPLITS
from nnunet_ext.plans.plans_file import read_plans
from nnunet_ext.preprocessing.raw.raw_dataset import read_raw_dataset
from nnunet_ext.programs import CommandFailed, check_status, end_group, find_executable, output_tail, running
from nnunet_ext.pseudo_labels.datasets import TABLE
from nnunet_ext.registration import VARIABLE, extended_value
from nnunet_ext.self_training.checks import check_free
from nnunet_ext.self_training.state import Labelling, Round, State, best_round, why_stopped

FINGERPRINT = "dataset_fingerprint.json"


class SelfTraining:
    """A self-training in its folder, of which this process alone has the lock.

    Args:
        folder: absolute; it holds the state already.
        state: what is known so far.
        device: ``cpu``, ``cuda`` or ``mps``.
        most: rounds with a student, at most.
    """

    def __init__(self, folder: Path, state: State, *, device: str, most: int) -> None:
        self.folder, self.state, self.device, self.most = folder, state, device, most
        self.request = state.request
        self.raw, self.preprocessed, self.results = (
            Path(state.request.folders[f"nnUNet_{name}"]) for name in ("raw", "preprocessed", "results")
        )

    @property
    def best(self) -> Round:
        return best_round(self.state.rounds, self.request.margin)

    @property
    def reason(self) -> str:
        """Why it has stopped; empty as long as it has not."""
        return why_stopped(self.state.rounds, self.request.margin, self.most)

    def run(self, after_round: Callable[[], object]) -> None:
        """Run the rounds that are left; a `CommandFailed` says which command did not succeed."""
        self._end_what_was_left()
        while not self.reason:
            number = len(self.state.rounds)
            if number >= self.state.begun:
                check_free([self.request.first_id + number - 1] if number else [])
                self._remember(begun=number + 1)
            ended = self._round(number)
            self._remember(rounds=[*self.state.rounds, ended])
            after_round()

    def _remember(self, **changes: Any) -> None:
        self.state = replace(self.state, **changes)
        self.state.write(self.folder)

    def _round(self, number: int) -> Round:
        """Every step of a round that is not done yet."""
        request, dataset = self.request, self.request.dataset(number)
        if number == 0 and request.teacher is not None:
            begun = Round(0, "", request.teacher, request.teacher_folds)
        else:
            begun = Round(number, dataset, "", [request.fold])
            if number:
                begun = replace(begun, labelling=self._label(number, dataset))
                if begun.labelling is not None and begun.labelling.is_empty:
                    return begun
                self._preprocess(number, dataset)
            begun = replace(begun, model=str(self._train(number, dataset)))
        scores, labels, resampling = self._score(begun)
        parts = {name: SeedScores(scores.cases, scores.parts[:, [place]]) for place, name in enumerate(labels)}
        by_label = {name: resampling.estimate([part], DICE.statistic) for name, part in parts.items()}
        scored = replace(begun, dice=resampling.estimate([scores], DICE.statistic), by_label=by_label)
        if number == 0:
            return scored
        before = self.best.number
        difference = resampling.mean_difference([scores], [self.scores(before)], runs=(number, before))
        return replace(scored, difference=difference)

    def _label(self, number: int, dataset: str) -> Labelling:
        """Have the best model so far label the unlabelled cases; what came of it."""
        request, best = self.request, self.best
        command = ["nnunet_ext", "pseudo-label", best.model, "-d", request.unlabelled, "-o", dataset]
        command += ["--with", request.labelled, "-f", *map(str, best.folds), "--threshold", str(request.threshold)]
        command += [] if request.largest_component is None else ["--largest-component", request.largest_component]
        command += ["--least-share", str(request.least_share), "--device", self.device, *self._without_mirroring]
        # what an earlier try has left may be by other rules, as after an upgrade; it goes on if it is by the same
        command += ["--force"] if self._log(number, "label").is_file() else []
        # it takes its name when it is whole; a run may be killed before it remembers that
        is_done = (self.raw / dataset).is_dir()
        if is_done:
            self._check_own(self.raw / dataset, best)
        self._step(number, "label", command, is_done=is_done)
        return _read_table(self.raw / dataset / TABLE)

    def _check_own(self, folder: Path, teacher: Round) -> None:
        """Raise a UserError unless a dataset was labelled as this round asks: another run may have taken the id."""
        request = self.request
        asked = {
            "labelled_from": request.unlabelled,
            "with": request.labelled,
            "threshold": request.threshold,
            "least_share": request.least_share,
            "largest_component": request.largest_component,
            "model": {"folder": Path(teacher.model).name, "folds": teacher.folds, "mirroring": request.mirroring},
        }
        about = read_typed(dict[str, Any], folder / "dataset.json").get(KEY)
        found = dict(about) if isinstance(about, dict) else {}
        match found.get("models"):
            case [{"folder": name, "folds": folds, "mirroring": mirroring, **_rest}]:
                found["model"] = {"folder": name, "folds": folds, "mirroring": mirroring}
        if different := [f"{key} is {found.get(key)!r}" for key, value in asked.items() if found.get(key) != value]:
            raise UserError(
                f"{folder} was not made by this self-training: {'; '.join(different)}. Begin anew with another --id "
                "and folder."
            )

    def _preprocess(self, number: int, dataset: str) -> None:
        """Preprocess a round's dataset by the plans and with the folds of the labelled one."""
        request, target, origin = self.request, self.preprocessed / dataset, self.preprocessed / self.request.labelled
        cases = read_raw_dataset(dataset).cases
        labelled = read_raw_dataset(request.labelled).cases
        pseudo = [name for name in cases if name not in labelled]
        target.mkdir(exist_ok=True)
        if request.fold != "all":
            folds = read_splits(origin / SPLITS)
            write_json(target / SPLITS, [{**fold, "train": [*fold["train"], *pseudo]} for fold in folds])
        write_json(target / FINGERPRINT, read_json(origin / FINGERPRINT))  # the plans come from it
        write_json(target / "dataset.json", read_json(self.raw / dataset / "dataset.json"))
        source, new = dataset_number(request.labelled), dataset_number(dataset)
        move = ["nnUNetv2_move_plans_between_datasets", "-s", source, "-t", new, "-sp", request.plans]
        self._step(number, "plan", move)
        command = ["nnUNetv2_preprocess", "-d", new, "-plans_name", request.plans, "-c", request.configuration]
        few = ["-np", "2"] if available_cores() <= FEW_CORES else []
        self._step(number, "preprocess", [*command, *few])

    def _train(self, number: int, dataset: str) -> Path:
        """Train the student of a round, from its last checkpoint if there is one; its model's folder."""
        sweep = self.sweep(number)
        (training,) = sweep.trainings
        model = sweep.fold_folder(training).parent
        name, line = f"round {number}: train", shlex.join(sweep.command(training))
        if name in self.state.done:
            return model
        print(f"[round {number}] $ {line}\n    its output: {sweep.log(training)}", flush=True)
        sweep.write()
        LocalJobs(sweep).stop()  # what a run that was killed has left
        record = run_training(sweep, training, str(find_executable("nnUNetv2_train")), lambda: False)
        if not sweep.is_finished(training):
            if record is None:
                other = (holder(sweep.claim_file(training)) or {}).get("sweep", "another process")
                raise UserError(f"{training.name} of {dataset} is being trained by {other}. Wait for its end.")
            tail = output_tail(sweep.log(training))
            raise CommandFailed(f"{line}: {record.state}, {record.reason}.\nIts last output:\n{tail}")
        self._remember(done={**self.state.done, name: line.removesuffix(" --c")})
        return model

    def sweep(self, number: int) -> Sweep:
        """The training of a round as a sweep of its own."""
        request, dataset = self.request, self.request.dataset(number)
        weights = None
        if number and request.continue_from_teacher:
            teacher = self.best
            weights = str(Path(teacher.model) / f"fold_{teacher.folds[0]}" / jobs.CHECKPOINTS[0])
        file = self.preprocessed / dataset / f"{request.plans}.json"
        plans = read_plans(file)
        require(plans, ["plans_name"], where=file)
        asked = jobs.SweepRequest(
            dataset=dataset,
            configuration=request.configuration,
            plans=request.plans,
            plans_name=plans["plans_name"],
            trainers=[request.trainer],
            folds=[request.fold],
            seeds=None,
            folders=request.folders,
            pretrained_weights=weights,
        )
        return Sweep(self.folder / f"round_{number}", asked, Resources(self.device, local=1))

    def _score(self, one: Round) -> tuple[SeedScores, list[str], Resampling]:
        """Score a round's model on the held-out cases."""
        request, out = self.request, self._evaluation(one.number)
        command = ["nnunet_ext", "evaluate", one.model, "-f", *map(str, one.folds), "--on", request.held_out]
        command += ["-o", str(out), "--bootstrap", str(request.resamples), "--device", self.device]
        # which evaluate takes for the intervals alone
        patients = ["--patients", request.patients] if request.patients and request.resamples else []
        command += [*self._without_mirroring, *patients]
        self._step(one.number, "evaluate", command)
        return self._read_scores(one.number)

    def scores(self, number: int) -> SeedScores:
        """Dice of the held-out cases in a round."""
        return self._read_scores(number)[0]

    def table(self) -> list[list[str]]:
        """A header, and the cells of each round."""
        rows = [["round", "labelled", "Dice", "gain"]]
        for one in self.state.rounds:
            share = "-" if one.labelling is None else f"{one.labelling.share:.1%}"
            dice = "-" if one.dice is None else f"{one.dice.value:.3f}"
            rows.append([str(one.number), share, dice, "-" if one.difference is None else signed(one.difference)])
        return rows

    def _read_scores(self, number: int) -> tuple[SeedScores, list[str], Resampling]:
        """Dice of a round's held-out cases, the labels, and resamples of the patients."""
        scores = read_scores(self._evaluation(number) / SCORES)
        patients = dict(zip(scores["case"], scores["patient"]))
        labels = labels_with(scores, DICE)
        resampling = Resampling(patients, resamples=self.request.resamples)
        return seed_scores(scores, DICE, list(patients), labels), labels, resampling

    def _evaluation(self, number: int) -> Path:
        return self.folder / f"round_{number}" / "evaluation"

    @property
    def _without_mirroring(self) -> list[str]:
        return [] if self.request.mirroring else ["--disable-tta"]

    @cached_property
    def _claim(self) -> Claim:
        return Claim(self.folder / "command.claim")

    def _end_what_was_left(self) -> None:
        """End the command of a run that was killed, which holds the claim as long as it goes on."""
        left = holder(self._claim.file)
        if left is None or "group" not in left:
            return
        if left["host"] != socket.gethostname():
            raise UserError(f"A command of this self-training still runs on {left['host']}. End it there first.")
        end_group(left["group"])

    def _step(self, number: int, what: str, command: list[str], *, is_done: bool = False) -> None:
        """Run a command to its end, unless that was done before; its output goes to a file.

        When this is interrupted, the command is ended.
        """
        name, line = f"round {number}: {what}", shlex.join(command)
        if name in self.state.done:
            return
        if not is_done:
            log = self._log(number, what)
            log.parent.mkdir(exist_ok=True)
            print(f"[round {number}] $ {line}", flush=True)
            about: dict[str, Any] = {"host": socket.gethostname(), "pid": os.getpid()}
            variables = {**self.request.folders, VARIABLE: extended_value(os.environ.get(VARIABLE))}
            with self._claim as claim, log.open("wb") as output:
                if not claim.take(about):
                    raise UserError(f"Another command of this self-training is at work; see {claim.file}.")
                program = [str(find_executable(command[0])), *command[1:]]
                with running(program, output, variables, pass_fds=[claim.fileno()]) as process:
                    claim.write({**about, "group": process.pid})
                    status = process.wait()
            check_status(status, line, log)
        self._remember(done={**self.state.done, name: line.removesuffix(" --force")})

    def _log(self, number: int, what: str) -> Path:
        """The output of a step's last try."""
        return self.folder / f"round_{number}" / f"{what}.log"


def _read_table(file: Path) -> Labelling:
    """What came of a labelling, by its table; a UserError if that was changed."""
    try:
        table = pd.read_csv(file, dtype={"case": str, "left_out": bool, "foreground_share": float})
        kept = table[~table["left_out"]]
        shares = kept["foreground_share"].dropna()
        voxels = {name: int(kept[name].sum()) for name in kept if name.startswith("voxels_")}
        share = float(kept["labelled_voxels"].sum() / max(1, kept["open_voxels"].sum()))
    except (KeyError, TypeError, ValueError, OSError) as error:
        raise UserError(
            f"{file} is not as nnunet_ext pseudo-label writes it: {error}. Begin anew with another --id and folder."
        ) from None
    added = {name.removeprefix("voxels_"): number for name, number in voxels.items()}
    return Labelling(len(kept), len(table) - len(kept), share, float(shares.mean()) if len(shares) else None, added)


def signed(difference: Estimate) -> str:
    """A difference with its interval."""
    interval = difference.interval
    return f"{difference.value:+.3f}" + ("" if interval is None else f" [{interval.low:+.3f}, {interval.high:+.3f}]")
