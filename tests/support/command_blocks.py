"""Commands as the documentation shows them, run on tiny data in a folder that has what they name."""

from __future__ import annotations

import atexit
import contextlib
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
from nnunetv2.training.logging.nnunet_logger import MetaLogger
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from nnunet_ext.cli import main
from nnunet_ext.commands.jobs import AT_WORK
from nnunet_ext.diagnosis import step_times
from nnunet_ext.diagnosis.child import Answer, ask
from nnunet_ext.nnunet_names import SPLITS
from nnunet_ext.registration import VARIABLE
from support.nnunet_runs import call_entry_point
from support.tiny_data import CASES, dataset_name

POOLS = {
    "nnUNetv2_plan_and_preprocess": ("-npfp", "-np"),
    "nnUNetv2_preprocess": ("-np",),
    "nnUNetv2_predict": ("-npp", "-nps"),
    "nnUNetv2_predict_from_modelfolder": ("-npp", "-nps"),
}
"""How nnU-Net is told the sizes of its pools of processes, which are for more cases than the few of the tests."""
ENTRY_POINTS = {entry.name: entry for entry in entry_points(group="console_scripts")}
ON_A_DEVICE = ("nnUNetv2_train", "nnUNetv2_predict", "nnUNetv2_predict_from_modelfolder")
FOLDERS = ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")


ANSWERS: dict[str, Answer] = {}


def asked_once(job: str, question: Any, environ: Mapping[str, str]) -> Answer:
    """What a fresh interpreter answers; the same question under the same folders of trainers is not asked again."""
    key = json.dumps([job, question, environ.get(VARIABLE)])
    if key not in ANSWERS:
        ANSWERS[key] = ask(job, question, environ)
    return ANSWERS[key]


@cache
def trained_before() -> Path:
    """A folder for models that several pages take for granted, until this process ends."""
    folder = tempfile.TemporaryDirectory(prefix="trained_")
    atexit.register(folder.cleanup)
    return Path(folder.name)


class Folder:
    """The folder in which a page's commands run, with nnU-Net's folders in it."""

    def __init__(self, root: Path, workspace: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root, self.workspace, self.monkeypatch = root, workspace, monkeypatch
        monkeypatch.chdir(root)
        for name in FOLDERS:
            (root / name).mkdir()
            monkeypatch.setenv(name, str(root / name))
        self.raw, self.preprocessed, self.results = (root / name for name in FOLDERS)
        # for $(nnunet_ext path)
        monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
        run_training = nnUNetTrainer.run_training

        def run_shortly(trainer: Any) -> None:
            """Two steps of the epoch that comes next."""
            trainer.num_epochs = trainer.current_epoch + 1
            trainer.num_iterations_per_epoch, trainer.num_val_iterations_per_epoch = 2, 1
            run_training(trainer)

        monkeypatch.setattr(nnUNetTrainer, "run_training", run_shortly)
        # whole programs and long probes, which tests of their own run as they are
        picture = "progress.png"  # nnU-Net's export wants it
        monkeypatch.setattr(MetaLogger, "plot_progress_png", lambda logger, folder: (Path(folder) / picture).touch())
        for module in ("nnunet_ext.diagnosis", "nnunet_ext.diagnosis.trainers"):
            monkeypatch.setattr(f"{module}.ask", asked_once)
        monkeypatch.setattr(
            step_times,
            "probed",
            lambda dims, device, *, features, probe=step_times.probed: probe(dims, device, features=2),
        )

    # ------------------------------------------------------------------ what a page takes for granted

    def dataset(
        self,
        name: str,
        kind: str = "labels",
        *,
        cases: int = CASES,
        planned: bool = False,
        called: Mapping[str, str] = MappingProxyType({}),
    ) -> Path:
        """A raw dataset of tiny cases and a test case with its label; its folder.

        Args:
            name: of the dataset.
            kind: one of `support.tiny_data.KINDS`.
            cases: how many to train on.
            planned: whether it is planned and preprocessed too.
            called: other names for labels.
        """
        source, folder = self.workspace.raw / dataset_name(kind), self.raw / name
        shutil.copytree(source, folder)
        for number in range(CASES, cases):
            self._copy_case(folder, number % CASES, f"case_{number}")
        shutil.rmtree(folder / "imagesTs")
        for part in ("images", "labels"):
            (folder / f"{part}Ts").mkdir()
            for file in (folder / f"{part}Tr").glob("case_0*"):
                shutil.copy(file, folder / f"{part}Ts" / file.name.replace("case_0", "new"))
        if planned:
            shutil.copytree(self.workspace.preprocessed / dataset_name(kind), self.preprocessed / name)
        for file in (*folder.glob("*.json"), *(self.preprocessed / name).glob("*.json")):
            text = file.read_text().replace(dataset_name(kind), name)
            for before, after in called.items():
                text = text.replace(f'"{before}"', f'"{after}"')
            file.write_text(text)
        return folder

    @staticmethod
    def _copy_case(folder: Path, number: int, name: str) -> None:
        for part in ("imagesTr", "labelsTr"):
            for file in list((folder / part).glob(f"case_{number}[_.]*")):
                shutil.copy(file, folder / part / file.name.replace(f"case_{number}", name))

    def link(self, name: str, target: Path) -> None:
        """Something that a page calls by a name of its own; it may not be there yet."""
        (self.root / name).symlink_to(target)

    def inputs(self, dataset: Path) -> None:
        """The folders IN and LABELS: a new case and its label."""
        shutil.copytree(dataset / "imagesTs", self.root / "IN")
        shutil.copytree(dataset / "labelsTs", self.root / "LABELS")

    def model(self, dataset: Path, trainer: str = "nnUNetTrainer", *, fold: str = "0") -> Path:
        """A trained model: its folder. One of equal plans, folds and labels is trained once."""
        folder, preprocessed = (root / dataset.name for root in (self.results, self.preprocessed))
        model, splits = folder / f"{trainer}__nnUNetPlans__3d_fullres", preprocessed / SPLITS
        decisive = "".join(file.read_text() for file in sorted(preprocessed.glob("*.json")))
        kept = trained_before() / hashlib.sha256(f"{trainer} {fold} {decisive}".encode()).hexdigest()
        if not kept.is_dir():
            self.run(f"nnUNetv2_train {dataset.name} 3d_fullres {fold} -tr {trainer}")
            shutil.copytree(model / f"fold_{fold}", kept / f"fold_{fold}")
            for file in (*model.glob("*.json"), *([splits] if splits.is_file() else [])):
                shutil.copy(file, kept)
        else:
            shutil.copytree(kept, model, dirs_exist_ok=True)
            if (model / SPLITS).is_file():
                (model / SPLITS).replace(splits)
        return model

    def every_fold(self, model: Path) -> None:
        """Folds 1 to 4 of a model, as good as its fold 0."""
        for fold in range(1, 5):
            shutil.copytree(model / "fold_0", model / f"fold_{fold}")

    # ------------------------------------------------------------------ commands

    def run(self, line: str) -> str:
        """Run a line of a shell; what it prints.

        Programs run in this process, which has imported torch.

        Raises:
            AssertionError: if a command of ours does not exit with 0, or a variable is exported empty; the errors of
                nnU-Net's commands are theirs.
        """
        if line.startswith("export "):
            name = line[len("export ") :].partition("=")[0]
            value = self._bash(f'{line}; printf "%s" "${name}"')
            assert value, f"{line} leaves {name} empty"
            self.monkeypatch.setenv(name, value)
            return ""
        program, *arguments = self.words(line)
        if program in ON_A_DEVICE and "-device" not in arguments:
            arguments += ["-device", "cpu"]
        for option in POOLS.get(program, ()):
            arguments += [] if option in arguments else [option, "1"]
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
            if program == "nnunet_ext":
                fine = (0, AT_WORK) if arguments[:2] == ["jobs", "status"] else (0,)
                assert main(arguments) in fine, f"{line}\n{printed.getvalue()}"
            else:
                with pytest.MonkeyPatch.context() as patch:
                    if program == "nnUNetv2_train":
                        patch.setenv("nnUNet_n_proc_DA", "0")
                    call_entry_point(ENTRY_POINTS[program].load(), arguments)
        return printed.getvalue()

    def target(self, line: str) -> Path | None:
        """What a command is to write: the final checkpoint of a training, else what it names behind ``-o``."""
        words = self.words(line)
        options = dict(zip(words, words[1:]))
        if words[0] == "nnUNetv2_train":
            _, dataset, configuration, fold = words[:4]
            (folder,) = self.results.glob(f"Dataset{int(dataset):03d}_*")
            name = f"{options.get('-tr', 'nnUNetTrainer')}__{options.get('-p', 'nnUNetPlans')}__{configuration}"
            return folder / name / f"fold_{fold}" / "checkpoint_final.pth"
        if "-o" not in options:
            return None
        return (self.raw if options["-o"].startswith("Dataset") else self.root) / options["-o"]

    def words(self, line: str) -> list[str]:
        """A command as a shell gives it to the program: bash itself divides the line."""
        return self._bash(f'printf "%s\\0" {line}').split("\0")[:-1]

    def _bash(self, line: str) -> str:
        done = subprocess.run(["bash", "-c", line], cwd=self.root, capture_output=True, text=True, check=True)
        return done.stdout
