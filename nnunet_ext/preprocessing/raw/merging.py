"""Several raw datasets with labels of their own as one, which says what each case was annotated for."""

import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from nnunet_ext.errors import UserError
from nnunet_ext.files import check_apart, write_json
from nnunet_ext.formats.annotated_labels import LISTS, SCRIBBLED
from nnunet_ext.preprocessing.raw.merge_plan import READER, Merge, Source
from nnunet_ext.preprocessing.raw.new_dataset import check_new_name, new_dataset, write_description
from nnunet_ext.preprocessing.raw.raw_dataset import Case, write_label_map
from nnunet_ext.preprocessing.raw.splits import SPLITS, cross_validation, joined
from nnunet_ext.version import __version__


def merge_datasets(merge: Merge, name: str, *, copy: bool, force: bool) -> bool:
    """Write the merged raw dataset, with folds that have patients of each source; whether all images are 2D.

    Images stay where they are unless `copy` is true. `name` and `force` are as in `new_dataset`.
    """
    target = check_new_name(name, force=force)
    check_apart(target, [source.dataset.folder for source in merge.sources])
    first, flat, cases = merge.sources[0].dataset, True, dict[str, Case]()
    reader, ending = first.reader_writer(), first.ending
    with new_dataset(name, force=force) as folder:
        if copy:
            (folder / "imagesTr").mkdir()
        for source in merge.sources:
            for own, new in tqdm(source.names.items(), desc=source.dataset.folder.name, unit="case", disable=None):
                case = source.dataset.cases[own]
                labels, properties = source.dataset.read_labels(reader, own)
                flat &= labels.shape[0] == 1
                table = _table(source, own, merge.labels)
                write_label_map(reader, table[labels], folder / "labelsTr" / f"{new}{ending}", properties)
                images = [case.images[place] for place in source.channels] if len(case.images) > 1 else case.images
                if missing := [image for image in images if not image.is_file()]:
                    raise UserError(f"{missing[0]} does not exist.")
                copied = _copied(images, own, new, folder, ending) if copy else images
                cases[new] = Case(
                    tuple(target / file.relative_to(folder) if copy else file for file in copied), case.label
                )
        if folds := joined([(cross_validation(one.patients), list(one.names.values())) for one in merge.sources]):
            write_json(folder / SPLITS, folds)
        write_description(folder, name, cases, _description(merge), about=_about(merge))
    return flat


def _description(merge: Merge) -> dict[str, Any]:
    first = merge.sources[0].dataset.description
    kept = {READER: first[READER]} if READER in first else {}
    channels = {str(number): channel for number, channel in enumerate(merge.channels)}
    return {"channel_names": channels, "labels": merge.labels, "file_ending": first["file_ending"], **kept}


def _about(merge: Merge) -> dict[str, Any]:
    lists = {case: labels for source in merge.sources for case, labels in merge.lists(source).items()}
    sources = {source.dataset.folder.name: list(source.names.values()) for source in merge.sources}
    scribbled = [new for source in merge.sources for own, new in source.names.items() if own in source.lists.scribbled]
    about = {"made_by": "merge", "version": __version__, "sources": sources, LISTS: lists}
    return about | ({SCRIBBLED: scribbled} if scribbled else {})


def _table(source: Source, case: str, values: Mapping[str, int]) -> np.ndarray:
    """The merged dataset's value by that in a case of the source; 0 for labels that it was not annotated for."""
    own, known = source.dataset.foreground_values(), source.annotated(case)
    renumbered = {own[label]: values[new] for label, new in source.labels.items() if new in known}
    if source.dataset.ignore_label is not None:
        renumbered[source.dataset.ignore_label] = values["ignore"]
    table = np.zeros(max(source.dataset.known_values) + 1, dtype=np.uint16)
    for value, new in renumbered.items():
        table[value] = new
    return table


def _copied(images: Sequence[Path], own: str, new: str, folder: Path, ending: str) -> Iterator[Path]:
    """Copy a case's images under its new name, with the file beside a TIFF that has its spacing."""
    if ending == ".mhd":
        raise UserError("Images that end in .mhd have a second file each. Leave --copy out, or convert them.")
    beside = images[0].with_name(f"{own}.json")
    if beside.is_file():
        shutil.copyfile(beside, folder / "imagesTr" / f"{new}.json")
    for number, image in enumerate(images):
        yield Path(shutil.copyfile(image, folder / "imagesTr" / f"{new}_{number:04d}{ending}"))
