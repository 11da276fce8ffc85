import platform
from pathlib import Path

from benchmarks.engine.provenance import COMMIT, commit, machine_line, markdown_table, provenance_lines, shown_command


def test_folders_of_this_machine_are_replaced_in_commands():
    command = ["tool", "-i", "/data/run/in", "-o", "/data/run/my out"]
    assert shown_command(command, {Path("/data/run"): "$OUT"}) == "tool -i $OUT/in -o '$OUT/my out'"


def test_origin_names_versions_and_neither_host_nor_folder():
    text = "\n".join(provenance_lines([machine_line("cpu")], ["python -m something"], commits="abc"))
    assert all(f"{name} " in text for name in ("torch", "nnunetv2", "nnunet_ext", "python", "cores"))
    assert "- Commit: abc\n" in text
    assert "python -m something" in text
    assert platform.node() not in text
    assert str(Path.cwd()) not in text


def test_commit_of_a_copy_is_what_a_variable_says(tmp_path, monkeypatch):
    assert commit(tmp_path) is None
    monkeypatch.setenv(COMMIT, "abc")
    assert commit(tmp_path) == commit(Path(__file__).parents[2]) == "abc"


def test_table_is_aligned_as_plain_text():
    lines = markdown_table(["name", "n"], [["a", "1"], ["longer", "123"]])
    assert lines == [
        "| name   |   n |",
        "| ------ | --: |",
        "| a      |   1 |",
        "| longer | 123 |",
    ]
