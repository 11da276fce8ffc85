import csv
import sys
from pathlib import Path

import pytest

from support import mutants
from support.mutants import Survivor, function_of, main, outcome, prepare, survivor, without_decorators

DECORATED = '''import torch


class Rows:
    @property
    def count(self):
        """How many."""
        return 2 + 1

    @staticmethod
    def zero():
        return 0

    @classmethod
    def one(cls):
        return cls()

    @torch.no_grad()
    @torch.compile(
        dynamic=True,
    )
    def step(self):
        return torch.is_grad_enabled()


@torch.no_grad()
def plain():
    return torch.is_grad_enabled()
'''

FAKE = """import sys
from pathlib import Path

statuses = Path("statuses.txt")
statuses.parent.joinpath("mutants").mkdir(exist_ok=True)
with open("calls.txt", "a") as calls:
    calls.write(" ".join(sys.argv[1:]) + "\\n")
if sys.argv[1] == "results":
    print(statuses.read_text())
elif sys.argv[1] == "show":
    print(f"# {sys.argv[2]}: survived", "--- a.py", "+++ a.py", "@@ -1,3 +1,3 @@", sep="\\n")
    print(" def f(x):", "-    return x + 1", "+    return x - 1", sep="\\n")
"""


@pytest.fixture
def work(tmp_path, monkeypatch):
    """A folder to work in, and a program in place of mutmut that tells what ``statuses.txt`` in it says."""
    program = tmp_path / "bin" / "mutmut"
    program.parent.mkdir()
    # a path with a blank cannot stand in the first line of a program
    program.write_text(f"#!/bin/sh\n'''exec' \"{sys.executable}\" \"$0\" \"$@\"\n' '''\n{FAKE}")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program.with_name("python")))
    monkeypatch.setattr(mutants, "REPOSITORY", repository(tmp_path / "repository"))
    (tmp_path / "work").mkdir()
    return tmp_path / "work"


def repository(folder):
    for name, content in {
        "pyproject.toml": "[tool.mutmut]\n",
        "nnunet_ext/losses/ramps.py": DECORATED,
        "nnunet_ext/cli.py": DECORATED,
        "tests/losses/test_ramps.py": "",
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)
    return folder


def run(work, found, *options):
    (work / "statuses.txt").write_text("\n".join(f"    {name}: {status}" for name, status in found.items()))
    status = main(["--keep", "--work", str(work), "--out", str(work / "result"), *options])
    return status, (work / "result.md").read_text()


def mutant(folder, number):
    return f"nnunet_ext.{folder}.ramps.x_sigmoid_ramp__mutmut_{number}"


def test_decorators_stand_behind_their_functions_and_do_the_same():
    text = without_decorators(DECORATED)
    assert "@torch" not in text
    assert "@property" not in text
    assert "@staticmethod" in text
    assert "@classmethod" in text
    assert "    step = torch.no_grad()(torch.compile(dynamic=True)(step))" in text
    text = text.replace("torch.compile(dynamic=True)", "")
    names = {}
    exec(text, names)
    assert names["Rows"]().count == 3
    assert names["Rows"].zero() == 0
    assert names["Rows"]().step() is names["plain"]() is False


def test_names_tell_the_function():
    assert function_of("nnunet_ext.losses.ramps.x_sigmoid_ramp__mutmut_12") == "losses.ramps.sigmoid_ramp"
    assert function_of("nnunet_ext.losses.consistency.x__fixed__mutmut_1") == "losses.consistency._fixed"
    assert function_of("nnunet_ext.finetuning.entries.xǁRowsǁmatrix__mutmut_1") == "finetuning.entries.Rows.matrix"
    assert function_of("nnunet_ext.finetuning.a.xǁBǁ__init____mutmut_3") == "finetuning.a.B.__init__"


def test_a_change_over_several_lines_becomes_one():
    shown = "# name: survived\n--- a.py\n+++ a.py\n@@ -1,4 +1,3 @@\n def f():\n-    g(\n-        1)\n+    g()\n"
    assert survivor(mutant("losses", 1), shown) == Survivor("losses.ramps.sigmoid_ramp", "g( 1)", "g()")


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        ("killed", "noticed"),
        ("timeout", "noticed"),
        ("survived", "survived"),
        ("no tests", "survived"),
        ("suspicious", "survived"),
        ("not checked", "not tried"),
    ],
)
def test_what_mutmut_says_counts_as(status, expected):
    assert outcome(status) == expected


def test_a_twentieth_may_survive_and_no_more(work, capsys):
    found = {mutant("losses", number): "killed" for number in range(19)}
    status, text = run(work, {**found, mutant("losses", 19): "survived"})
    assert status == 0
    assert "may survive: kept." in text
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in capsys.readouterr().out.splitlines()]
    assert ["losses", "20", "19", "1", "5.0 %", "0"] in rows
    assert ["finetuning", "0", "0", "0", "-", "0"] in rows
    assert ["all", "20", "19", "1", "5.0 %", "0"] in rows
    status, text = run(work, {**found, mutant("losses", 19): "survived", mutant("networks", 1): "no tests"})
    assert status == 1
    assert "may survive: not kept." in text


def test_what_was_not_tried_is_no_success(work):
    status, text = run(work, {mutant("losses", 1): "killed", mutant("losses", 2): "not checked"})
    assert status == 1
    assert "may survive: not known yet." in text


def test_reasons_kept_by_hand_stand_beside_their_survivors(work):
    found = {mutant("losses", 1): "survived", mutant("networks", 1): "survived"}
    (work / "result_reasons.csv").write_text(
        "function,before,after,kind,reason\n"
        "losses.ramps.sigmoid_ramp,return x + 1,return x - 1,equivalent,the sign does not matter here\n"
        "networks.ramps.sigmoid_ramp,return x + 1,return x - 2,equivalent,of another change\n"
    )
    _, text = run(work, found)
    assert "equivalent: the sign does not matter here" in text
    assert "of another change" not in text
    with (work / "result.csv").open(newline="") as file:
        assert [(row["function"], row["kind"]) for row in csv.DictReader(file)] == [
            ("losses.ramps.sigmoid_ramp", "equivalent"),
            ("networks.ramps.sigmoid_ramp", "none yet"),
        ]


def test_going_on_tries_the_survivors_again(work):
    run(work, {mutant("losses", 1): "killed", mutant("losses", 2): "survived"})
    assert (work / "calls.txt").read_text().splitlines()[0] == "run --max-children 1"
    (work / "calls.txt").unlink()
    run(work, {mutant("losses", 1): "killed", mutant("losses", 2): "survived"}, "--processes", "3")
    calls = [line for line in (work / "calls.txt").read_text().splitlines() if line.startswith("run")]
    assert calls == ["run --max-children 3", f"run --max-children 3 {mutant('losses', 2)}"]


def test_a_new_run_begins_with_nothing_and_a_failing_mutmut_is_told(work, capsys):
    run(work, {mutant("losses", 1): "killed"})
    # the program fails, because its list has gone with the folder
    assert main(["--work", str(work), "--out", str(work / "result")]) == 2
    assert "'mutmut results --all true' ended with exit status 1" in capsys.readouterr().err
    assert (work / "calls.txt").read_text().splitlines() == ["run --max-children 1", "results --all true"]


def test_the_copy_follows_the_repository_and_leaves_what_has_not_changed(work):
    source = mutants.REPOSITORY
    prepare(work)
    assert "count = property(count)" in (work / "nnunet_ext/losses/ramps.py").read_text()
    assert (work / "nnunet_ext/cli.py").read_text() == DECORATED
    times = {path: path.stat().st_mtime_ns for path in work.rglob("*.py")}
    (source / "nnunet_ext/cli.py").write_text("changed = True\n")
    (source / "tests/losses/test_ramps.py").unlink()
    prepare(work)
    changed = [path for path, time in times.items() if not path.is_file() or path.stat().st_mtime_ns != time]
    assert sorted(path.name for path in changed) == ["cli.py", "test_ramps.py"]


def test_without_mutmut_it_says_how_to_install_it(work, monkeypatch, capsys):
    monkeypatch.setattr(sys, "executable", str(Path(work, "python")))
    assert main(["--work", str(work)]) == 2
    assert "pip install" in capsys.readouterr().err
