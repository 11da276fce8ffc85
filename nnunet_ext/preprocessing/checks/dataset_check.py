"""What every check of a dataset is, and what several of them say and ask."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from nnunet_ext.errors import UserError
from nnunet_ext.findings import Finding
from nnunet_ext.plans.plans_file import dataset_folder
from nnunet_ext.preprocessing.raw.raw_dataset import Labels, RawDataset
from nnunet_ext.preprocessing.raw.splits import SPLITS, Fold, read_splits


class DatasetCheck(Protocol):
    """A check that is shown every case whose labels can be read, one after the other."""

    def __init__(self, dataset: RawDataset) -> None: ...

    def look_at(self, case: str, labels: Labels) -> None:
        """Take note of a case; nothing of the labels is kept but numbers."""

    def findings(self) -> Iterator[Finding]:
        """What was found in all cases."""


def splits_file(dataset: RawDataset) -> Path | None:
    """The splits_final.json that a training would read: the preprocessed one, else what planning will take over."""
    places = [dataset.folder]
    if os.environ.get("nnUNet_preprocessed"):
        preprocessed = dataset_folder("nnUNet_preprocessed", dataset.folder.name)
        places = [*([preprocessed] if preprocessed else []), *places]
    return next((place / SPLITS for place in places if (place / SPLITS).is_file()), None)


def known_folds(dataset: RawDataset) -> list[Fold]:
    """The dataset's folds; none where there are none yet, or they are found to be wrong elsewhere."""
    file = splits_file(dataset)
    try:
        return read_splits(file) if file is not None else []
    except UserError:
        return []
