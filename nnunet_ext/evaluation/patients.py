"""Which patient each case is of, from a file."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from nnunet_ext.errors import UserError
from nnunet_ext.files import read_json
from nnunet_ext.formats.names import composed

EXPECTED = 'The file needs {"CASE": "PATIENT", ...}, or a pairs.json as nnunet_ext pair writes it.'


def read_patients(file: Path, cases: Iterable[str], *, are_all_named: bool = True) -> dict[str, str]:
    """The patient of each of some cases, from JSON: ``{case: patient}``, or a pairs.json.

    Args:
        file: the file.
        cases: their names.
        are_all_named: whether each must have a patient in it; the others are left out if not.

    Raises:
        UserError: if the file is not of either form, or a case has no patient in it.
    """
    content = read_json(file)
    if not isinstance(content, dict):
        raise UserError(f"{file} does not name the patient of each case. {EXPECTED}")
    listed = content.get("cases")
    entries: dict[str, Any] = listed if isinstance(listed, dict) else content
    cases = list(cases)
    same = {composed(case): entry for case, entry in entries.items()}  # names of files may have another form of Unicode
    entries = {case: entries.get(case, same.get(composed(case))) for case in cases if composed(case) in same}
    cases = [case for case in cases if are_all_named or case in entries]
    missing = [case for case in cases if case not in entries]
    if missing:
        raise UserError(
            f"{file} names no patient for {len(missing)} of {len(cases)} cases, e.g. {missing[0]}. Add them, or leave "
            "out --patients if every case is a patient of its own."
        )
    patients = {case: entry.get("patient") if isinstance(entry := entries[case], dict) else entry for case in cases}
    for case, patient in patients.items():
        if isinstance(patient, bool) or not isinstance(patient, str | int) or patient == "":
            raise UserError(f"{file} has {patient!r} as the patient of case {case}, which is no name. {EXPECTED}")
    return {case: composed(str(patient)) for case, patient in patients.items()}
