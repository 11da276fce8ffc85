"""Files are written whole or not at all, and nothing is overwritten unasked."""

import json
import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from nnunet_ext.errors import UserError
from nnunet_ext.files import check_apart, check_new_file, machine, read_json, write_json, write_text, written_whole


def test_new_content_replaces_the_old(tmp_path: Path) -> None:
    target = tmp_path / "file.txt"
    write_text(target, "old")
    write_text(target, "nëw")
    assert target.read_text(encoding="utf-8") == "nëw"
    assert os.listdir(tmp_path) == ["file.txt"]


def write_half(target: Path, interruption: type[BaseException]) -> None:
    with written_whole(target) as temporary:
        temporary.write_text("half of the n")
        raise interruption


@pytest.mark.parametrize("interruption", [RuntimeError, KeyboardInterrupt, OSError])
def test_interruption_leaves_the_old_content_and_no_temporary_file(
    tmp_path: Path, interruption: type[BaseException]
) -> None:
    target = tmp_path / "file.txt"
    target.write_text("old")
    with pytest.raises(interruption):
        write_half(target, interruption)
    assert target.read_text() == "old"
    assert os.listdir(tmp_path) == ["file.txt"]


def test_interruption_of_a_new_file_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError):
        write_half(tmp_path / "file.txt", RuntimeError)
    assert os.listdir(tmp_path) == []


def test_target_keeps_its_content_until_the_block_has_ended(tmp_path: Path) -> None:
    target = tmp_path / "file.txt"
    target.write_text("old")
    with written_whole(target) as temporary:
        temporary.write_text("new")
        assert temporary.parent == tmp_path
        assert target.read_text() == "old"
    assert target.read_text() == "new"


@pytest.mark.skipif(os.name == "nt", reason="POSIX permissions")
def test_written_file_has_the_permissions_of_any_new_file(tmp_path: Path) -> None:
    write_text(tmp_path / "ours", "")
    (tmp_path / "any").write_text("")
    ours, other = (stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("ours", "any"))
    assert ours == other
    (tmp_path / "ours").chmod(0o660)
    write_text(tmp_path / "ours", "new")
    assert stat.S_IMODE((tmp_path / "ours").stat().st_mode) == 0o660, "those of before"


def test_json_keeps_key_order_and_reads_back(tmp_path: Path) -> None:
    content = {"b": [1, 2.5, None], "a": {"ä": True}}
    write_json(tmp_path / "plans.json", content)
    back = read_json(tmp_path / "plans.json")
    assert back == content
    assert list(back) == ["b", "a"]
    assert (tmp_path / "plans.json").read_text(encoding="utf-8").endswith("}\n")


def test_content_that_is_no_json_leaves_the_old_file(tmp_path: Path) -> None:
    write_json(tmp_path / "plans.json", {"old": 1})
    with pytest.raises(TypeError):
        write_json(tmp_path / "plans.json", {"new": object()})
    assert json.loads((tmp_path / "plans.json").read_text()) == {"old": 1}


def test_missing_and_broken_json_name_the_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="gone.json does not exist"):
        read_json(tmp_path / "gone.json")
    (tmp_path / "broken.json").write_text("{'a': 1}")
    with pytest.raises(UserError, match="broken.json is not valid JSON"):
        read_json(tmp_path / "broken.json")
    (tmp_path / "binary.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="binary.json is not valid JSON"):
        read_json(tmp_path / "binary.json")


def test_new_file_is_refused_before_any_work(tmp_path: Path) -> None:
    source, other = tmp_path / "source.zip", tmp_path / "other.zip"
    source.touch()
    other.touch()

    def check(target: Path, *, force: bool) -> None:
        check_new_file(
            target, ending=".zip", force=force, is_own=lambda file: file.read_text() == "own", sources=[source]
        )

    check(tmp_path / "new.zip", force=False)
    check(other, force=True)  # which is empty
    other.write_text("own")
    check(other, force=True)
    for target, message in (
        (tmp_path, "is a folder"),
        (tmp_path / "new.txt", r"ends in \.zip; found .*new\.txt"),
        (tmp_path / "none" / "new.zip", "none does not exist"),
        (other, "exists"),
    ):
        with pytest.raises(UserError, match=message):
            check(target, force=False)
    with pytest.raises(UserError, match="is the source itself"):
        check(source, force=True)
    other.write_text("somebody's")
    with pytest.raises(UserError, match="move or remove it"):
        check(other, force=True)


def test_full_disk_names_the_file_that_was_asked_for(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="full") as error, written_whole(tmp_path / "file"):
        raise OSError(28, "full")
    assert error.value.filename == str(tmp_path / "file")


@pytest.mark.parametrize("text", ["[" * 100_000, '{"x":' + "9" * 5000 + "}", "", "{", "\x00"])
def test_json_of_any_kind_is_a_message(tmp_path: Path, text: str) -> None:
    file = tmp_path / "x.json"
    file.write_text(text)
    with pytest.raises(UserError, match=r"x\.json"):
        read_json(file)


def test_json_that_is_a_folder_or_a_link_to_itself_is_a_message(tmp_path: Path) -> None:
    (tmp_path / "folder.json").mkdir()
    (tmp_path / "link.json").symlink_to("link.json")
    for name in ("folder.json", "link.json"):
        with pytest.raises(UserError, match=name):
            read_json(tmp_path / name)


def test_two_processes_that_write_one_file_do_not_share_what_is_unfinished(tmp_path: Path) -> None:
    names = []

    def write() -> None:
        with written_whole(tmp_path / "file") as temporary:
            names.append(temporary)
            both.wait()
            temporary.write_text(temporary.name)

    both = threading.Barrier(2)
    threads = [threading.Thread(target=write) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(names)) == 2
    assert (tmp_path / "file").read_text() in {name.name for name in names}


def test_what_a_killed_process_left_is_removed_and_that_of_a_living_one_stays(tmp_path: Path) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    abandoned, alive = (tmp_path / f".file.{machine()}-{process}-1.tmp" for process in (dead.pid, os.getppid()))
    elsewhere = tmp_path / f".file.0another-{dead.pid}-1.tmp"
    for file in (abandoned, alive, elsewhere):
        file.touch()
    with written_whole(tmp_path / "file") as temporary:
        temporary.touch()
    assert (abandoned.exists(), alive.exists(), elsewhere.exists()) == (False, True, True)


def test_a_long_name_can_be_written(tmp_path: Path) -> None:
    with written_whole(tmp_path / ("x" * 250)) as temporary:
        temporary.touch()
    assert (tmp_path / ("x" * 250)).exists()


@pytest.mark.parametrize(
    ("output", "given", "message"),
    [
        ("data", "data", "is the input"),
        ("data/out", "data", "lies in the input"),
        ("data", "data/in", "would replace what contains the input"),
        ("data", "data/in/file", "would replace what contains the input"),
        ("data/link", "data/in", "is the input"),
    ],
)
def test_output_in_over_or_above_the_input_is_refused(tmp_path: Path, output: str, given: str, message: str) -> None:
    (tmp_path / "data" / "in").mkdir(parents=True)
    (tmp_path / "data" / "in" / "file").touch()
    (tmp_path / "data" / "link").symlink_to("in")
    with pytest.raises(UserError, match=message):
        check_apart(tmp_path / output, [tmp_path / given])
    check_apart(tmp_path / "other", [tmp_path / given])
    check_apart(tmp_path / "data" / "in" / "new", [tmp_path / "data" / "in" / "file"])


def test_a_key_that_is_there_twice_is_named(tmp_path: Path) -> None:
    """Python would take the last: a case of --patients could be two patients' without a word."""
    file = tmp_path / "patients ü.json"
    file.write_text('{"cases": [{"a": "P1", "b": "P2", "a": "P3"}]}')
    with pytest.raises(UserError, match=r"patients ü\.json has the key 'a' with two values .* Keep one of them"):
        read_json(file)
    file.write_text('{"' + "x" * 5000 + '": 1, "' + "x" * 5000 + '": 2}')
    with pytest.raises(UserError) as error:
        read_json(file)
    assert len(str(error.value)) < 250 + len(str(tmp_path))
    file.write_text('{"a": NaN, "b": 1, "b": 1}')
    assert read_json(file)["b"] == 1
    file.write_text('{"a": {"a": 1}, "b": {"a": 1}}')
    assert read_json(file)["b"] == {"a": 1}


def test_a_long_name_of_letters_of_several_bytes_can_be_written(tmp_path: Path) -> None:
    name = "é" * 125
    write_text(tmp_path / name, "new")
    assert os.listdir(tmp_path) == [name]


def test_what_utf_8_lacks_is_written_as_an_escape(tmp_path: Path) -> None:
    write_text(tmp_path / "page.html", "folder \udcff, ü")
    assert (tmp_path / "page.html").read_text(encoding="utf-8") == "folder \\udcff, ü"
