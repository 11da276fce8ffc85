"""`nnunet_ext doctor` shows the findings and says by its exit status whether there is a problem."""

import argparse
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from nnunet_ext.commands import doctor
from nnunet_ext.findings import Finding
from nnunet_ext.registration import VARIABLE, discovery_folder
from nnunet_ext.registry import TRAINERS

OK = Finding("ok", "Python", "3.12")
WARNING = Finding("warning", "torch", "no GPU", "fix torch")
PROBLEM = Finding("problem", "nnUNet_raw", "is not set", "fix raw")


def run_with(monkeypatch: pytest.MonkeyPatch, *findings: Finding, as_json: bool = False) -> int:
    def diagnose(environ: object) -> Iterator[Finding]:
        return iter(findings)

    monkeypatch.setattr(doctor, "diagnose", diagnose)
    return doctor.run(argparse.Namespace(json=as_json))


def test_only_a_problem_makes_the_exit_status_one(monkeypatch: pytest.MonkeyPatch) -> None:
    assert run_with(monkeypatch, OK) == 0
    assert run_with(monkeypatch, OK, WARNING) == 0
    assert run_with(monkeypatch, PROBLEM, OK) == 1


def test_page_is_aligned_and_shows_each_fix(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run_with(monkeypatch, OK, WARNING, PROBLEM)
    lines = capsys.readouterr().out.splitlines()
    column = lines[2].index("3.12")
    shown = [line[column:] for line in lines[2:-2]]
    assert shown == ["3.12", "no GPU", "$ fix torch", "is not set", "$ fix raw"]
    assert lines[-1].startswith("1 problem and 1 warning found.")


def test_long_details_are_wrapped_and_commands_are_not() -> None:
    detail, fix = "word " * 60, "export A=" + "x y " * 60
    lines = str(Finding("problem", "title", detail, fix)).splitlines()
    assert max(map(len, lines[:-1])) <= 100
    assert len(lines) > 3
    assert lines[-1].strip() == f"$ {fix}".strip()


def test_json_holds_the_findings_and_their_numbers(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_with(monkeypatch, OK, WARNING, PROBLEM, as_json=True) == 1
    content = json.loads(capsys.readouterr().out)
    assert (content["problems"], content["warnings"]) == (1, 1)
    assert [Finding(**finding) for finding in content["findings"]] == [OK, WARNING, PROBLEM]


@pytest.mark.full
def test_good_installation_has_no_problem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.setenv(VARIABLE, str(discovery_folder()))
    monkeypatch.delenv("nnUNet_n_proc_DA", raising=False)
    before = dict(os.environ)
    status = doctor.run(argparse.Namespace(json=True))
    content = json.loads(capsys.readouterr().out)
    assert [finding for finding in content["findings"] if finding["severity"] == "problem"] == []
    assert status == 0
    assert f"finds {len(TRAINERS)} of {len(TRAINERS)} by name" in content["findings"][-1]["detail"]
    assert dict(os.environ) == before
