"""A dataset and a stand-in for a model that labels it, so that what must come out is known."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from skimage import io

SOURCE, NEW = "Dataset705_Partial", "Dataset706_Completed"
SHAPE = (4, 5, 6)
SPACING, ORIGIN = (0.7, 0.8, 2.5), (-3.0, 4.0, 5.0)


class StandIn:
    """In the place of nnU-Net's predictor: foreground is as probable as the image is bright, times the fold's factor.

    Attributes:
        calls: the cases that were predicted.
        stop_at: the case at which Ctrl-C is pressed.
    """

    def __init__(self, folds: Any) -> None:
        self.list_of_parameters = [{"factor": 1 - 0.3 * int(fold)} for fold in folds]
        self.calls: list[str] = []
        self.stop_at: str | None = None

    def predict_from_files_sequential(self, images: Any, targets: None, *, save_probabilities: bool) -> Any:
        assert targets is None
        assert save_probabilities
        ((file,),) = images
        name = Path(file).name.partition("_0000")[0]
        if name == self.stop_at:
            raise KeyboardInterrupt
        self.calls.append(name)
        factor = np.mean([weights["factor"] for weights in self.list_of_parameters])
        image = io.imread(file)[None] / 255 if file.endswith(".png") else sitk.GetArrayFromImage(sitk.ReadImage(file))
        foreground = np.where(image > 1, np.nan, image * factor).astype(np.float32)
        print("what nnU-Net prints")
        return [(None, np.stack([1 - foreground, foreground]))]


class Workplace:
    """nnU-Net's folders with a dataset of three cases, and what looks like a model of two folds trained on it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.raw, self.preprocessed, self.results = (
            root / name for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")
        )
        self.source = self.raw / SOURCE
        self.model = self.results / SOURCE / "nnUNetTrainerX__nnUNetPlans__3d_fullres"
        for folder in ("imagesTr", "labelsTr"):
            (self.source / folder).mkdir(parents=True)
        self.description: dict[str, Any] = {
            "channel_names": {"0": "MRI"},
            "labels": {"background": 0, "node": 1},
            "numTraining": 3,
            "file_ending": ".nii.gz",
            "licence": "free",
        }
        for number in range(3):
            self.write_case(f"case_{number}", *case_arrays())
        for fold in (0, 1):
            (self.model / f"fold_{fold}").mkdir(parents=True)
            (self.model / f"fold_{fold}" / "checkpoint_final.pth").write_text(f"weights of fold {fold}")
        (self.model / "plans.json").write_text('{"image_reader_writer": "SimpleITKIO", "configurations": {}}')
        (self.preprocessed / SOURCE).mkdir(parents=True)
        self.write_splits([(["case_1", "case_2"], ["case_0"]), (["case_0"], ["case_1", "case_2"])])
        self.describe()

    def describe(self, *, model: dict[str, Any] | None = None, **changes: Any) -> None:
        """Write the dataset.json of the dataset, with changes, and of the model."""
        (self.source / "dataset.json").write_text(json.dumps({**self.description, **changes}))
        (self.model / "dataset.json").write_text(json.dumps({**self.description, **(model or {})}))

    def write_splits(self, folds: list[tuple[list[str], list[str]]]) -> None:
        splits = [{"train": training, "val": validation} for training, validation in folds]
        (self.preprocessed / SOURCE / "splits_final.json").write_text(json.dumps(splits))

    def write_case(self, name: str, image: np.ndarray, label: np.ndarray) -> None:
        for array, file in ((image, f"imagesTr/{name}_0000.nii.gz"), (label, f"labelsTr/{name}.nii.gz")):
            written = sitk.GetImageFromArray(array)
            written.SetSpacing(SPACING)
            written.SetOrigin(ORIGIN)
            sitk.WriteImage(written, str(self.source / file))

    def labels(self, case: str, dataset: str = NEW) -> np.ndarray:
        return sitk.GetArrayFromImage(sitk.ReadImage(str(self.raw / dataset / "labelsTr" / f"{case}.nii.gz")))

    def read(self, file: str) -> Any:
        return json.loads((self.raw / NEW / file).read_text())

    def hidden(self) -> list[str]:
        return sorted(path.name for path in self.raw.rglob(".*"))


def case_arrays() -> tuple[np.ndarray, np.ndarray]:
    """An annotated node, bright beyond its boundary; one that is not annotated; a dim one; a bright speck."""
    image, label = np.zeros(SHAPE, np.float32), np.zeros(SHAPE, np.uint8)
    image[0, 0, 0:3], label[0, 0, 0:2] = 0.9, 1
    image[0, 3:5, 0:3] = 0.8
    image[2, 0:2, 0:2] = 0.4
    image[3, 4, 5] = 0.95
    return image, label
