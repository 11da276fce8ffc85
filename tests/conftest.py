"""nnU-Net's environment and folders for the whole suite."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

# how long an example takes says how busy the machine is
settings.register_profile("any speed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any speed")

# a shell ignores these for a program in the background, and every program that a test starts would
signal.signal(signal.SIGINT, signal.default_int_handler)
if hasattr(signal, "SIGHUP"):
    signal.signal(signal.SIGHUP, signal.SIG_DFL)

# threads of tiny networks wait for each other, and several processes run tests at a time
os.environ.setdefault("OMP_NUM_THREADS", "1")
# nnU-Net reads these when it is imported, and later whatever the machine's owner has set would leak into the tests
os.environ["nnUNet_def_n_proc"] = "1"
os.environ["nnUNet_n_proc_DA"] = "1"
for variable in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results", "nnUNet_extTrainer", "nnUNet_compile"):
    os.environ.pop(variable, None)

import torch  # noqa: E402
from nnunetv2.experiment_planning.dataset_fingerprint.fingerprint_extractor import (  # noqa: E402
    DatasetFingerprintExtractor,
)
from nnunetv2.experiment_planning.experiment_planners.default_experiment_planner import (  # noqa: E402
    ExperimentPlanner,
)
from nnunetv2.training.logging.nnunet_logger import MetaLogger  # noqa: E402

import nnunet_ext  # noqa: E402
from support.nnunet_runs import PRELOADED  # noqa: E402
from support.tiny_data import PREPARED  # noqa: E402
from support.workspace import Workspace, built_once, prepare  # noqa: E402


@pytest.fixture(scope="session", autouse=True)
def quick_nnunet() -> Iterator[None]:
    """nnU-Net without what takes it seconds and changes nothing here.

    Its pools are forked from a server that has imported it, where nnU-Net would spawn processes that import it each;
    workers that are really spawned have a test of their own. A fingerprint comes from ten thousand voxels and not from
    a hundred million, which it draws with repetition from images that have fewer. Networks are planned with 8 features
    and not with 32. Nothing waits until a disk has written.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        if "forkserver" in multiprocessing.get_all_start_methods():
            get_context = multiprocessing.get_context
            get_context("forkserver").set_forkserver_preload(PRELOADED)
            in_place_of = {"spawn": "forkserver"}
            patch.setattr(
                multiprocessing, "get_context", lambda method=None: get_context(in_place_of.get(method, method))
            )
        prepare_extractor = DatasetFingerprintExtractor.__init__

        def draw_few(extractor: DatasetFingerprintExtractor, *args: Any, **kwargs: Any) -> None:
            prepare_extractor(extractor, *args, **kwargs)
            extractor.num_foreground_voxels_for_intensitystats = 10_000

        patch.setattr(DatasetFingerprintExtractor, "__init__", draw_few)
        prepare_planner = ExperimentPlanner.__init__

        def plan_narrow(planner: ExperimentPlanner, *args: Any, **kwargs: Any) -> None:
            prepare_planner(planner, *args, **kwargs)
            planner.UNet_base_num_features = 8

        patch.setattr(ExperimentPlanner, "__init__", plan_narrow)
        yield


def state_of_the_process() -> dict[str, Any]:
    """What a test may change only for itself: the next one in this process would run with it."""
    # libraries set variables of their own when they are imported, and `register` sets nnUNet_extTrainer for good
    names = [name for name in os.environ if name.startswith("nnUNet_") and name != "nnUNet_extTrainer"]
    signals = (signal.SIGINT, signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGINT))
    return {
        "multiprocessing.get_context": multiprocessing.get_context,
        "start method": multiprocessing.get_start_method(),
        "working directory": os.getcwd(),
        "answers to signals": [signal.getsignal(one) for one in signals],
        "torch's threads": torch.get_num_threads(),
        **{f"${name}": os.environ[name] for name in names},
    }


@pytest.fixture(autouse=True)
def process_as_it_was() -> Iterator[None]:
    """Fail a test that leaves its process changed."""
    before = state_of_the_process()
    yield
    after = state_of_the_process()
    names = sorted(before.keys() | after)
    changed = {name: (before.get(name), after.get(name)) for name in names if before.get(name) != after.get(name)}
    assert not changed, f"the test has left its process changed (before, after): {changed}"


@pytest.fixture(scope="session")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    """A copy for this process of what one process has built for all: tests may write to it."""
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    built = os.environ.get(PREPARED) or built_once(shared, prepare)
    space = Workspace(tmp_path_factory.mktemp("work space ü"))
    shutil.copytree(built, space.root, dirs_exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        for name, folder in space.environment().items():
            patch.setenv(name, folder)
        patch.setenv("nnUNet_extTrainer", "")
        nnunet_ext.register()
        yield space


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
def quick_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Programs that a test starts do not start Python anew for each of nnU-Net's pools."""
    folders = [str(Path(__file__).parent / "support" / "quick_programs"), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, folders)))


@pytest.fixture
def one_thread():
    """Threads of a tiny network spend their time waiting for each other, and their number changes the last digits."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def valid(workspace: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Valid input for every command, to be copied."""
    from fuzz.commands import make_workspace

    folder = tmp_path_factory.mktemp("every command") / "valid"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("nnUNet_results", str(folder.parent / "nnUNet_results"))
        patch.setenv("nnUNet_n_proc_DA", "0")
        make_workspace(folder, workspace.root)
    return folder
