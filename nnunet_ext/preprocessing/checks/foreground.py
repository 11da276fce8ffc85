"""Is every label in use?"""

from collections.abc import Iterator

import numpy as np

from nnunet_ext.findings import Finding
from nnunet_ext.formats.dataset_json import declared_values
from nnunet_ext.preprocessing.raw.raw_dataset import Labels, RawDataset


class ForegroundCheck:
    """Finds labels that no case has."""

    def __init__(self, dataset: RawDataset) -> None:
        self.names = {
            value: name
            for value, name in declared_values(dataset.description).items()
            if value not in (0, dataset.ignore_label)
        }
        self.present: set[int] = set()

    def look_at(self, case: str, labels: Labels) -> None:
        self.present |= set(np.unique(labels).tolist())

    def findings(self) -> Iterator[Finding]:
        unused = {value: name for value, name in self.names.items() if value not in self.present}
        if len(unused) == len(self.names):
            detail = "no case has any: there is nothing to learn, and nnU-Net's planning stops at it."
            yield Finding("problem", "foreground", detail)
        elif unused:
            names = ", ".join(f"{name} ({value})" for value, name in unused.items())
            yield Finding("warning", "foreground", f"dataset.json has labels that no case has: {names}.")
        else:
            yield Finding("ok", "foreground", "each label of dataset.json is in some case.")
