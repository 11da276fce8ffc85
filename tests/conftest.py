"""nnU-Net's environment and folders for the whole suite."""

from __future__ import annotations

import json
import multiprocessing
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# how long an example takes says how busy the machine is
settings.register_profile("any speed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any speed")

# threads of tiny networks wait for each other, and several processes run tests at a time
os.environ.setdefault("OMP_NUM_THREADS", "1")
# nnU-Net reads these when it is imported, and later whatever the machine's owner has set would leak into the tests
os.environ["nnUNet_def_n_proc"] = "1"
os.environ["nnUNet_n_proc_DA"] = "1"
for variable in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results", "nnUNet_extTrainer", "nnUNet_compile"):
    os.environ.pop(variable, None)

import torch  # noqa: E402
from nnunetv2.experiment_planning.plan_and_preprocess_api import (  # noqa: E402
    extract_fingerprints,
    plan_experiments,
    preprocess_dataset,
)
from nnunetv2.training.logging.nnunet_logger import MetaLogger  # noqa: E402

import nnunet_ext  # noqa: E402
from support.nnunet_runs import PRELOADED  # noqa: E402
from support.tiny_data import CASES, KINDS, PREPARED, add_tiny_configurations, dataset_name, write_raw_dataset  # noqa: E402


class Workspace:
    """nnU-Net's three folders with every kind of tiny data planned and preprocessed."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.raw, self.preprocessed = root / "nnUNet_raw", root / "nnUNet_preprocessed"

    def prepare_all(self) -> None:
        """Prepare every kind of data in an empty folder."""
        for folder in (self.raw, self.preprocessed):
            folder.mkdir()
        for kind in KINDS:
            self.prepare(kind)

    def prepare(self, kind: str) -> None:
        """Plan and preprocess a kind of data by nnU-Net's own functions."""
        dataset_id = KINDS[kind]["id"]
        write_raw_dataset(self.raw, kind)
        folder = self.preprocessed / dataset_name(kind)
        extract_fingerprints([dataset_id], num_processes=1, show_progress_bar=False)
        plan_experiments([dataset_id])
        add_tiny_configurations(folder / "nnUNetPlans.json")
        configurations = ("3d_fullres",) if kind == "ignore" else ("2d", "3d_fullres")
        preprocess_dataset(dataset_id, configurations=configurations, num_processes=(1,), show_progress_bar=False)
        if kind in ("labels", "prior"):
            plan_experiments([dataset_id], experiment_planner_class_name="nnUNetPlannerResEncM")
            add_tiny_configurations(folder / "nnUNetResEncUNetMPlans.json")
            preprocess_dataset(dataset_id, configurations=("3d_lowres_tiny",), num_processes=(1,))
        cases = [f"case_{number}" for number in range(CASES)]
        folds = [{"train": [c for c in cases if c != held_out], "val": [held_out]} for held_out in cases]
        (folder / "splits_final.json").write_text(json.dumps(folds))


@pytest.fixture(scope="session", autouse=True)
def quickly_started_processes() -> Iterator[None]:
    """Fork nnU-Net's pools from a server that has imported it, where nnU-Net would spawn and import each anew.

    That saves some seconds a pool and there are hundreds. Workers that are really spawned have a test of their own.
    """
    if "forkserver" not in multiprocessing.get_all_start_methods():
        yield
        return
    get_context = multiprocessing.get_context
    get_context("forkserver").set_forkserver_preload(PRELOADED)
    patch = pytest.MonkeyPatch()
    patch.setattr(
        multiprocessing, "get_context", lambda method=None: get_context({"spawn": "forkserver"}.get(method, method))
    )
    yield
    patch.undo()


@pytest.fixture(scope="session")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    prepared = os.environ.get(PREPARED)
    space = Workspace(Path(prepared) if prepared else tmp_path_factory.mktemp("work space ü"))
    patch = pytest.MonkeyPatch()
    patch.setenv("nnUNet_raw", str(space.raw))
    patch.setenv("nnUNet_preprocessed", str(space.preprocessed))
    patch.setenv("nnUNet_results", str(space.root / "unused"))
    patch.setenv("nnUNet_extTrainer", "")
    nnunet_ext.register()
    if not prepared:
        space.prepare_all()
    yield space
    patch.undo()


@pytest.fixture
def results(workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty nnUNet_results of this test's own, no data loading workers, and no progress plot (a second an epoch)."""
    folder = tmp_path / "nnUNet_results"
    folder.mkdir()
    monkeypatch.setenv("nnUNet_results", str(folder))
    monkeypatch.setenv("nnUNet_n_proc_DA", "0")
    monkeypatch.setattr(MetaLogger, "plot_progress_png", lambda self, output_folder: None)
    return folder


@pytest.fixture
def one_thread():
    """Threads of a tiny network spend their time waiting for each other, and their number changes the last digits."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
