"""Which cases are of one patient: by a pattern in their names, or by what `nnunet_ext pair` recorded."""

from collections.abc import Sequence
from pathlib import Path

from nnunet_ext.errors import UserError
from nnunet_ext.files import read_json
from nnunet_ext.formats.names import composed
from nnunet_ext.preprocessing.raw.splits import group_cases

PAIRS = "pairs.json"
"""The record of `nnunet_ext pair` in the raw dataset that it made."""


def patients_of_cases(file: Path) -> dict[str, str]:
    """The patient of each case by what `nnunet_ext pair` recorded; nothing if there is no such record.

    A UserError says if the record was damaged: patients must not be in two parts of a fold.
    """
    if not file.is_file():
        return {}
    content = read_json(file)
    cases = content.get("cases") if isinstance(content, dict) else None
    if not isinstance(cases, dict):  # of another program, whose table of pairs may be called so too
        if isinstance(content, dict) and content.get("made_by") == "pair":
            raise UserError(f"{file} must name the patient of each case, as nnunet_ext pair writes it. Make it anew.")
        return {}
    found = {case: entry.get("patient") for case, entry in cases.items() if isinstance(entry, dict)}
    return {case: composed(str(patient)) for case, patient in found.items() if isinstance(patient, str | int)}


def groups_of_cases(cases: Sequence[str], pattern: str | None, raw: Path | None) -> dict[str, list[str]]:
    """The cases of each patient, both in order.

    Args:
        cases: their names.
        pattern: as of `group_cases`; None takes the patients that the raw dataset's record of pairs names, and each
            case that it does not name as a patient of its own.
        raw: folder of the raw dataset, None if there is none.

    Raises:
        UserError: if the pattern is wrong, or leaves a case without a patient.
    """
    known = patients_of_cases(raw / PAIRS) if pattern is None and raw is not None else {}
    if not known:
        return group_cases(cases, pattern)
    known = {composed(case): patient for case, patient in known.items()}
    groups: dict[str, list[str]] = {}
    for case in sorted(cases):
        groups.setdefault(known.get(composed(case), composed(case)), []).append(case)
    return dict(sorted(groups.items()))
