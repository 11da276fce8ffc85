"""Random label maps with predictions by three models, from a fixed seed: what the golden scores were computed on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from scipy import ndimage

from nnunet_ext.evaluation.case_sets import Case, CaseSet

ORGANS = {
    "labels": {"background": 0, "organ": 1, "lesion": 2, "absent": 3, "ignore": 4},
    "file_ending": ".nii.gz",
}
REGIONS = {
    "labels": {"background": 0, "whole": [1, 2], "core": [2]},
    "regions_class_order": [1, 2],
    "file_ending": ".nii.gz",
}
MODEL_LABELS = {"labels": {**ORGANS["labels"], **REGIONS["labels"], "more": 9}}
MODELS = ("stock_0", "stock_1", "other_0")
TOLERANCES = {"organ": 1.0, "lesion": 0.7, "absent": 0.0, "whole": 1.5, "core": 2.0}
PATIENTS = {
    **{f"organs_{number}": f"P{number // 2}" for number in range(8)},
    **{f"slice_{number}": f"P{max(0, number - 1)}" for number in range(6)},
}


def _write(file: Path, array: np.ndarray, spacing: tuple[float, ...]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    image = sitk.GetImageFromArray(array.astype(np.uint16))
    image.SetSpacing(spacing)
    sitk.WriteImage(image, str(file))


def _blobs(rng: np.random.Generator, shape: tuple[int, ...], *, share: float) -> np.ndarray:
    smooth = ndimage.gaussian_filter(rng.normal(size=shape), 1.2)
    return smooth > np.quantile(smooth, 1 - share)


def write_golden_cases(folder: Path) -> dict[str, list[CaseSet]]:
    """Volumes of anisotropic voxels with small lesions and ignored voxels, and single slices with regions.

    Some cases lack a label in reference, prediction or both. The volumes have maps of their lesions and a second
    folder of references.

    Returns:
        By model, its sets of cases; predictions are in ``MODEL/SET``.
    """
    rng = np.random.default_rng(17)
    organs = folder / "nnUNet_raw" / "Dataset001_Organs"
    slices = folder / "nnUNet_raw" / "Dataset002_Slices"
    for number in range(8):
        name, spacing = f"organs_{number}", (0.7 + 0.1 * (number % 3), 1.3, 5.0)
        shape = (5, 14, 16)
        organ, lesion = _blobs(rng, shape, share=0.4), _blobs(rng, shape, share=0.08)
        labels = np.where(lesion, 2, organ.astype(int))
        labels[labels == 2] = 1 if number in (2, 3) else 2
        ignored = rng.random(shape) < (0.1 if number % 2 else 0)
        sparse = np.where((labels == 2) & (rng.random(shape) < 0.5), 0, labels)
        _write(organs / "labelsTr" / f"{name}.nii.gz", np.where(ignored, 4, labels), spacing)
        _write(organs / "labelsTr_sparse" / f"{name}.nii.gz", sparse, spacing)
        components = ndimage.label(labels == 2)[0]
        _write(organs / "instancesTr" / f"{name}.nii.gz", np.where(ignored, 0, components), spacing)
        for place, model in enumerate(MODELS):
            wrong = rng.random(shape) < 0.1 + 0.05 * place
            predicted = np.where(wrong, np.roll(labels, 1 + place, axis=2), labels)
            if number == 3 or (number, place) == (5, 1):
                predicted[predicted == 2] = 0
            if number == 6 and place == 2:
                predicted[0, :3, :3] = 3
            _write(folder / model / "Dataset001_Organs_all" / f"{name}.nii.gz", predicted, spacing)
    for number in range(6):
        name, spacing = f"slice_{number}", (0.9, 1.1, 1.0)
        whole = _blobs(rng, (1, 18, 20), share=0.4) if number else np.zeros((1, 18, 20), bool)
        core = ndimage.binary_erosion(whole[0])[None] if number != 4 else np.zeros_like(whole)
        labels = whole.astype(int) + core
        _write(slices / "labelsTr" / f"{name}.nii.gz", labels, spacing)
        for place, model in enumerate(MODELS):
            predicted = np.roll(labels, place + 1, axis=1 + number % 2)
            _write(folder / model / "Dataset002_Slices_val" / f"{name}.nii.gz", predicted, spacing)
    for dataset, description in ((organs, ORGANS), (slices, REGIONS)):
        (dataset / "dataset.json").write_text(json.dumps({**description, "channel_names": {"0": "MR"}}))

    def cases(dataset: Path, prefix: str, count: int, references: str = "labelsTr") -> Mapping[str, Case]:
        names = [f"{prefix}_{number}" for number in range(count)]
        return {name: Case((), dataset / references / f"{name}.nii.gz") for name in names}

    full = CaseSet("Dataset001_Organs", "all", ORGANS, cases(organs, "organs", 8), instances=organs / "instancesTr")
    sparse = CaseSet(
        "Dataset001_Organs", "all", ORGANS, cases(organs, "organs", 8, "labelsTr_sparse"), references="labelsTr_sparse"
    )
    single = CaseSet("Dataset002_Slices", "val", REGIONS, cases(slices, "slice", 6))
    return {model: [full, sparse, single] for model in MODELS}


def tables_of(page: str) -> list[list[str]]:
    """The text of a report's tables, a line for each row, without the tables of versions."""
    import re

    tables = []
    for table in re.findall(r"<table.*?</table>", page[: page.index("<h2>Versions</h2>")], re.DOTALL):
        rows = re.findall(r"<tr.*?</tr>", table, re.DOTALL)
        cells = [[_text(cell) for cell in re.findall(r"<t[hd].*?</t[hd]>", row, re.DOTALL)] for row in rows]
        tables.append([" | ".join(row) for row in cells])
    return tables


def _text(html: str) -> str:
    import re

    return " ".join(re.sub("<[^>]*>", " ", html.replace("<wbr>", "")).split())


def compact(content: Any) -> str:
    return json.dumps(content, separators=(",", ":"), sort_keys=True)
