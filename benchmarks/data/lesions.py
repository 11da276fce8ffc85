"""Multiple sclerosis lesions in tiles of FLAIR volumes: patients, and labels of which instances are left out."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from benchmarks.data.raw import groups_of_splits
from benchmarks.engine.experiment import Draw

ORIGIN = "Dataset702_MSLesionPatches"


def patient_of(case: str) -> str:
    """``mslesseg_P14`` of ``mslesseg_P14_T1_x000y064z064``."""
    return re.sub(r"_T\d+_.*", "", case)


def groups() -> list[dict[str, list[str]]]:
    """One group for each of the four patients."""
    return groups_of_splits(ORIGIN, patient_of)


def simulated(folder: Path, draw: Draw, *, options: Sequence[str]) -> Sequence[str]:
    """The command that leaves a part of the instances annotated; the draw of the instances follows the seed."""
    seed = ["--seed", str(draw.seed)]
    return ["nnunet_ext", "simulate", "instances", ORIGIN, "-o", folder.name, *options, *seed]


def completed(folder: Path, draw: Draw, *, number: int) -> Sequence[str]:
    """The command that labels by the teacher's model what is not annotated; `number` + seed is what it completes."""
    command = ["nnunet_ext", "complete", str(draw.model), "-d", str(number + draw.seed), "-o", folder.name]
    command += [] if draw.threshold is None else ["--threshold", f"{draw.threshold:g}"]
    return [*command, "-f", str(draw.fold), "--disable-tta", "--device", draw.device]
