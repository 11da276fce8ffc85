"""nnU-Net's folders with every kind of tiny data planned and preprocessed: built once for a run of the suite."""

from __future__ import annotations

import json
import multiprocessing
import tempfile
from collections.abc import Callable
from multiprocessing.pool import ThreadPool
from pathlib import Path
from types import SimpleNamespace

import pytest
from filelock import FileLock
from nnunetv2.experiment_planning.plan_and_preprocess_api import (
    extract_fingerprints,
    plan_experiments,
    preprocess_dataset,
)

from support.tiny_data import CASES, KINDS, add_tiny_configurations, dataset_name, write_raw_dataset


def built_once(shared: Path, build: Callable[[Path], None]) -> Path:
    """A folder that the first process to ask for it builds, while the others wait.

    A process that dies while it builds leaves nothing under the folder's name, and the next one builds it anew.

    Args:
        shared: a folder that all the processes share.
        build: fills an empty folder.
    """
    target = shared / "built ü"
    with FileLock(shared / "built.lock"):
        if not target.exists():
            unfinished = Path(tempfile.mkdtemp(dir=shared))
            build(unfinished)
            unfinished.rename(target)
    return target


class Workspace:
    """nnUNet_raw and nnUNet_preprocessed with every kind of tiny data."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.raw, self.preprocessed = root / "nnUNet_raw", root / "nnUNet_preprocessed"

    def environment(self) -> dict[str, str]:
        """nnU-Net's variables."""
        return {
            "nnUNet_raw": str(self.raw),
            "nnUNet_preprocessed": str(self.preprocessed),
            "nnUNet_results": str(self.root / "unused"),
        }


def prepare(root: Path) -> None:
    """Write every kind of data into an empty folder, planned and preprocessed by nnU-Net's own functions."""
    space = Workspace(root)
    with pytest.MonkeyPatch.context() as patch:
        for name, folder in space.environment().items():
            patch.setenv(name, folder)
        # a process for each of a dozen pools takes longer to start than a few small images to preprocess
        patch.setattr(multiprocessing, "get_context", lambda method=None: SimpleNamespace(Pool=ThreadPool))
        for part in (space.raw, space.preprocessed):
            part.mkdir()
        for kind in KINDS:
            prepare_kind(space, kind)


def prepare_kind(space: Workspace, kind: str) -> None:
    dataset_id = KINDS[kind]["id"]
    write_raw_dataset(space.raw, kind)
    folder = space.preprocessed / dataset_name(kind)
    extract_fingerprints([dataset_id], num_processes=1, show_progress_bar=False)
    plan_experiments([dataset_id])
    add_tiny_configurations(folder / "nnUNetPlans.json")
    configurations = ("3d_fullres",) if kind == "ignore" else ("2d", "3d_fullres")
    preprocess_dataset(dataset_id, configurations=configurations, num_processes=(1,), show_progress_bar=False)
    if kind in ("labels", "prior", "partial"):
        plan_experiments([dataset_id], experiment_planner_class_name="nnUNetPlannerResEncM")
        add_tiny_configurations(folder / "nnUNetResEncUNetMPlans.json")
        preprocess_dataset(dataset_id, configurations=("3d_lowres_tiny",), num_processes=(1,))
    cases = [f"case_{number}" for number in range(CASES)]
    folds = [{"train": [c for c in cases if c != held_out], "val": [held_out]} for held_out in cases]
    (folder / "splits_final.json").write_text(json.dumps(folds))
