"""A raw dataset of the same images with weaker labels, and the dense ones beside them."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from nnunet_ext.errors import UserError
from nnunet_ext.files import write_json
from nnunet_ext.plans.channel_roles import roles_in
from nnunet_ext.preprocessing.raw.new_dataset import DENSE, WEAK, copy_splits, new_dataset, write_description
from nnunet_ext.preprocessing.raw.raw_dataset import Labels, RawDataset, write_label_map
from nnunet_ext.version import __version__

LARGEST_NUMBER = 65535  # label maps and instance maps are written with 16 bits


@dataclass
class WeakerDataset:
    """A dataset in the making."""

    source: RawDataset  # the dataset with dense labels
    name: str  # of the new dataset
    folder: Path  # its unfinished folder
    reader: Any  # nnU-Net's, for the files of both
    flat: bool = True  # whether all images that were read are two-dimensional

    def dense_labels(self, doing: str) -> Iterator[tuple[str, Labels, dict[str, Any]]]:
        """Read the source's labels, keep them in `DENSE`, and give each case with its labels and image's geometry."""
        for case in tqdm(self.source.cases, desc=doing, unit="case", disable=None):
            labels, _ = self.source.read_labels(self.reader, case)
            properties = self.source.geometry(self.reader, case, labels.shape)
            self.flat &= labels.shape[0] == 1
            self.write(DENSE, case, labels, properties)
            yield case, labels, properties

    def file(self, part: str, case: str) -> Path:
        """A case's file in one of the folders."""
        return self.folder / part / f"{case}{self.source.ending}"

    def write(self, part: str, case: str, labels: Labels, properties: Mapping[str, Any]) -> None:
        """Write a case's map into one of the folders."""
        write_label_map(self.reader, labels, self.file(part, case), properties)

    def finish(
        self, about: Mapping[str, Any], *, record: str, cases: Mapping[str, Any], labels: Mapping[str, Any]
    ) -> None:
        """Write dataset.json with its labels, the folds of the source, and what was done in the JSON file `record`."""
        about = {"version": __version__, "source": self.source.folder.name, **about}
        about |= roles_in(self.source.description)
        description = {**self.source.description, "labels": labels}
        write_description(self.folder, self.name, self.source.cases, description, about=about)
        write_json(self.folder / record, {**about, "cases": cases})
        copy_splits(self.source, self.folder)


@contextmanager
def weaker_dataset(source: RawDataset, name: str, *, force: bool) -> Iterator[WeakerDataset]:
    """Begin a dataset that is there only if the block ends well; a UserError if its source is not dense."""
    if name == source.folder.name:
        raise UserError(f"{name} is the source itself. Choose another name.")
    if (source.folder / DENSE).is_dir():
        raise UserError(f"{source.folder} has a {DENSE}, so its {WEAK} is not dense. Name a dataset whose {WEAK} is.")
    if source.annotated_labels().are_partial(source.cases):
        raise UserError(f"By its dataset.json, {source.folder.name} is not annotated for every label in every case.")
    with new_dataset(name, force=force, made_from=source.files) as folder:
        yield WeakerDataset(source, name, folder, source.reader_writer())
