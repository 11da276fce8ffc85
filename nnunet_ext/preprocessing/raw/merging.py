"""Several raw datasets with labels of their own as one, which says what each case was annotated for."""

import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from nnunet_ext.errors import UserError
from nnunet_ext.files import write_json
from nnunet_ext.formats.annotated_labels import LISTS, SCRIBBLED
from nnunet_ext.formats.own_key import KEY
from nnunet_ext.formats.splits import Fold
from nnunet_ext.formats.tiff_spacing import spacing_file
from nnunet_ext.nnunet_names import SPLITS
from nnunet_ext.plans.channel_roles import LONGITUDINAL, roles_in, roles_of_dataset
from nnunet_ext.preprocessing.raw.merge_plan import READER, Merge, MergedSource
from nnunet_ext.preprocessing.raw.new_dataset import check_new_name, new_dataset, write_description
from nnunet_ext.preprocessing.raw.raw_dataset import Case, write_label_map
from nnunet_ext.preprocessing.raw.splits import cross_validation, joined
from nnunet_ext.version import __version__


def merge_datasets(merge: Merge, name: str, *, copy: bool, force: bool) -> bool:
    """Write the merged raw dataset, with folds that have patients of each source; whether all images are 2D.

    Images stay where they are unless `copy` is true. `name` and `force` are as in `new_dataset`.
    """
    roles, target = _roles(merge), check_new_name(name, force=force)
    first, flat, cases = merge.sources[0].dataset, True, dict[str, Case]()
    reader, ending = first.reader_writer(), first.ending
    read = [file for source in merge.sources for file in source.dataset.files]
    with new_dataset(name, force=force, made_from=read) as folder:
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
                copied = _copied(images, new, folder, ending) if copy else images
                cases[new] = Case(
                    tuple(target / file.relative_to(folder) if copy else file for file in copied), case.label
                )
        if folds := joined([part for source in merge.sources for part in _folds(merge, source)]):
            write_json(folder / SPLITS, folds)
        write_description(folder, name, cases, _description(merge), about={**_about(merge), **roles})
    return flat


def _folds(merge: Merge, source: MergedSource) -> Iterator[tuple[list[Fold], list[str]]]:
    """The folds of a source's patients; those without any annotation are for training alone and have none."""
    lists = merge.lists(source)
    annotated = {patient: cases for patient, cases in source.patients.items() if any(lists[case] for case in cases)}
    yield cross_validation(annotated), [case for cases in annotated.values() for case in cases]
    yield [], [case for patient, cases in source.patients.items() if patient not in annotated for case in cases]


def _roles(merge: Merge) -> dict[str, Any]:
    """What dataset.json says of the channels' roles; a UserError if the sources say different things."""
    said = []
    for source in merge.sources:
        given = roles_in(source.dataset.description)
        roles = roles_of_dataset(source.dataset.description).model_dump() if given else {}
        places = {old: new for new, old in enumerate(source.channels)}
        said.append({role: [places[old] for old in olds if old in places] for role, olds in roles.items()})
    names = [source.dataset.folder.name for source in merge.sources]
    if other := next((number for number, roles in enumerate(said) if roles != said[0]), None):
        raise UserError(
            f"The roles of the channels in {names[0]} and {names[other]} differ: {said[0] or 'none'} and "
            f'{said[other] or "none"}, in the order of the merged channels. Give both the same "{KEY}": '
            f'"{LONGITUDINAL}" in dataset.json, or take it out of both.'
        )
    has_both = said[0] and said[0]["current"] and (said[0]["prior_image"] or said[0]["prior_labels"])
    return {LONGITUDINAL: said[0]} if has_both else {}


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


def _table(source: MergedSource, case: str, values: Mapping[str, int]) -> np.ndarray:
    """The merged dataset's value by that in a case of the source; 0 for labels that it was not annotated for."""
    own, known = source.dataset.foreground_values(), source.annotated(case)
    renumbered = {own[label]: values[new] for label, new in source.labels.items() if new in known}
    if source.dataset.ignore_label is not None:
        renumbered[source.dataset.ignore_label] = values["ignore"]
    table = np.zeros(max(source.dataset.known_values) + 1, dtype=np.uint16)
    for value, new in renumbered.items():
        table[value] = new
    return table


def _copied(images: Sequence[Path], new: str, folder: Path, ending: str) -> Iterator[Path]:
    """Copy a case's images under its new name, with the file beside a TIFF that has its spacing."""
    if ending == ".mhd":
        raise UserError("Images that end in .mhd have a second file each. Leave --copy out, or convert them.")
    if beside := spacing_file(images[0], is_image=True):
        shutil.copyfile(beside, folder / "imagesTr" / f"{new}.json")
    for number, image in enumerate(images):
        yield Path(shutil.copyfile(image, folder / "imagesTr" / f"{new}_{number:04d}{ending}"))
