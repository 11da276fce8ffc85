"""What a sweep trains, and what its folder remembers about it.

SWEEP/
  sweep.json       what was asked for
  trainings/       a record of each training: its state, attempts, exit status
  logs/            the output of each training, all attempts in one file
  pool.claim       held by the process that runs the trainings on this machine; pool.log is its output
  submitit/        what the library submitit writes for Slurm: scripts, pickled jobs, their own output
  slurm_jobs.json  the Slurm job that each training was given last
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

from nnunet_ext.errors import UserError
from nnunet_ext.files import read_json, write_json
from nnunet_ext.formats.names import check_names
from nnunet_ext.formats.typed import read_typed
from nnunet_ext.messages import quoted
from nnunet_ext.nnunet_folders import DATA
from nnunet_ext.nnunet_names import CHECKPOINTS, FINAL

Fold = int | Literal["all"]
KNOWN_KEYS = ConfigDict(extra="forbid")

WAITING, RUNNING, FINISHED, FAILED, STOPPED = "waiting", "running", "finished", "failed", "stopped"
SWEEP, MAKER = "sweep.json", "nnunet_ext jobs"
FOLDERS = {"nnUNet_preprocessed", "nnUNet_results"}
"""What a sweep has to name. One of a self-training names nnUNet_raw as well."""


@dataclass(frozen=True)
class Training:
    """One call of ``nnUNetv2_train``."""

    trainer: str  # class name
    configuration: str  # its name in the plans
    fold: Fold
    seed: int | None = None  # what the configuration was given, None if it was used as it is

    @property
    def name(self) -> str:
        """Names its files in the sweep's folder."""
        return f"{self.trainer}__{self.configuration}__fold_{self.fold}"


@dataclass(frozen=True, config=KNOWN_KEYS)
class SweepRequest:
    """What is to be trained. A sweep's folder is for one request."""

    dataset: str  # DatasetXXX_Name
    configuration: str  # in the plans, before seeds
    plans: str  # the plans file's name
    plans_name: str  # the name in the plans, by which nnU-Net calls the model's folder
    trainers: list[str]  # class names
    folds: list[Fold]
    seeds: list[int] | None  # None to use the configuration as it is
    folders: dict[str, str]  # nnU-Net's, by the variable's name, absolute
    pretrained_weights: str | None = None  # checkpoint that every training starts from

    @property
    def folder_names(self) -> list[str]:
        """Names of which folders are made, see `check_names`."""
        return [self.dataset, self.configuration, self.plans, self.plans_name, *self.trainers]


@dataclass(frozen=True, config=KNOWN_KEYS)
class Resources:
    """How a sweep is run; this may change from one start to the next."""

    device: str  # cpu, cuda or mps
    local: int | None = None  # how many trainings at a time, on this machine; None for Slurm
    slurm: dict[str, Any] | None = None  # submitit's parameters; None on this machine

    def options(self) -> str:
        """The options of ``nnunet_ext jobs start`` that stand for them."""
        if self.slurm is None:
            return f"--device {self.device} --local {self.local}"
        values = {key: value if isinstance(value, str) else json.dumps(value) for key, value in self.slurm.items()}
        assignments = (shlex.quote(f"{key}={value}") for key, value in values.items())
        return " ".join([f"--device {self.device} --slurm", *assignments])


@dataclass(frozen=True, config=KNOWN_KEYS)
class Record:
    """What is remembered about a training."""

    state: str = STOPPED  # as of the last time that anybody worked on it
    attempts: int = 0  # how often it was started
    reason: str = ""  # why it failed or stopped


@dataclass(frozen=True)
class SweepFile:
    """The content of sweep.json."""

    request: SweepRequest
    resources: Resources


def seeded_name(configuration: str, seed: int) -> str:
    """Name of the configuration that is another one with a seed."""
    return f"{configuration}_s{seed}"


@dataclass(frozen=True)
class Sweep:
    """A sweep and its folder (absolute)."""

    folder: Path
    request: SweepRequest
    resources: Resources

    @cached_property
    def trainings(self) -> list[Training]:
        """Every training, in the order in which they are begun."""
        request, base = self.request, self.request.configuration
        return [
            Training(trainer, base if seed is None else seeded_name(base, seed), fold, seed)
            for seed in ([None] if request.seeds is None else request.seeds)
            for fold in request.folds
            for trainer in request.trainers
        ]

    @classmethod
    def read(cls, folder: Path) -> Sweep:
        """The sweep of a folder; a UserError if the folder holds none."""
        folder = folder.absolute()
        if not (folder / SWEEP).is_file():
            raise UserError(f"{folder} holds no sweep: it has no {SWEEP}. `nnunet_ext jobs start` makes one.")
        asked = read_typed(SweepFile, folder / SWEEP, maker=MAKER)
        request = asked.request
        check_names(request.folder_names, what="folder", where=folder / SWEEP)
        check_folders(request.folders, where=folder / SWEEP)
        return cls(folder, request, asked.resources)

    def write(self) -> None:
        """Make the folder and write what was asked for."""
        try:
            for part in ("trainings", "logs"):
                (self.folder / part).mkdir(parents=True, exist_ok=True)
            write_json(self.folder / SWEEP, asdict(SweepFile(self.request, self.resources)))
        except OSError as error:
            raise UserError(f"{self.folder} cannot be written to ({error.strerror}).") from None

    def training(self, name: str) -> Training:
        """The training of a name."""
        return next(training for training in self.trainings if training.name == name)

    def command(self, training: Training) -> list[str]:
        """nnU-Net's command, to go on from a checkpoint if there is one by which ``--c`` can."""
        request = self.request
        command = ["nnUNetv2_train", request.dataset, training.configuration, str(training.fold)]
        command += ["-tr", training.trainer, "-p", request.plans, "-device", self.resources.device]
        is_begun = any((self.fold_folder(training) / name).is_file() for name in CHECKPOINTS)
        start = [] if request.pretrained_weights is None else ["-pretrained_weights", request.pretrained_weights]
        return [*command, "--c"] if is_begun else [*command, *start]

    def fold_folder(self, training: Training) -> Path:
        """Where nnU-Net writes the model."""
        return self._results / self._model(training) / f"fold_{training.fold}"

    def claim_file(self, training: Training) -> Path:
        """The claim of a model, which every sweep with the same nnUNet_results asks for.

        Not in the model's folder, which nnU-Net makes, and which a user may delete to train anew.
        """
        return self._results / ".nnunet_ext_jobs" / f"{self._model(training)}__fold_{training.fold}.claim"

    def _model(self, training: Training) -> str:
        return f"{training.trainer}__{self.request.plans_name}__{training.configuration}"

    @property
    def _results(self) -> Path:
        return Path(self.request.folders["nnUNet_results"]) / self.request.dataset

    def log(self, training: Training) -> Path:
        """The output of all attempts."""
        return self.folder / "logs" / f"{training.name}.log"

    @property
    def pool_file(self) -> Path:
        """The claim of the process that runs the trainings on this machine."""
        return self.folder / "pool.claim"

    def record(self, training: Training) -> Record:
        """What is remembered about a training."""
        file = self.folder / "trainings" / f"{training.name}.json"
        return read_typed(Record, file, maker=MAKER) if file.is_file() else Record()

    def remember(self, training: Training, record: Record) -> None:
        """Replace what is remembered about a training."""
        write_json(self.folder / "trainings" / f"{training.name}.json", asdict(record))

    def is_finished(self, training: Training) -> bool:
        """Whether there is nothing left to do: the final checkpoint and the validation are there.

        A trainer that validates nothing, such as a pre-training, has finished if its command has succeeded.
        """
        fold = self.fold_folder(training)
        return (fold / FINAL).is_file() and (
            _is_json(fold / "validation" / "summary.json") or self.record(training).state == FINISHED
        )


def check_folders(folders: Mapping[str, str], *, where: Path) -> None:
    """Raise a UserError unless these are nnU-Net's folders, by absolute paths: trainings get them as variables."""
    for name in sorted(FOLDERS | set(folders)):
        path = folders.get(name)
        if name not in DATA:
            problem = "is none of nnU-Net's folders"
        elif path is None:
            problem = "is missing"
        elif not Path(path).is_absolute() or "\0" in path:
            problem = f"must be an absolute path; {quoted(path)} was found"
        else:
            continue
        raise UserError(f"{where}: folders: {quoted(name)} {problem}. Start the sweep anew.")


def _is_json(file: Path) -> bool:
    """Whether a file is there to its end: nnU-Net may have been killed while it wrote it."""
    with suppress(UserError):
        read_json(file)
        return True
    return False
