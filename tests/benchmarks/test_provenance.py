import json
import platform
from pathlib import Path

import torch
from benchmarks.provenance import (
    commit,
    markdown_table,
    provenance,
    provenance_lines,
    shown_command,
    with_interval,
    write_results,
)


def test_folders_of_this_machine_are_replaced_in_commands():
    command = ["tool", "-i", "/data/run/in", "-o", "/data/run/my out"]
    assert shown_command(command, {Path("/data/run"): "$OUT"}) == "tool -i $OUT/in -o '$OUT/my out'"


def test_origin_names_versions_and_neither_host_nor_folder():
    origin = provenance(torch.device("cpu"), ["python -m something"])
    text = json.dumps(origin) + "\n".join(provenance_lines(origin))
    assert {"torch", "nnunetv2", "nnunet_ext", "python"} <= origin["versions"].keys()
    assert origin["machine"]["cores"] >= 1
    assert platform.node() not in text
    assert str(Path.cwd()) not in text


def test_outside_of_git_there_is_no_commit(tmp_path):
    assert commit(tmp_path) is None


def test_table_is_aligned_as_plain_text():
    lines = markdown_table(["name", "n"], [["a", "1"], ["longer", "123"]])
    assert lines == [
        "| name   |   n |",
        "| ------ | --: |",
        "| a      |   1 |",
        "| longer | 123 |",
    ]


def test_results_are_written_beside_each_other_with_a_dot_in_the_name(tmp_path):
    write_results(tmp_path / "new" / "run.1", {"a": 1}, ["# Title", "text"])
    assert json.loads((tmp_path / "new" / "run.1.json").read_text()) == {"a": 1}
    assert (tmp_path / "new" / "run.1.md").read_text() == "# Title\ntext\n"


def test_figure_is_shown_with_its_interval():
    values = {"value": 0.25, "low": -0.125, "high": 0.5}
    assert with_interval(values) == "0.250 [-0.125, 0.500]"
    assert with_interval(values, signed=True, digits=1) == "+0.2 [-0.1, +0.5]"
