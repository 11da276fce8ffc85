"""A training by ``nnUNetv2_train --c`` that is killed again and again, and what becomes of its weights."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nnunetv2.run.run_training import run_training_entry
from nnunetv2.training.logging.nnunet_logger import MetaLogger

from nnunet_ext.plans.plans_file import add_configurations
from support.forked import Forked
from support.tiny_data import dataset_name

DATASET = dataset_name("labels")
CONFIGURATION = "3d_tiny_many_epochs"
TRAINERS = ("nnUNetTrainerMixUp", "nnUNetTrainerDGST", "nnUNetTrainerDBDMP")
LONGEST_S = 300.0


class KilledTraining:
    """Trainings of one trainer, each killed until it has nevertheless ended.

    Args:
        trainer: class name.
        preprocessed: nnUNet_preprocessed with the tiny data; gets a configuration more.
        folder: empty, for results and logs.
        seed: draws the moments.
        epochs: of the training.
    """

    def __init__(self, trainer: str, preprocessed: Path, folder: Path, *, seed: int, epochs: int = 8) -> None:
        self.trainer, self.folder = trainer, folder
        self.rng = np.random.default_rng(seed)
        self.phases: Counter[str] = Counter()
        self.trainings = 0
        content = {"inherits_from": "3d_tiny", "nnunet_ext": {"num_epochs": epochs}}
        add_configurations(
            preprocessed / DATASET / "nnUNetPlans.json", {CONFIGURATION: content}, command="", force=True
        )
        started = time.monotonic()
        status = self._start().wait(LONGEST_S)
        assert status == 0, self._log()
        self.seconds = time.monotonic() - started
        self.expected = self._outcome()

    @property
    def kills(self) -> int:
        """How often it was killed."""
        return sum(self.phases.values())

    def kill_until_it_ends(self, kills: int) -> list[str]:
        """Start anew, kill at random moments and go on with ``--c`` until it has ended.

        Args:
            kills: at most so many, after which it is left alone.

        Returns:
            What differs from the training that nobody interrupted.
        """
        shutil.rmtree(self.folder / "results")
        for _ in range(kills):
            training = self._start()
            # early at first: a later run finds files in memory and may be faster
            if training.wait(self.rng.uniform(0, self.seconds if self.kills else self.seconds / 3)) is not None:
                break
            phase = self._phase()
            if training.kill() != -signal.SIGKILL:
                break
            self.phases[phase] += 1
        else:
            training = self._start()
            training.wait(LONGEST_S)
        self.trainings += 1
        if training.kill() != 0:
            return [f"ended with status {training.status}: {self._log()}"]
        return differences(self.expected, self._outcome())

    def _start(self) -> Forked:
        line = [DATASET, CONFIGURATION, "0", "-tr", self.trainer, "-device", "cpu", "--c"]

        def train() -> None:
            torch.set_num_threads = lambda number: None  # threads of a tiny network wait for each other
            MetaLogger.plot_progress_png = lambda logger, folder: None  # takes longer than the epoch
            sys.argv = ["nnUNetv2_train", *line]
            run_training_entry()

        self.folder.joinpath("log.txt").unlink(missing_ok=True)
        variables = {"nnUNet_results": str(self.folder / "results"), "nnUNet_n_proc_DA": "1"}
        return Forked(train, folder=self.folder, environment=variables, output=self.folder / "log.txt")

    @property
    def _fold(self) -> Path:
        return self.folder / "results" / DATASET / f"{self.trainer}__nnUNetPlans__{CONFIGURATION}" / "fold_0"

    def _phase(self) -> str:
        """What the training is at."""
        if any(self._fold.glob("*.tmp")):
            return "writing a checkpoint"
        if (self._fold / "checkpoint_final.pth").exists():
            return "validating"
        text = self._log()
        return "in an epoch" if "Epoch " in text else "starting"

    def _log(self) -> str:
        file = self.folder / "log.txt"
        return file.read_text(errors="replace")[-2000:] if file.exists() else ""

    def _outcome(self) -> dict[str, Any]:
        """Weights, optimizer and losses of the final checkpoint, and the validation's Dice."""
        checkpoint = torch.load(self._fold / "checkpoint_final.pth", weights_only=False)
        losses = checkpoint["logging"]["train_losses"]
        left = sorted(os.listdir(self._fold))
        kept = [name for name in left if not name.startswith("training_log_")]
        parts = {"weights": checkpoint["network_weights"], "optimizer": checkpoint["optimizer_state"]}
        return {**parts, "losses": losses, "files": kept, "scores": _scores(self._fold)}


def _scores(fold: Path) -> str:
    """The validation's summary, without the paths of this run."""
    return (fold / "validation" / "summary.json").read_text()


def differences(expected: Any, found: Any, where: str = "") -> list[str]:
    """Where two contents of a checkpoint differ, if only in a bit."""
    if isinstance(expected, torch.Tensor):
        same = isinstance(found, torch.Tensor) and expected.dtype == found.dtype and torch.equal(expected, found)
        return [] if same else [where]
    if isinstance(expected, dict) and isinstance(found, dict) and expected.keys() == found.keys():
        return [line for key in expected for line in differences(expected[key], found[key], f"{where}/{key}")]
    if isinstance(expected, (list, tuple)) and isinstance(found, (list, tuple)) and len(expected) == len(found):
        pairs = enumerate(zip(expected, found))
        return [line for number, (one, other) in pairs for line in differences(one, other, f"{where}/{number}")]
    return [] if expected == found else [f"{where}: {expected!r:.80} and {found!r:.80}"]
