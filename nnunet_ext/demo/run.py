"""The demonstration: stock nnU-Net and one technique on the same small data, by nnU-Net's own commands."""

from __future__ import annotations

import math
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from nnunetv2.utilities.utils import get_filenames_of_train_images_and_targets

from nnunet_ext.demo.phantoms import write_phantom_dataset
from nnunet_ext.demo.stopping import stopping_signals_interrupt
from nnunet_ext.errors import UserError
from nnunet_ext.evaluation.machine import FEW_CORES, available_cores, choose_device
from nnunet_ext.evaluation.text_table import aligned
from nnunet_ext.files import prepare_output_folder, read_json
from nnunet_ext.plans.channel_roles import roles_of_dataset
from nnunet_ext.programs import find_executable, running
from nnunet_ext.registration import VARIABLE, extended_value
from nnunet_ext.report.page import write_report
from nnunet_ext.report.runs import as_runs, every_case_a_patient
from nnunet_ext.report.sources import PredictedFolder, read_evaluation, read_predicted_folder
from nnunet_ext.training_log import last_lines, read_progress

# nnU-Net's own training, except that the preset's short schedule is read from the plans
STOCK_TRAINER = "nnUNetTrainerConfigurable"
STOCK = "stock nnU-Net"
PLANS = "nnUNetPlans"
CONFIGURATIONS = ("3d_fullres_quick", "2d_quick")
REPORT_SECONDS = 30.0  # between signs of life where there is no terminal


class CommandFailed(Exception):
    """A command of the demonstration did not succeed; the message names it, its last output and its log."""


@dataclass
class CommandRunner:
    """Runs commands one after the other, shows each as it can be typed, and keeps its output in a numbered log.

    Attributes:
        environment: variables that the commands get beside the present ones.
        logs: existing folder for the logs.
        total: how many commands there will be, for the counter that is shown.
        shown: the commands so far, as they were shown.
    """

    environment: Mapping[str, str]
    logs: Path
    total: int
    shown: list[str] = field(default_factory=list)

    def exports(self) -> list[str]:
        """The environment as lines of a shell."""
        return [f"export {name}={shlex.quote(value)}" for name, value in self.environment.items()]

    def run(self, name: str, command: Sequence[str]) -> None:
        """Run a command to its end.

        Args:
            name: for the log's name, such as ``train_mixup``.
            command: the program's name without its folder, and its arguments.

        Raises:
            CommandFailed: if it exits with another status than 0.
            UserError: if the program is not installed.
            KeyboardInterrupt: on Ctrl-C, after the command and all that it started have ended.
        """
        executable = find_executable(command[0])
        line = shlex.join(command)
        self.shown.append(line)
        log = self.logs / f"{len(self.shown):02d}_{name}.log"
        print(f"[{len(self.shown)}/{self.total}] $ {line}", flush=True)
        started = time.monotonic()
        status = self._run_logged([str(executable), *command[1:]], log)
        seconds = time.monotonic() - started
        if status != 0:
            tail = "\n".join(f"    {text}" for text in last_lines(log, 12))
            raise CommandFailed(
                f"this command failed with status {status}:\n  {line}\nIts last output, from {log}:\n{tail}"
            )
        final = training_status(log).removeprefix("validating after ")
        print(f"      {seconds:.0f} s{_comma(final)}", flush=True)

    def _run_logged(self, command: Sequence[str], log: Path) -> int:
        with log.open("wb") as output, running(command, output, self.environment) as process:
            return _wait(process, log)


def _wait(process: subprocess.Popen[bytes], log: Path) -> int:
    """Wait for a process, showing where a training stands: live on a terminal, now and then elsewhere."""
    live = sys.stdout.isatty()
    shown_at = time.monotonic()
    shown = ""
    while True:
        try:
            status = process.wait(timeout=0.5)
            break
        except subprocess.TimeoutExpired:
            state = training_status(log)
        if live:
            print(f"\r      {state[:70]}\033[K", end="", flush=True)
        elif state != shown and time.monotonic() - shown_at > REPORT_SECONDS:
            shown_at, shown = time.monotonic(), state
            print(f"      {state}", flush=True)
    if live:
        print("\r\033[K", end="", flush=True)
    return status


def training_status(log: Path) -> str:
    """Where nnU-Net's training stands by its log, such as ``epoch 7, pseudo Dice 0.91 0.80``; empty for other logs."""
    progress = read_progress(log)
    if progress.epoch is None:
        return ""
    dice = " ".join(f"{value:.2f}" for value in progress.dice_by_label)
    stage = "validating after epoch" if progress.has_trained else "epoch"
    return f"{stage} {progress.epoch}" + (f", pseudo Dice {dice}" if dice else "")


def _comma(text: str) -> str:
    return f", {text}" if text else ""


def child_environment(out: Path, present: Mapping[str, str], *, cores: int) -> dict[str, str]:
    """The variables that the commands need beside those that are set.

    Args:
        out: absolute path of the output folder.
        present: the environment now.
        cores: with at most four, nnU-Net is held to fewer worker processes than its defaults, unless the user chose.
    """
    environment = {f"nnUNet_{part}": str(out / f"nnUNet_{part}") for part in ("raw", "preprocessed", "results")}
    environment[VARIABLE] = extended_value(present.get(VARIABLE))
    if cores <= FEW_CORES:
        # 0 would mean training without workers, but planning fails with it
        if present.get("nnUNet_n_proc_DA", "0") == "0":
            environment["nnUNet_n_proc_DA"] = "1"
        if "nnUNet_def_n_proc" not in present:
            environment["nnUNet_def_n_proc"] = "2"
    return environment


def link_or_copy(source: Path, target: Path) -> None:
    """Make `target` show what is at `source`: a symbolic link, or a copy where links are not possible."""
    try:
        target.symlink_to(source.resolve(), target_is_directory=source.is_dir())
    except OSError:
        if source.is_dir():
            shutil.copytree(source, target)
        else:
            shutil.copyfile(source, target)


def number_of(dataset: Path) -> str:
    """The id of a dataset's folder, as commands take it."""
    return str(int(dataset.name[len("Dataset") :][:3]))


def check_data(data: Path, out: Path, *, needs_prior: bool = False) -> None:
    """See that `data` is an nnU-Net raw dataset, and that writing to `out` cannot touch it.

    Args:
        data: absolute path of its folder.
        out: absolute path of the output folder.
        needs_prior: whether it must have channels of a prior scan.

    Raises:
        UserError: if it is not.
    """
    if not re.fullmatch(r"Dataset\d{3}_.+", data.name):
        raise UserError(f"{data} is not called like a raw dataset of nnU-Net, DatasetXXX_Name.")
    for part in ("dataset.json", "imagesTr", "labelsTr"):
        if not (data / part).exists():
            raise UserError(f"{data} is no raw dataset of nnU-Net: it has no {part}.")
    if needs_prior:
        roles_of_dataset(read_json(data / "dataset.json"))
    if data == out or data in out.parents or out in data.parents:
        raise UserError(f"The output folder {out} and the data {data} must not contain one another.")


@dataclass(frozen=True)
class HeldOut:
    """Cases that no training saw.

    Attributes:
        images: folder with what ``nnUNetv2_predict -i`` takes.
        labels: folder with the reference label maps.
        description: a sentence about where they are from.
    """

    images: Path
    labels: Path
    description: str


def find_held_out(dataset: Path, preprocessed: Path, target: Path) -> HeldOut:
    """The test cases if each has a label, else the validation cases of fold 0.

    Args:
        dataset: raw dataset folder.
        preprocessed: its preprocessed folder; a training has written splits_final.json there.
        target: folder for links to validation cases, made when it is needed.
    """
    ending = read_json(dataset / "dataset.json")["file_ending"]
    images, labels = dataset / "imagesTs", dataset / "labelsTs"
    cases = {path.name[: -len("_0000" + ending)] for path in images.glob(f"*_0000{ending}")}
    if cases and all((labels / f"{case}{ending}").is_file() for case in cases):
        return HeldOut(images, labels, f"Evaluated on the {len(cases)} test cases of {dataset.name}.")
    held_out = HeldOut(
        target / "images", target / "labels", f"Evaluated on the validation cases of fold 0 of {dataset.name}."
    )
    for folder in (held_out.images, held_out.labels):
        folder.mkdir(parents=True)
    files = get_filenames_of_train_images_and_targets(str(dataset))
    for case in read_json(preprocessed / "splits_final.json")[0]["val"]:
        for channel, image in enumerate(files[case]["images"]):
            link_or_copy(Path(image), held_out.images / f"{case}_{channel:04d}{ending}")
        link_or_copy(Path(files[case]["label"]), held_out.labels / f"{case}{ending}")
    return held_out


def quick_configuration(plans: Path) -> str:
    """The name of the configuration that ``nnunet_ext plan --preset quick`` made.

    Raises:
        UserError: if there is none.
    """
    configurations = read_json(plans)["configurations"]
    for name in CONFIGURATIONS:
        if name in configurations:
            return name
    raise UserError(f"{plans} has none of the configurations {', '.join(CONFIGURATIONS)}.")


def dice_table(runs: Sequence[PredictedFolder]) -> str:
    """Mean Dice per label and run as text."""
    evaluations = [read_evaluation(run) for run in runs]
    rows = [["Dice", *(label.name for label in evaluations[0].labels), "mean"]]
    for run, evaluation in zip(runs, evaluations):
        values = [*(scores.mean for scores in evaluation.labels.values()), evaluation.foreground_mean]
        rows.append([run.name, *("-" if math.isnan(value) else f"{value:.3f}" for value in values)])
    return aligned(rows)


@dataclass(frozen=True)
class Model:
    """A training of a demonstration.

    Attributes:
        dataset: raw dataset folder.
        configuration: of its plans.
        trainer: class name.
    """

    dataset: Path
    configuration: str
    trainer: str


@dataclass(frozen=True)
class Workplace:
    """Where and how the commands of a demonstration work.

    Attributes:
        out: absolute path of the folder for everything.
        runner: runs the commands.
        device: ``cpu``, ``cuda`` or ``mps``.
        epochs: of each training; None takes the preset's.
        few_cores: whether nnU-Net is held to few processes.
    """

    out: Path
    runner: CommandRunner
    device: str
    epochs: int | None
    few_cores: bool

    @property
    def raw(self) -> Path:
        return self.out / "nnUNet_raw"

    def preprocessed(self, dataset: Path) -> Path:
        return self.out / "nnUNet_preprocessed" / dataset.name

    def plan(self, dataset: Path) -> str:
        """Plan and preprocess a dataset; the name of its quick configuration."""
        number = number_of(dataset)
        workers = ["-npfp", "2", "-np", "2"] if self.few_cores else []
        self.runner.run("plan_and_preprocess", ["nnUNetv2_plan_and_preprocess", "-d", number, *workers])
        epochs = [] if self.epochs is None else ["--epochs", str(self.epochs)]
        self.runner.run("plan_quick", ["nnunet_ext", "plan", "--preset", "quick", "-d", number, *epochs])
        return quick_configuration(self.preprocessed(dataset) / f"{PLANS}.json")

    def train(self, model: Model) -> None:
        """Train fold 0."""
        command = ["nnUNetv2_train", number_of(model.dataset), model.configuration, "0", "-tr", model.trainer]
        self.runner.run(f"train_{model.trainer}", [*command, "-device", self.device])

    def evaluate(self, name: str, model: Model, *, images: Path, labels: Path, suffix: str = "") -> PredictedFolder:
        """Predict cases that no training saw, and score them.

        Args:
            name: how the report calls it.
            model: after its training.
            images: folder with what ``nnUNetv2_predict -i`` takes.
            labels: folder with the reference label maps.
            suffix: what the folder of the predictions has behind the trainer's name.
        """
        folder = self.out / "nnUNet_results" / model.dataset.name / f"{model.trainer}__{PLANS}__{model.configuration}"
        predictions = self.out / "predictions" / f"{model.trainer}{suffix}"
        predict = ["nnUNetv2_predict", "-d", number_of(model.dataset), "-i", str(images), "-o", str(predictions)]
        predict += ["-c", model.configuration, "-f", "0", "-tr", model.trainer, "-device", self.device]
        self.runner.run(f"predict_{predictions.name}", predict + (["-npp", "1", "-nps", "1"] if self.few_cores else []))
        evaluate = ["nnUNetv2_evaluate_folder", str(labels), str(predictions)]
        evaluate += ["-djfile", str(folder / "dataset.json"), "-pfile", str(folder / "plans.json")]
        self.runner.run(f"evaluate_{predictions.name}", evaluate)
        return PredictedFolder(name, folder / "fold_0", predictions / "summary.json", predictions, images)

    def report(self, runs: Sequence[PredictedFolder], *, title: str, description: str) -> Path:
        """Write ``report.html`` and print what it says in short; the report."""
        target = self.out / "report.html"
        commands = [*self.runner.exports(), *self.runner.shown]
        columns = as_runs([(run.name, read_predicted_folder(run)) for run in runs])
        patients = every_case_a_patient(columns)
        write_report(target, columns, title=title, subtitle=description, patients=patients, commands=commands)
        print(f"\n{description}\n{dice_table(runs)}\n\nReport: {target}")
        return target


def set_up(out: Path, *, device: str, epochs: int | None, force: bool, commands: int) -> Workplace:
    """Make the folders of a demonstration, and show the environment of its commands.

    Args:
        out: folder for everything; the environment of this process stays as it is.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        epochs: of each training; None takes the preset's.
        force: empty `out` first.
        commands: how many there will be.

    Raises:
        UserError: if the folder or the device cannot be used.
    """
    out = out.resolve()
    device = choose_device(device)
    prepare_output_folder(out, force=force)
    for folder in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results", "logs", "predictions"):
        (out / folder).mkdir()
    cores = available_cores()
    runner = CommandRunner(child_environment(out, os.environ, cores=cores), out / "logs", total=commands)
    for line in runner.exports():
        print(f"$ {line}", flush=True)
    return Workplace(out, runner, device, epochs, few_cores=cores <= FEW_CORES)


def run_demo(
    out: Path,
    *,
    trainer: str,
    data: Path | None = None,
    needs_prior: bool = False,
    device: str = "auto",
    epochs: int | None = None,
    force: bool = False,
) -> Path:
    """Train stock nnU-Net and a technique on fold 0, predict and evaluate held-out cases, write ``report.html``.

    Args:
        out: folder for everything; the environment of this process stays as it is.
        trainer: class name of the technique's trainer.
        data: raw dataset folder ``DatasetXXX_Name``, read only; None makes phantoms.
        needs_prior: whether the trainer needs a dataset with a prior scan.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        epochs: of each training; None takes the preset's.
        force: empty `out` first.

    Returns:
        The report.

    Raises:
        UserError: if an argument cannot be used.
        CommandFailed: if a command fails.
    """
    if data is not None:
        data = data.resolve()
        check_data(data, out.resolve(), needs_prior=needs_prior)
    place = set_up(out, device=device, epochs=epochs, force=force, commands=8)
    if data is None:
        print("Making the phantoms", flush=True)
        dataset = write_phantom_dataset(place.raw)
    else:
        dataset = place.raw / data.name
        link_or_copy(data, dataset)
    with stopping_signals_interrupt():
        configuration = place.plan(dataset)
        models = {
            name: Model(dataset, configuration, one)
            for name, one in ((STOCK, STOCK_TRAINER), (trainer.removeprefix("nnUNetTrainer"), trainer))
        }
        for model in models.values():
            place.train(model)
        held_out = find_held_out(dataset, place.preprocessed(dataset), place.out / "held_out")
        runs = [
            place.evaluate(name, model, images=held_out.images, labels=held_out.labels)
            for name, model in models.items()
        ]
    title = f"{runs[1].name} beside {runs[0].name} on {dataset.name}"
    return place.report(runs, title=title, description=held_out.description)
