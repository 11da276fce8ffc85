"""Folders of predictions, whoever made them, beside folders of references."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from nnunet_ext.errors import UserError
from nnunet_ext.evaluation.case_sets import SHOWN, CaseSet, check_instance_maps
from nnunet_ext.evaluation.scored_labels import ScoredLabels, match_labels
from nnunet_ext.formats.dataset_json import checked_dataset_json
from nnunet_ext.formats.names import case_names, check_names
from nnunet_ext.formats.typed import read_typed
from nnunet_ext.preprocessing.raw.raw_dataset import Case

SELECTION = "predicted"

Found = tuple[CaseSet, ScoredLabels, list[str]]
"""Cases, their labels, and remarks on the cases that were left out."""


def predicted_cases(
    predictions: Path, references: Path, *, dataset_json: Path | None, instances: Path | None, partial: bool
) -> Found:
    """The cases of a folder of predictions, ``<case>.<ending>``, with references of the same names in another folder.

    Args:
        dataset_json: file with the labels and the file ending. Without, it is the dataset.json among the predictions
            for their labels, and the one beside the folder of references for theirs; if there is only one, it is both.
        instances: folder with maps of the references' instances.
        partial: whether to leave out cases that are in one of the folders alone.

    Returns:
        The cases that are in both folders, their labels, and remarks on the cases that were left out.

    Raises:
        UserError: if a folder or the dataset.json is missing, or the cases or labels do not fit.
    """
    references = references.resolve()
    for folder in (predictions, references, *([] if instances is None else [instances])):
        if not folder.is_dir():
            raise UserError(f"The folder {folder} does not exist.")
    dataset = references.parent.name or references.name
    check_names((dataset, references.name), what="folder of references", where=references)
    ours, theirs = _descriptions(predictions, references, dataset_json)
    ending = str(ours["file_ending"])
    if theirs["file_ending"] != ending:
        raise UserError(
            f"By their dataset.json, predictions in {predictions} end in {ending}, but references in {references} end "
            f"in {theirs['file_ending']}. They must be of one format."
        )
    predicted, known = case_names(predictions, ending), case_names(references, ending)
    remarks = _only_in_one(predictions, predicted, known, "reference in", references)
    remarks += _only_in_one(references, known, predicted, "prediction in", predictions)
    common = [case for case in predicted if case in set(known)]
    if not common:
        raise UserError(
            f"{predictions} and {references} have no case in common that ends in {ending}. Give the files of a "
            "case the same name in both."
        )
    if remarks and not partial:
        raise UserError(f"{' '.join(remarks)} Add --partial to score the {len(common)} cases that are in both.")
    files = {case: Case((), references / f"{case}{ending}") for case in common}
    cases = CaseSet(dataset, SELECTION, theirs, files, references.name, instances)
    check_instance_maps(cases)
    return cases, match_labels(ours, theirs, name=str(references)), remarks


def in_all_folders(found: Sequence[Found]) -> list[Found]:
    """The cases that every folder of references has, so that scores are of the same cases.

    Args:
        found: what `predicted_cases` has found of each folder.

    Raises:
        UserError: if no case is in all of them.
    """
    common = set.intersection(*(set(cases.cases) for cases, _, _ in found))
    if not common:
        folders = ", ".join(cases.title for cases, _, _ in found)
        raise UserError(f"No case has a label in each of {folders}. Score one folder at a time.")
    return [
        (replace(cases, cases={case: files for case, files in cases.cases.items() if case in common}), labels, remarks)
        for cases, labels, remarks in found
    ]


def _descriptions(
    predictions: Path, references: Path, dataset_json: Path | None
) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """The dataset.json of the predictions and that of the references."""
    beside = [folder / "dataset.json" for folder in (predictions, references.parent)]
    found = [file for file in beside if file.is_file()] if dataset_json is None else [dataset_json]
    if not found:
        raise UserError(
            f"Neither {beside[0]} nor {beside[1]} exists, so the labels are not known. Give a dataset.json with "
            "--dataset-json FILE."
        )
    # channels do not matter here
    ours, theirs = (
        checked_dataset_json(
            {"channel_names": {"0": "image"}, **read_typed(dict[str, Any], file, maker="nnU-Net")}, where=file
        )
        for file in (found[0], found[-1])
    )
    return ours, theirs


def _only_in_one(here: Path, cases: Sequence[str], others: Sequence[str], lacking: str, there: Path) -> list[str]:
    """A sentence about the cases of one folder that the other lacks, if there are any."""
    missing = [case for case in cases if case not in set(others)]
    shown = ", ".join(missing[:SHOWN]) + (", …" if len(missing) > SHOWN else "")
    return [f"{len(missing)} of {len(cases)} cases in {here} have no {lacking} {there}: {shown}."] if missing else []
