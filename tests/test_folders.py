"""Folders of results are whole or not there, and nothing that this package did not make is replaced."""

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from nnunet_ext.errors import UserError
from nnunet_ext.folders import COMMAND, MARKER, check_output_folder, folder_written_whole, prepare_output_folder
from nnunet_ext.nnunet_folders import dataset_folder, raw_folder


def test_output_folder_is_made_with_its_parents(tmp_path: Path) -> None:
    folder = prepare_output_folder(tmp_path / "a" / "b", force=False)
    assert folder.is_dir()
    assert prepare_output_folder(folder, force=False) == folder


def test_folder_with_results_is_refused_without_force_and_emptied_with_it(tmp_path: Path) -> None:
    folder = prepare_output_folder(tmp_path / "out", force=False)
    (folder / "result.txt").write_text("precious")
    with pytest.raises(UserError, match="--force"):
        prepare_output_folder(folder, force=False)
    assert (folder / "result.txt").read_text() == "precious"
    prepare_output_folder(folder, force=True)
    assert not (folder / "result.txt").exists()


@pytest.mark.parametrize("force", [False, True])
def test_folder_that_somebody_else_filled_is_never_emptied(tmp_path: Path, force: bool) -> None:
    (tmp_path / "thesis.txt").write_text("precious")
    with pytest.raises(UserError, match="did not make it"):
        prepare_output_folder(tmp_path, force=force)
    assert (tmp_path / "thesis.txt").read_text() == "precious"


def test_file_in_place_of_the_output_folder_is_refused_even_with_force(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("precious")
    with pytest.raises(UserError, match="is a file"):
        prepare_output_folder(tmp_path / "out", force=True)
    assert (tmp_path / "out").read_text() == "precious"


def test_output_folder_below_a_file_is_a_user_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError):
        prepare_output_folder(tmp_path / "file" / "out", force=False)


def write_into(
    folder: Path, name: str, *, force: bool = False, request: dict | None = None, stop: bool = False
) -> None:
    with folder_written_whole(folder, force=force, request=request) as unfinished:
        (unfinished / name).write_text(name)
        if stop:
            raise KeyboardInterrupt


def files_below(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file() and path.name != MARKER)


@pytest.mark.parametrize("is_there", [False, True])
def test_folder_appears_when_it_is_whole_and_is_replaced_by_force_alone(tmp_path: Path, is_there: bool) -> None:
    out = tmp_path / "out"
    if is_there:  # such as a mount, which cannot be replaced itself
        out.mkdir()
        inode = out.stat().st_ino
    with pytest.raises(KeyboardInterrupt):
        write_into(out, "first", stop=True)
    assert files_below(tmp_path) == []
    write_into(out, "first")
    assert files_below(tmp_path) == ["out/first"]
    with pytest.raises(UserError, match="--force"):
        write_into(out, "second")
    with pytest.raises(KeyboardInterrupt):
        write_into(out, "second", force=True, stop=True)
    assert files_below(tmp_path) == ["out/first"], "what is replaced stays until the end"
    write_into(out, "second", force=True)
    assert files_below(tmp_path) == ["out/second"]
    if is_there:
        assert out.stat().st_ino == inode


@pytest.mark.parametrize("force", [False, True])
def test_folder_of_somebody_else_is_not_replaced(tmp_path: Path, force: bool) -> None:
    (tmp_path / "thesis.txt").write_text("precious")
    with pytest.raises(UserError, match="did not make it"):
        write_into(tmp_path, "result", force=force)
    assert files_below(tmp_path) == ["thesis.txt"]


def test_work_goes_on_for_the_same_request_only(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        write_into(out, "first", request={"a": 1, "b": (2, 3)}, stop=True)
    assert not out.exists()
    with pytest.raises(UserError, match="they differ in: a, c. "):
        write_into(out, "second", request={"a": 2, "b": [2, 3], "c": 0})
    write_into(out, "second", request={"a": 1, "b": [2, 3]})
    assert files_below(tmp_path) == ["out/first", "out/second"]
    with pytest.raises(KeyboardInterrupt):
        write_into(out, "third", request={"a": 1}, force=True, stop=True)
    write_into(out, "fourth", request={"a": 2}, force=True)
    assert files_below(tmp_path) == ["out/fourth"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform has no fork")
@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize(("owner", "at"), [(Path, "rename"), (Path, "unlink"), (os, "rmdir")])
def test_a_run_that_was_killed_while_it_moved_its_files_can_be_repeated(
    tmp_path: Path, force: bool, owner: Any, at: str
) -> None:
    out = tmp_path / "out"
    out.mkdir()  # such as a mount, which nothing can replace at once
    if force:
        with folder_written_whole(out, force=False) as unfinished:
            (unfinished / "old").touch()
    child = os.fork()
    if child == 0:
        real, calls = getattr(owner, at), []

        def kill_second(*args: Any, **kwargs: Any) -> Any:
            calls.append(args)
            return os._exit(9) if len(calls) == 2 else real(*args, **kwargs)

        with folder_written_whole(out, force=force) as unfinished:
            for name in ("first", "second"):
                (unfinished / name).touch()
            setattr(owner, at, kill_second)
        os._exit(0)
    os.waitpid(child, 0)
    try:
        check_output_folder(out, force=force)
        write_into(out, "again", force=force)
    except UserError as error:  # killed when nothing was left to do
        assert "--force" in str(error)  # noqa: PT017
        assert files_below(out) == ["first", "second"]
    else:
        assert files_below(out) == ["again"]


def test_force_replaces_what_the_same_command_made_alone(tmp_path: Path) -> None:
    def write(command: str) -> None:
        running = COMMAND.set(command)
        try:
            write_into(tmp_path / "out", command, force=True)
        finally:
            COMMAND.reset(running)

    write("evaluate")
    write("evaluate")
    with pytest.raises(UserError, match="was made by nnunet_ext evaluate, not by this command"):
        write("export-stock")
    assert files_below(tmp_path) == ["out/evaluate"]


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, PermissionError(13, "Permission denied")])
@pytest.mark.parametrize("at", range(5))
def test_an_interruption_while_files_are_moved_loses_neither_the_old_nor_the_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int, interruption: Any
) -> None:
    out, calls, real = tmp_path / "out", [], Path.rename
    for name in ("old", "older"):
        write_into(out, name, force=name == "older", request={"name": name})

    def interrupted(*args: Any, **kwargs: Any) -> None:
        calls.append(args)
        if len(calls) == at + 1:
            raise interruption
        real(*args, **kwargs)

    with pytest.raises((KeyboardInterrupt, UserError)), folder_written_whole(out, force=True) as unfinished:  # noqa: PT012
        for name in ("first", "second"):
            (unfinished / name).touch()
        monkeypatch.setattr(Path, "rename", interrupted)
    monkeypatch.setattr(Path, "rename", real)
    assert len(calls) == at + 1
    found = {path.name for path in out.rglob("*")}
    assert found >= {"older", "first", "second"}
    with pytest.raises(UserError, match="--force"):  # as for any folder that is whole
        write_into(out, "third")
    assert files_below(out) == ["first", "second"]


def test_what_came_into_the_folder_meanwhile_is_not_removed(tmp_path: Path) -> None:
    out = tmp_path / "out"

    def fill() -> None:
        with folder_written_whole(out, force=True, request={"a": 1}) as unfinished:
            (unfinished / "result").touch()
            out.mkdir()
            (out / "thesis.txt").write_text("precious")

    with pytest.raises(UserError, match="did not make it"):
        fill()
    assert files_below(out) == ["thesis.txt"]
    (out / "thesis.txt").rename(tmp_path / "thesis.txt")
    out.rmdir()
    write_into(out, "more", request={"a": 1})
    assert files_below(out) == ["more", "result"], "the work that was done is not lost"


def test_what_was_made_is_kept_where_the_folder_was_filled_meanwhile(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()

    def fill() -> None:
        with folder_written_whole(out, force=False) as unfinished:
            (unfinished / "result").touch()
            (out / ".DS_Store").touch()

    with pytest.raises(UserError, match=r"did not make it.* What was made meanwhile is in .*\.unfinished; move it"):
        fill()
    assert files_below(out) == [".DS_Store", ".unfinished/result"]


def write_until_interrupted(folder: Path, patch: pytest.MonkeyPatch, *, at: str) -> None:
    """Replace a folder's content by the files "first" and "second", and interrupt when a file of a name is moved."""
    real = Path.rename

    def interrupted(source: Path, target: Path) -> Path:
        if source.name == at:
            raise KeyboardInterrupt
        return real(source, target)

    with pytest.raises(KeyboardInterrupt), folder_written_whole(folder, force=True) as unfinished:  # noqa: PT012
        for name in ("first", "second"):
            (unfinished / name).touch()
        folder.mkdir(exist_ok=True)  # so that the files are moved into it
        patch.setattr(Path, "rename", interrupted)


def test_what_comes_after_an_interruption_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    write_into(out, "old")
    with monkeypatch.context() as patch:
        write_until_interrupted(out, patch, at="old")
    for name in ("notes.txt", "second"):
        (out / name).write_text("precious")
    with pytest.raises(UserError, match=r"second came while .* Move it, and repeat the command"):
        write_into(out, "third")
    assert (out / "second").read_text() == "precious"
    (out / "second").rename(tmp_path / "second")
    with pytest.raises(UserError, match="--force"):
        write_into(out, "third")
    assert files_below(out) == ["first", "notes.txt", "second"]
    assert (out / "notes.txt").read_text() == "precious"


@pytest.mark.parametrize("name", [".", "x" * 250])
def test_folders_whose_hidden_neighbour_has_no_usual_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert prepare_output_folder(name, force=False).is_dir()
    (Path(name) / MARKER).unlink()
    write_into(Path(name).resolve() if name == "." else Path(name), "result")
    assert "result" in " ".join(files_below(tmp_path))


def test_work_that_could_not_be_put_in_place_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, real = tmp_path / "out", Path.rename

    def refused(source: Any, target: Any) -> None:
        if str(target) == str(out):
            raise PermissionError(13, "Permission denied")
        real(source, target)

    monkeypatch.setattr(Path, "rename", refused)
    with pytest.raises(UserError, match="cannot be written to"):
        write_into(out, "first", request={"a": 1})
    monkeypatch.setattr(Path, "rename", real)
    write_into(out, "second", request={"a": 1})
    assert files_below(tmp_path) == ["out/first", "out/second"]


def test_an_input_that_cannot_be_read_is_named_and_not_the_output(tmp_path: Path) -> None:
    for file, told in (("scans/a.nii.gz", "^scans/a.nii.gz cannot be read"), ("out/a", "out cannot be written to")):
        name = str(tmp_path / file) if file == "out/a" else file
        with pytest.raises(UserError, match=told), folder_written_whole(tmp_path / "out", force=False):
            raise PermissionError(13, "Permission denied", name)
    assert files_below(tmp_path) == []


def test_work_without_a_request_that_could_not_be_put_in_place_is_named(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "rename", lambda *_: (_ for _ in ()).throw(PermissionError(13, "Permission denied")))
        with pytest.raises(UserError, match=r"cannot be written to .* is in .*\.out\.unfinished; move it from there"):
            write_into(out, "first")
    assert files_below(tmp_path) == [".out.unfinished/first"]


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("at", range(5))
def test_another_command_removes_nothing_of_an_interrupted_publication(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int, force: bool
) -> None:
    out, calls, real = tmp_path / "out", [], Path.rename

    def interrupted(source: Path, target: Path) -> Path:
        calls.append(source)
        if len(calls) > at:
            raise KeyboardInterrupt
        return real(source, target)

    running = COMMAND.set("export-stock")
    try:
        write_into(out, "old")
        with pytest.raises(KeyboardInterrupt), folder_written_whole(out, force=True) as unfinished:  # noqa: PT012
            for name in ("first", "second"):
                (unfinished / name).touch()
            monkeypatch.setattr(Path, "rename", interrupted)
    finally:
        COMMAND.reset(running)
    monkeypatch.setattr(Path, "rename", real)
    running = COMMAND.set("evaluate")
    try:
        with pytest.raises(UserError, match="made by nnunet_ext export-stock"):
            check_output_folder(out, force=force)
        with pytest.raises(UserError, match="made by nnunet_ext export-stock"):
            prepare_output_folder(out, force=force)
        with pytest.raises(UserError, match="made by nnunet_ext export-stock"):
            write_into(out, "other", force=force)
    finally:
        COMMAND.reset(running)
    assert files_below(out) == ["first", "second"]


def test_a_publication_ends_although_its_folder_has_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        write_until_interrupted(out, patch, at="second")
    shutil.rmtree(out)
    with pytest.raises(UserError, match="Choose another name"):
        write_into(out, "third")
    assert "second" in files_below(out)


def test_the_request_does_not_stay_in_the_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, real = tmp_path / "out", Path.unlink

    def interrupted(file: Path, *, missing_ok: bool = False) -> None:
        if file == out / ".request.json":
            raise KeyboardInterrupt
        real(file, missing_ok=missing_ok)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Path, "unlink", interrupted)
        write_into(out, "first", request={"a": 1})
    with pytest.raises(UserError, match="--force"):
        write_into(out, "second", request={"a": 1})
    assert {path.name for path in out.iterdir()} == {"first", MARKER}


def test_another_command_does_not_remove_unfinished_work_unless_forced(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        write_into(out, "first", request={"a": 1}, stop=True)
    with pytest.raises(UserError, match="begun by another command"):
        write_into(out, "other")
    assert "first" in " ".join(files_below(tmp_path))
    write_into(out, "other", force=True)
    assert files_below(tmp_path) == ["out/other"]


def test_a_request_that_cannot_be_read_is_another_one(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        write_into(out, "first", request={"a": 1}, stop=True)
    (request,) = tmp_path.glob(".out*/.request.json")
    request.write_bytes(b"")
    for other in ({"a": 1}, None):
        with pytest.raises(UserError, match="--force"):
            write_into(out, "second", request=other)
    write_into(out, "second", request={"a": 1}, force=True)
    assert files_below(tmp_path) == ["out/second"]


def test_only_digits_of_every_day_are_the_number_of_a_dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "Dataset002_A").mkdir()
    monkeypatch.setenv("nnUNet_raw", str(tmp_path))
    assert dataset_folder("nnUNet_raw", "02") == tmp_path / "Dataset002_A"
    for number in ("²", "٢"):
        with pytest.raises(UserError, match=f"Dataset {number} is not in .* There is: Dataset002_A"):
            raw_folder(number)
