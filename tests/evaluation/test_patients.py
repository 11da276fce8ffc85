"""Patients come from a plain object or a pairs.json; what does not say them is refused."""

from __future__ import annotations

import json

import pytest

from nnunet_ext.errors import UserError
from nnunet_ext.evaluation.patients import read_patients


@pytest.fixture
def file(tmp_path):
    return tmp_path / "patiënts of ü.json"


@pytest.mark.parametrize(
    "content",
    [
        {"a": "P1", "b": 2, "other": "P9"},
        {"modality": "MRI", "cases": {"a": {"patient": "P1", "shift": 3.0}, "b": {"patient": 2}, "other": {}}},
    ],
)
def test_both_forms_give_the_patient_of_each_case(file, content):
    file.write_text(json.dumps(content), encoding="utf-8")
    assert read_patients(file, ["b", "a"]) == {"a": "P1", "b": "2"}


def test_a_case_may_be_called_cases(file):
    file.write_text('{"cases": "P1", "b": "P2"}')
    assert read_patients(file, ["cases", "b"]) == {"cases": "P1", "b": "P2"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"a": "P1"}', r"names no patient for 2 of 3 cases, e\.g\. b\. Add them, or leave out --patients"),
        ('{"cases": {"a": {}, "b": {"patient": "1"}, "c": {"patient": "1"}}}', "has None as the patient of case a"),
        ('{"a": "", "b": "1", "c": "1"}', "has '' as the patient of case a"),
        ('{"a": "1", "b": true, "c": "1"}', "has True as the patient of case b"),
        ('{"a": "1", "b": ["1"], "c": "1"}', r"has \['1'\] as the patient of case b, .* The file needs"),
        ('["a"]', "does not name the patient"),
        ("{", "is not valid JSON"),
    ],
)
def test_what_names_no_patient_is_refused(file, content, message):
    file.write_text(content)
    with pytest.raises(UserError, match=message):
        read_patients(file, ["a", "b", "c"])


def test_a_missing_file_is_named(file):
    with pytest.raises(UserError, match="does not exist"):
        read_patients(file, ["a"])


def test_forms_of_unicode_make_no_difference(file):
    file.write_text(json.dumps({"zo\u00eb 1": "Zo\u00eb", "zo\u00eb 2": "Zoe\u0308"}))
    cases = ["zoe\u0308 1", "zo\u00eb 2"]
    assert read_patients(file, cases) == dict.fromkeys(cases, "Zo\u00eb")
    assert read_patients(file, [*cases, "other"], are_all_named=False) == dict.fromkeys(cases, "Zo\u00eb")
