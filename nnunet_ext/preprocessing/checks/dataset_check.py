"""What every check of a dataset is, and what several of them say and ask."""

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from nnunet_ext.errors import UserError
from nnunet_ext.findings import Finding
from nnunet_ext.formats.splits import Fold, read_splits
from nnunet_ext.preprocessing.raw.raw_dataset import Labels, RawDataset
from nnunet_ext.preprocessing.raw.splits import splits_files


class DatasetCheck(Protocol):
    """A check that is shown every case whose labels can be read, one after the other."""

    def __init__(self, dataset: RawDataset) -> None: ...

    def look_at(self, case: str, labels: Labels) -> None:
        """Take note of a case; nothing of the labels is kept but numbers."""

    def findings(self) -> Iterator[Finding]:
        """What was found in all cases."""


def single_labels(dataset: RawDataset) -> tuple[dict[str, int], str]:
    """Values by name of the foreground labels; if the dataset has regions none, and the reason."""
    try:
        return dataset.foreground_values(), ""
    except UserError as error:
        return {}, str(error)


def splits_file(dataset: RawDataset) -> Path | None:
    """The splits_final.json that a training would read: the preprocessed one, else what planning will take over."""
    return next(iter(splits_files(dataset.folder)), None)


def known_folds(dataset: RawDataset) -> list[Fold]:
    """The dataset's folds; none where there are none yet, or they are found to be wrong elsewhere."""
    file = splits_file(dataset)
    try:
        return read_splits(file) if file is not None else []
    except UserError:
        return []
