"""Two runs at once: never a mixed or lost result."""

import json
from dataclasses import replace

import pytest

from faults.commands import LONGEST_S, WRITING, Written
from fuzz.commands import PLANNED
from nnunet_ext.claims import only_run
from nnunet_ext.plans import plans_file

pytestmark = pytest.mark.full


def without_patience():
    plans_file.PATIENCE_S = 0.0
    only_run.__wrapped__.__kwdefaults__["patience_s"] = 0.0


@pytest.mark.parametrize("command", WRITING, ids=lambda command: command.line[:40])
def test_what_another_run_is_writing_is_left_to_it(command, valid, tmp_path, expected):
    written = Written.prepare(command, valid, tmp_path / "taken")
    with only_run(written.target):
        assert written.run(before=without_patience) == 2
    (line,) = [line for line in written.output.splitlines() if "Another run" in line]
    assert f"is writing {written.target}" in line or f"is writing {written.target.name}" in line
    assert written.new() == {}
    assert written.run() == 0, written.output
    assert written.result() == expected(command)[0].result()


@pytest.mark.parametrize("command", WRITING, ids=lambda command: command.line[:40])
def test_of_two_at_once_one_writes_the_result(command, valid, tmp_path, expected):
    written = Written.prepare(command, valid, tmp_path / "two")
    runs = [written.start() for _ in range(2)]
    statuses = sorted(run.wait(LONGEST_S) for run in runs)
    assert statuses in ([0, 0], [0, 2]), written.output
    if statuses == [0, 2]:
        assert "Another run" in written.output or "add --force to replace it" in written.output
    assert "Traceback" not in written.output
    assert written.result() == expected(command)[0].result()
    assert written.inputs_changed() == []
    assert written.left_hidden() == []


def run_at_once(lines, valid, folder):
    """Start all commands together in one workspace, which is returned."""
    written = [Written.prepare(replace(WRITING[0], line=lines[0]), valid, folder)]
    written += [replace(written[0], command=replace(WRITING[0], line=line)) for line in lines[1:]]
    for one in written:
        one.inputs  # noqa: B018  before any of them writes
    runs = [one.start() for one in written]
    assert [run.wait(LONGEST_S) for run in runs] == [0] * len(runs), written[0].output
    return folder / "work space"


def test_configurations_that_are_written_at_once_are_all_there(valid, tmp_path):
    names = [f"fuzzed_{number}" for number in range(6)]
    lines = [f"configure -d 901 -c 3d_tiny --name {name} num_epochs=3" for name in names]
    folder = run_at_once(lines, valid, tmp_path / "edited") / PLANNED
    assert set(names) <= set(json.loads((folder / "nnUNetPlans.json").read_text())["configurations"])
    assert set(names) == set(json.loads((folder / plans_file.MEMORY).read_text())["nnUNetPlans"])


def test_folds_that_are_appended_at_once_are_all_there(valid, tmp_path):
    before = json.loads((valid / PLANNED / "splits_final.json").read_text())
    lines = [f"split -d 901 --shots 1 --val 1 --append --seed {seed}" for seed in range(4)]
    folder = run_at_once(lines, valid, tmp_path / "edited") / PLANNED
    after = json.loads((folder / "splits_final.json").read_text())
    alone = {json.dumps(fold) for line in lines for fold in folds_of(line, valid, tmp_path / line[-1])[len(before) :]}
    assert after[: len(before)] == before
    assert {json.dumps(fold) for fold in after[len(before) :]} == alone


def folds_of(line, valid, folder):
    return json.loads((run_at_once([line], valid, folder) / PLANNED / "splits_final.json").read_text())


def test_two_datasets_do_not_get_one_id(valid, tmp_path):
    written = [
        Written.prepare(replace(WRITING[0], line=f"simulate scribbles 901 -o Dataset911_{name}"), valid, tmp_path / "x")
        if name == "A"
        else Written(replace(WRITING[0], line=f"simulate scribbles 901 -o Dataset911_{name}"), tmp_path / "x")
        for name in "AB"
    ]
    for one in written:
        one.inputs  # noqa: B018  before any of them writes
    runs = [one.start() for one in written]
    assert sorted(run.wait(LONGEST_S) for run in runs) == [0, 2], written[0].output
    assert len(list((tmp_path / "x" / "work space" / "raw").glob("Dataset911_*"))) == 1
