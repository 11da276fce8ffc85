"""``nnunet_ext report``: one page of what folders hold, and clear refusals."""

from __future__ import annotations

import json

import pytest

from nnunet_ext.cli import main
from nnunet_ext.commands.report import named_path
from support.made_results import write_model, write_raw


@pytest.fixture
def models(tmp_path):
    """Two models in a place with a blank and an umlaut."""
    root = tmp_path / "Über uns"
    write_raw(root, [f"case_{number}" for number in range(3)])
    cases = {"case_0": 0, "case_1": 1, "case_2": 2}
    return [write_model(root, {0: cases}, trainer=f"nnUNetTrainer{name}") for name in ("A", "B")]


def test_page_is_written_and_named(tmp_path, models, capsys):
    out = tmp_path / "my report.html"
    assert main(["report", *map(str, models), "-o", str(out)]) == 0
    said = capsys.readouterr()
    assert said.out.startswith(f"Wrote {out} (")
    assert said.err == ""  # no progress where there is no terminal
    page = out.read_text(encoding="utf-8")
    assert "Über uns" in page
    assert f"-o &#39;{out}&#39;" in page
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == [out.name]


def test_the_page_may_have_a_title_of_its_own(tmp_path, models):
    out = tmp_path / "report.html"
    assert main(["report", str(models[0]), "--title", "Kidneys <1 cm", "-o", str(out)]) == 0
    page = out.read_text(encoding="utf-8")
    assert "<title>Kidneys &lt;1 cm</title>" in page
    assert "<h1>Kidneys &lt;1 cm</h1>" in page


def test_a_page_that_is_there_is_kept_unless_forced(tmp_path, models, capsys):
    out = tmp_path / "report.html"
    out.write_text("mine")
    assert main(["report", str(models[0]), "-o", str(out), "--force"]) == 2
    assert "does not say that this command made it" in capsys.readouterr().err
    assert out.read_text() == "mine"
    out.unlink()
    assert main(["report", str(models[0]), "-o", str(out)]) == 0
    before = out.read_text(encoding="utf-8")
    assert before.startswith("<!doctype html>")
    assert main(["report", str(models[0]), "-o", str(out)]) == 2
    assert "add --force to replace it" in capsys.readouterr().err
    assert out.read_text(encoding="utf-8") == before
    assert main(["report", str(models[0]), "--title", "Another", "-o", str(out), "--force"]) == 0
    assert out.read_text(encoding="utf-8") != before


@pytest.mark.parametrize(("name", "said"), [("report.txt", "ends in .html"), ("none/report.html", "does not exist")])
def test_output_that_cannot_be_is_refused(tmp_path, models, capsys, name, said):
    assert main(["report", str(models[0]), "-o", str(tmp_path / name)]) == 2
    assert said in capsys.readouterr().err


def test_names_seeds_and_baseline(tmp_path, models, capsys):
    out = tmp_path / "report.html"
    named = [f"first={models[0]}", f"second={models[1]}"]
    assert main(["report", *named, "--baseline", "second", "-o", str(out)]) == 0
    assert "Difference from second" in out.read_text(encoding="utf-8")
    assert main(["report", *named, "--baseline", "third", "-o", str(out), "--force"]) == 2
    assert "first; second" in capsys.readouterr().err
    assert main(["report", f"m={models[0]}", f"m={models[1]}", "-o", str(out), "--force"]) == 0
    assert "m, 2 seeds" in out.read_text(encoding="utf-8")


def test_patients_are_read_and_must_be_complete(tmp_path, models, capsys):
    file, out = tmp_path / "patients.json", tmp_path / "report.html"
    file.write_text(json.dumps({"case_0": "p", "case_1": "p"}))
    arguments = ["report", str(models[0]), "--patients", str(file), "-o", str(out)]
    assert main(arguments) == 2
    assert "case_2" in capsys.readouterr().err
    assert not out.exists()
    file.write_text(json.dumps({"case_0": "p", "case_1": "p", "case_2": "q"}))
    assert main(arguments) == 0
    assert "3 cases of 2 patients" in out.read_text(encoding="utf-8")


def test_what_is_missing_is_said_on_the_terminal_too(tmp_path, models, capsys):
    (models[0] / "fold_0" / "checkpoint_final.pth").unlink()
    assert main(["report", str(models[0]), "-o", str(tmp_path / "report.html")]) == 0
    assert "fold_0 has no checkpoint" in capsys.readouterr().out


def test_a_path_with_an_equals_sign_is_a_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lr=0.01").mkdir()
    assert named_path("lr=0.01")[0] is None
    assert named_path("other=lr=0.01")[0] == "other"
    assert named_path("other=lr=0.01")[1].name == "lr=0.01"
