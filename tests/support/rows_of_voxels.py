"""Cases of one row of voxels each, with predictions, to score by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

from nnunet_ext.evaluation.case_sets import Case, CaseSet
from nnunet_ext.evaluation.scored_labels import ScoredLabels, match_labels

LABELS = {"background": 0, "shell": 1, "core": 2, "fin": 3, "ignore": 9}
REFERENCES = {"a": [1, 1, 1, 2, 0, 9], "b": [1, 0, 0, 0, 0, 0]}
PREDICTIONS = {"a": [1, 1, 2, 2, 0, 1], "b": [1, 1, 0, 0, 0, 0]}
MILLIMETRES = 2.0  # from voxel to voxel


def write_row(file: Path, values: Sequence[float], kind: Any = np.uint16) -> Path:
    file.parent.mkdir(exist_ok=True)
    image = sitk.GetImageFromArray(np.array(values, kind).reshape(1, 1, -1))
    image.SetSpacing((MILLIMETRES, 3.0, 4.0))
    sitk.WriteImage(image, str(file))
    return file


def write_cases(folder: Path, *, instances: Mapping[str, Sequence[int]] | None = None) -> tuple[CaseSet, ScoredLabels]:
    """Two cases; the value 9 is ignored, b has no core, and neither has fin. Predictions go to ``predictions``.

    Args:
        folder: where the files go.
        instances: maps of the references' instances.

    Returns:
        The cases, and their labels as a model with one label more has them.
    """
    cases = {name: Case((), write_row(folder / "labels" / f"{name}.nii.gz", row)) for name, row in REFERENCES.items()}
    for name, row in PREDICTIONS.items():
        write_row(folder / "predictions" / f"{name}.nii.gz", row)
    for name, row in (instances or {}).items():
        write_row(folder / "instances" / f"{name}.nii.gz", row)
    description = {"labels": LABELS, "file_ending": ".nii.gz"}
    case_set = CaseSet(
        "Dataset001_Hand", "all", description, cases, instances=folder / "instances" if instances else None
    )
    model = {"labels": {"background": 0, "shell": 1, "core": 2, "fin": 3, "more": 4}}
    return case_set, match_labels(model, description, name="D")
