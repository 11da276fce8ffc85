"""The demonstration: stock nnU-Net and one technique on the same small data, by nnU-Net's own commands.

A demonstration is data: the columns of its report (which model predicts which scans) and the commands that make these
scans. One program plans, trains, predicts, evaluates and reports any of them.
"""

import math
import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from nnunet_ext.demo.datasets import write_follow_up_dataset, write_phantom_dataset
from nnunet_ext.demo.two_dates import LABELS
from nnunet_ext.errors import UserError
from nnunet_ext.evaluation.metrics import DICE
from nnunet_ext.evaluation.scores_table import nanmean, seed_scores
from nnunet_ext.files import check_apart, link_or_copy, read_json
from nnunet_ext.folders import prepare_output_folder
from nnunet_ext.formats.dataset_json import read_dataset_json
from nnunet_ext.formats.tiff_spacing import spacing_file
from nnunet_ext.machine import FEW_CORES, available_cores, choose_device
from nnunet_ext.messages import aligned, counted
from nnunet_ext.nnunet_folders import dataset_number
from nnunet_ext.nnunet_names import PLANS, SPLITS, TRAINER
from nnunet_ext.plans.channel_roles import roles_of_dataset
from nnunet_ext.preprocessing.raw.raw_dataset import training_cases
from nnunet_ext.preprocessing.raw.splits import FOLDS
from nnunet_ext.programs import check_status, child_environment, find_executable, running
from nnunet_ext.report.page import write_report
from nnunet_ext.report.runs import as_runs, every_case_a_patient
from nnunet_ext.report.sources import ResultsFolder, read_predicted_folder
from nnunet_ext.stopping import stopping_signals_interrupt
from nnunet_ext.training_log import read_progress

# nnU-Net's own training, except that the preset's short schedule is read from the plans
STOCK_TRAINER = "nnUNetTrainerConfigurable"
STOCK = "stock nnU-Net"
CONFIGURATIONS = ("3d_fullres_quick", "2d_quick")
WITH_PRIOR = "Dataset902_FollowUpWithPrior"
REPORT_SECONDS = 30.0  # between signs of life where there is no terminal

Commands = Sequence[tuple[str, Sequence[str]]]  # commands with the names of their logs


@dataclass(frozen=True)
class Column:
    """A column of the report: what a model predicts for scans that no training saw."""

    name: str  # in the report
    trainer: str  # class name
    dataset: Path  # raw dataset folder that it is trained on
    images: Path  # folder for nnUNetv2_predict -i
    suffix: str = ""  # behind the trainer's name in the name of the folder of predictions


@dataclass(frozen=True)
class Demonstration:
    """A comparison on one set of scans.

    Where the folder of labels is missing, links to the validation cases of fold 0 are made there and in the columns'
    folder of images, after the training.
    """

    title: str  # of the report
    description: str  # a sentence about the scans
    columns: Sequence[Column]  # models are trained in their order
    labels: Path  # folder with the reference label maps
    commands: Commands = ()  # that come before the planning


def on_one_dataset(dataset: Path, out: Path, trainer: str) -> Demonstration:
    """Stock nnU-Net and a trainer on one dataset: its test cases if each has a label, else those of validation."""
    ending = read_json(dataset / "dataset.json")["file_ending"]
    images, labels = dataset / "imagesTs", dataset / "labelsTs"
    cases = {path.name[: -len("_0000" + ending)] for path in images.glob(f"*_0000{ending}")}
    source = f"{len(cases)} test cases"
    if not cases or not all((labels / f"{case}{ending}").is_file() for case in cases):
        images, labels = out / "held_out" / "images", out / "held_out" / "labels"
        source = "validation cases of fold 0"
    name = trainer.removeprefix(TRAINER)
    return Demonstration(
        title=f"{name} beside {STOCK} on {dataset.name}",
        description=f"Evaluated on the {source} of {dataset.name}.",
        columns=[Column(STOCK, STOCK_TRAINER, dataset, images), Column(name, trainer, dataset, images)],
        labels=labels,
    )


def at_two_dates(current: Path, out: Path, trainer: str) -> Demonstration:
    """Stock nnU-Net on current scans alone, and a trainer that has the prior ones too: with them, and without."""
    both, name = current.with_name(WITH_PRIOR), trainer.removeprefix(TRAINER)
    scans, references = current / "imagesTs", current / "labelsTs"
    with_theirs, with_none = out / "held_out" / "with_prior", out / "held_out" / "without_prior"
    labels = [f"{label}={value}" for label, value in LABELS.items() if label != "background"]
    pair = ["nnunet_ext", "pair"]
    like = [*pair, "--predict", "--like", dataset_number(both.name)]
    return Demonstration(
        title=f"{name} beside {STOCK} without the prior scan, on phantoms at two dates",
        description=f"Evaluated on the {len(list(references.iterdir()))} test patients of {current.name}.",
        columns=[
            Column(f"{STOCK}, current scan", STOCK_TRAINER, current, scans),
            Column(name, trainer, both, with_theirs),
            Column(f"{name}, prior withheld", trainer, both, with_none, "_without_prior"),
        ],
        labels=references,
        commands=[
            ("pair", [*pair, "--table", str(current / "pairsTr.csv"), "--labels", *labels, "-o", both.name]),
            ("pair_test", [*like, "--table", str(current / "pairsTs.csv"), "-o", str(with_theirs)]),
            ("pair_test_without_prior", [*like, "--current", str(scans), "-o", str(with_none)]),
        ],
    )


@dataclass
class CommandRunner:
    """Runs commands one after the other, shows each as it can be typed, and keeps its output in a numbered log."""

    environment: Mapping[str, str]  # variables beside the present ones
    logs: Path  # existing folder
    total: int  # how many commands there will be, for the counter that is shown
    shown: list[str] = field(default_factory=list)  # the commands so far

    def run(self, name: str, command: Sequence[str]) -> None:
        """Run a command, whose program has no folder in its name, to its end; `name` is that of the log.

        Raises:
            CommandFailed: if it exits with another status than 0.
            UserError: if the program is not installed.
            KeyboardInterrupt: on Ctrl-C, after the command and all that it started have ended.
        """
        executable, line = find_executable(command[0]), shlex.join(command)
        self.shown.append(line)
        log = self.logs / f"{len(self.shown):02d}_{name}.log"
        print(f"[{len(self.shown)}/{self.total}] $ {line}", flush=True)
        started = time.monotonic()
        with log.open("wb") as output, running([str(executable), *command[1:]], output, self.environment) as process:
            status = _wait(process, log)
        seconds = time.monotonic() - started
        check_status(status, line, log)
        final = training_status(log).removeprefix("validating after ")
        print(f"      {seconds:.0f} s" + (f", {final}" if final else ""), flush=True)


def _wait(process: subprocess.Popen[bytes], log: Path) -> int:
    """Wait for a process, showing where a training stands: live on a terminal, now and then elsewhere."""
    live, shown, shown_at = sys.stdout.isatty(), "", time.monotonic()
    while True:
        try:
            return process.wait(timeout=0.5)
        except subprocess.TimeoutExpired:
            state = training_status(log)
        finally:
            if live:
                print("\r\033[K", end="", flush=True)
        if live:
            print(f"      {state[:70]}", end="", flush=True)
        elif state != shown and time.monotonic() - shown_at > REPORT_SECONDS:
            shown_at, shown = time.monotonic(), state
            print(f"      {state}", flush=True)


def training_status(log: Path) -> str:
    """Where nnU-Net's training stands by its log, such as ``epoch 7, pseudo Dice 0.91 0.80``; empty for other logs."""
    progress = read_progress(log)
    if progress.epoch is None:
        return ""
    dice = " ".join(f"{value:.2f}" for value in progress.dice_by_label)
    stage = "validating after epoch" if progress.has_trained else "epoch"
    return f"{stage} {progress.epoch}" + (f", pseudo Dice {dice}" if dice else "")


def link_validation_cases(dataset: Path, splits: Path, target: Path) -> None:
    """Link the validation cases of fold 0 to the folders images and labels in `target`, which are made."""
    for part in ("images", "labels"):
        (target / part).mkdir(parents=True)
    description = read_dataset_json(dataset / "dataset.json")
    ending, cases = description["file_ending"], training_cases(dataset, description)
    for case in read_json(splits)[0]["val"]:
        for channel, image in enumerate(cases[case].images):
            link_or_copy(image, target / "images" / f"{case}_{channel:04d}{ending}")
        link_or_copy(cases[case].label, target / "labels" / f"{case}{ending}")
        for part, file in (("images", cases[case].images[0]), ("labels", cases[case].label)):
            if spacing := spacing_file(file, is_image=part == "images"):
                link_or_copy(spacing, target / part / f"{case}.json")


def check_data(data: Path, out: Path, *, needs_prior: bool = False) -> None:
    """Raise a UserError unless `data` is a raw dataset, with priors if needed, and writing to `out` cannot touch it."""
    if not re.fullmatch(r"Dataset\d{3}_.+", data.name):
        raise UserError(f"{data} is not called like a raw dataset of nnU-Net, DatasetXXX_Name. Rename it.")
    if (data / "dataset.json").is_file() and "dataset" in read_json(data / "dataset.json"):
        raise UserError(
            f"{data} lists its images in dataset.json, as they are in other folders. The demonstration needs them in "
            "imagesTr: name the dataset that it was made of."
        )
    for part in ("dataset.json", "imagesTr", "labelsTr"):
        if not (data / part).exists():
            raise UserError(f"{data} is no raw dataset of nnU-Net: it has no {part}. Name its folder in nnUNet_raw.")
    if needs_prior:
        roles_of_dataset(read_dataset_json(data / "dataset.json"))
    check_apart(out, [data])
    cases = len(training_cases(data, read_dataset_json(data / "dataset.json")))
    if cases < FOLDS and not (data / SPLITS).is_file():
        raise UserError(
            f"{data} has {counted(cases, 'case')}, and nnU-Net draws {FOLDS} folds. Put a {SPLITS} beside its "
            "dataset.json, such as nnunet_ext split writes into nnUNet_preprocessed, or name a dataset of more cases."
        )


def quick_configuration_name(plans: Path) -> str:
    """The name of the configuration that ``nnunet_ext plan --preset quick`` made; a UserError if there is none."""
    if found := [name for name in CONFIGURATIONS if name in read_json(plans)["configurations"]]:
        return found[0]
    raise UserError(f"{plans} has none of the configurations {', '.join(CONFIGURATIONS)}.")


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
    """Train stock nnU-Net and a technique on fold 0, predict and evaluate held-out cases, write the report.

    A UserError says if an argument cannot be used, `CommandFailed` if a command fails. Returns ``report.html``.

    Args:
        out: folder for everything; the environment of this process stays as it is.
        trainer: class name of the technique's trainer.
        data: raw dataset folder ``DatasetXXX_Name``, read only; None makes phantoms.
        needs_prior: whether the trainer needs a prior scan; phantoms then have two dates.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        epochs: of each training; None takes the preset's.
        force: empty `out` first.
    """
    out, data, device = out.resolve(), data and data.resolve(), choose_device(device)
    if data is not None:
        check_data(data, out, needs_prior=needs_prior)
    prepare_output_folder(out, force=force)
    raw, cores = out / "nnUNet_raw", available_cores()
    for folder in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results", "logs", "predictions"):
        (out / folder).mkdir()
    environment = child_environment(out, os.environ, cores=cores)
    exports = [f"export {name}={shlex.quote(value)}" for name, value in environment.items()]
    print("\n".join(f"$ {line}" for line in exports), flush=True)
    if data is not None:
        link_or_copy(data, raw / data.name)
        demonstration = on_one_dataset(raw / data.name, out, trainer)
    else:
        print(f"Making the phantoms{', at two dates' if needs_prior else ''}", flush=True)
        write, compare = (
            (write_follow_up_dataset, at_two_dates) if needs_prior else (write_phantom_dataset, on_one_dataset)
        )
        demonstration = compare(write(raw), out, trainer)
    runner = CommandRunner(environment, out / "logs", total=0)
    with stopping_signals_interrupt():
        sources = _run(demonstration, out, runner, device=device, epochs=epochs, few_cores=cores <= FEW_CORES)
    target, title, about = out / "report.html", demonstration.title, demonstration.description
    columns = as_runs([(source.name, source) for source in sources])
    patients, commands = every_case_a_patient(columns), [*exports, *runner.shown]
    write_report(target, columns, title=title, subtitle=about, patients=patients, commands=commands)
    print(f"\n{about}\n{dice_table(sources)}\n\nReport: {target}")
    return target


def _run(
    demonstration: Demonstration, out: Path, runner: CommandRunner, *, device: str, epochs: int | None, few_cores: bool
) -> list[ResultsFolder]:
    """Every command of a demonstration; what the columns predict."""
    columns, preprocessed = demonstration.columns, out / "nnUNet_preprocessed"
    models = dict.fromkeys((column.dataset, column.trainer) for column in columns)
    datasets = dict.fromkeys(dataset for dataset, _ in models)
    runner.total = len(demonstration.commands) + 2 * len(datasets) + len(models) + 2 * len(columns)

    def run(name: str, *command: str | Path, on_few_cores: str = "") -> None:
        runner.run(name, [*map(str, command), *(on_few_cores.split() if few_cores else ())])

    for name, command in demonstration.commands:
        run(name, *command)
    configurations = {}
    for dataset in datasets:
        number = dataset_number(dataset.name)
        run("plan_and_preprocess", "nnUNetv2_plan_and_preprocess", "-d", number, on_few_cores="-npfp 2 -np 2")
        quick = ["nnunet_ext", "plan", "--preset", "quick", "-d", number]
        run("plan_quick", *quick, *(("--epochs", str(epochs)) if epochs else ()))
        configurations[dataset] = quick_configuration_name(preprocessed / dataset.name / f"{PLANS}.json")
    for dataset, trainer in models:
        train = ["nnUNetv2_train", dataset_number(dataset.name), configurations[dataset], "0"]
        run(f"train_{trainer}", *train, "-tr", trainer, "-device", device)
    if not demonstration.labels.is_dir():
        dataset = columns[0].dataset
        link_validation_cases(dataset, preprocessed / dataset.name / SPLITS, demonstration.labels.parent)
    sources = []
    for column in columns:
        dataset, trainer, configuration = column.dataset, column.trainer, configurations[column.dataset]
        folder = out / "nnUNet_results" / dataset.name / f"{trainer}__{PLANS}__{configuration}"
        predictions = out / "predictions" / f"{trainer}{column.suffix}"
        predict = ("nnUNetv2_predict", "-d", dataset_number(dataset.name), "-i", column.images, "-o", predictions)
        by = ("-c", configuration, "-f", "0", "-tr", trainer, "-device", device)
        run(f"predict_{predictions.name}", *predict, *by, on_few_cores="-npp 1 -nps 1")
        described = ("-djfile", folder / "dataset.json", "-pfile", folder / "plans.json")
        run(f"evaluate_{predictions.name}", "nnUNetv2_evaluate_folder", demonstration.labels, predictions, *described)
        sources.append(read_predicted_folder(column.name, folder / "fold_0", predictions, column.images))
    return sources


def dice_table(runs: Sequence[ResultsFolder]) -> str:
    """Mean Dice per label and run as text."""
    labels = [label.name for label in runs[0].outcomes[0].labels]
    rows = [["Dice", *labels, "mean"]]
    for run in runs:
        (scored,) = run.outcomes
        by_label = seed_scores(scored.scores, DICE, list(scored.files), labels).values.T
        means = [nanmean(values) for values in by_label.tolist()]
        rows.append([run.name, *("-" if math.isnan(mean) else f"{mean:.3f}" for mean in (*means, nanmean(means)))])
    return aligned(rows)
