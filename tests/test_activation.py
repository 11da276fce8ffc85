"""Activating an environment sets nnUNet_extTrainer, leaving it takes it back, and undoing restores every byte."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from nnunet_ext import activation
from nnunet_ext.activation import edit_of_start_up_file, edits_of_environment
from nnunet_ext.cli import main
from nnunet_ext.errors import UserError
from nnunet_ext.registration import VARIABLE

FOLDER = '/it\'s a "folder" ü/!discovery'
SCRIPTS = ("activate", "activate.fish", "activate.csh", "Activate.ps1", "activate.bat", "deactivate.bat")
SHOW = {
    "sh": f'printf "<%s>\\n" "${{{VARIABLE}-none}}"',
    "fish": f'if set -q {VARIABLE}; printf "<%s>\\n" "${VARIABLE}"; else; printf "<none>\\n"; end',
    "csh": f'if ($?{VARIABLE}) printf "<%s>\\n" "${VARIABLE}"\nif (! $?{VARIABLE}) printf "<none>\\n"',
}
# shell, how it is started without the user's own files, its script of a venv, how it shows the variable, conda's ending
SHELLS = {
    "bash": (["bash", "--norc", "--noprofile"], "activate", "sh", ".sh"),
    "dash": (["dash"], "activate", "sh", ".sh"),
    "zsh": (["zsh", "-f"], "activate", "sh", ".sh"),
    "fish": (["fish", "--no-config"], "activate.fish", "fish", ".fish"),
    "tcsh": (["tcsh", "-f"], "activate.csh", "csh", ".csh"),
}
EACH_SHELL = [
    pytest.param(name, marks=pytest.mark.skipif(shutil.which(name) is None, reason=f"{name} is not installed"))
    for name in SHELLS
]


@pytest.fixture(autouse=True)
def discovery(monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder whose name has what shells take for their own."""
    monkeypatch.setattr(activation, "discovery_folder", lambda: FOLDER)


@pytest.fixture
def environment(tmp_path: Path) -> Path:
    """A virtual environment with scripts for all shells; those of Windows are made up, as venv writes them there."""
    place = tmp_path / "an environment"
    venv.create(place, with_pip=False)
    (place / "bin" / "activate.bat").write_bytes(b'@echo off\r\nset "VIRTUAL_ENV=C:\\x"\r\n:END\r\nset _X=\r\n')
    (place / "bin" / "deactivate.bat").write_bytes(b"@echo off\r\nset VIRTUAL_ENV=\r\n:END\r\n")
    return place


def contents(folder: Path) -> dict[str, tuple[bytes, int]]:
    files = [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    return {str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mode) for path in files}


def make(edits: list[activation.Edit]) -> int:
    changing = [edit for edit in edits if edit.before != edit.after]
    for edit in changing:
        edit.make()
    return len(changing)


def said(shell: str, script: str, value: str | None) -> list[str]:
    """What a shell says that starts with a value of the variable and runs a script."""
    variables = {name: text for name, text in os.environ.items() if VARIABLE not in name}
    variables |= {} if value is None else {VARIABLE: value}
    command = [*SHELLS[shell][0], "-c", script]
    done = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    return [line for line in done.stdout.splitlines() if line.startswith("<")]


def with_folder(value: str | None) -> str:
    return f"<{value}:{FOLDER}>" if value else f"<{FOLDER}>"


def restored(shell: str, value: str | None) -> str:
    """An empty variable may be none afterwards, and in csh none an empty one: nnU-Net takes both alike."""
    return f"<{value}>" if value else "<>" if shell == "tcsh" else "<none>"


@pytest.mark.parametrize("value", [None, "", "/mine", "/a b:/mine"])
@pytest.mark.parametrize("shell", EACH_SHELL)
def test_a_virtual_environment_sets_it_and_takes_it_back(shell: str, value: str | None, environment: Path) -> None:
    make(edits_of_environment(environment))
    _, name, kind, _ = SHELLS[shell]
    dot = "." if shell == "dash" else "source"
    activate = f"{dot} '{environment}/bin/{name}'"
    script = "\n".join([activate, SHOW[kind], activate, SHOW[kind], "deactivate", SHOW[kind]])
    if shell == "tcsh":
        script = f"set prompt=''\n{script}"
    assert said(shell, script, value) == [with_folder(value), with_folder(value), restored(shell, value)]


@pytest.mark.parametrize("value", [None, "/mine"])
@pytest.mark.parametrize("shell", EACH_SHELL)
def test_a_conda_environment_sets_it_and_takes_it_back(shell: str, value: str | None, tmp_path: Path) -> None:
    (tmp_path / "conda-meta").mkdir()
    make(edits_of_environment(tmp_path))
    _, _, kind, ending = SHELLS[shell]
    dot = "." if shell == "dash" else "source"
    files = [f"{dot} '{tmp_path}/etc/conda/{act}ivate.d/nnunet_ext{ending}'" for act in ("act", "deact")]
    script = "\n".join([files[0], SHOW[kind], files[1], SHOW[kind]])
    assert said(shell, script, value) == [with_folder(value), restored(shell, value)]


@pytest.mark.parametrize("shell", EACH_SHELL)
@pytest.mark.parametrize("value", [None, "/mine", FOLDER, f"{FOLDER}:/mine"])
def test_a_start_up_file_adds_it_once(shell: str, value: str | None, tmp_path: Path) -> None:
    _, _, kind, ending = SHELLS[shell]
    file = tmp_path / {".sh": ".bashrc", ".csh": ".cshrc", ".fish": "config.fish"}[ending]
    file.write_text("# mine\n")
    make([edit_of_start_up_file(file)])
    dot = "." if shell == "dash" else "source"
    script = "\n".join([f"{dot} '{file}'", f"{dot} '{file}'", SHOW[kind]])
    assert said(shell, script, value) == [f"<{value}>" if value and FOLDER in value else with_folder(value)]


def test_undoing_restores_a_virtual_environment_to_the_byte(environment: Path) -> None:
    (environment / "bin" / "activate").chmod(0o640)
    before = contents(environment)
    assert make(edits_of_environment(environment)) == len(SCRIPTS)
    registered = contents(environment)
    changed = {name for name in before if registered[name][0] != before[name][0]}
    assert changed == {f"bin/{name}" for name in SCRIPTS}
    assert {name: mode for name, (_, mode) in registered.items()} == {name: mode for name, (_, mode) in before.items()}
    assert make(edits_of_environment(environment)) == 0, "a second time changes nothing"
    make(edits_of_environment(environment, undo=True))
    assert contents(environment) == before
    assert make(edits_of_environment(environment, undo=True)) == 0


def test_undoing_restores_a_conda_environment(tmp_path: Path) -> None:
    (tmp_path / "conda-meta").mkdir()
    mine = tmp_path / "etc" / "conda" / "activate.d" / "mine.sh"
    mine.parent.mkdir(parents=True)
    mine.write_text("true\n")
    assert make(edits_of_environment(tmp_path)) == 10
    assert make(edits_of_environment(tmp_path)) == 0
    assert make(edits_of_environment(tmp_path, undo=True)) == 10
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [mine]
    assert not (tmp_path / "etc" / "conda" / "deactivate.d").exists()


@pytest.mark.parametrize("text", [b"", b"a\n", b"a\nb", b"a\r\nb\r\n", b"a\r\nb", b"a\r\nb\n", b"\xff\xfe\n", b"\n\n"])
def test_undoing_restores_every_start_up_file(text: bytes, tmp_path: Path) -> None:
    file = tmp_path / ".bashrc"
    file.write_bytes(text)
    make([edit_of_start_up_file(file)])
    written = file.read_bytes()
    assert VARIABLE.encode() in written
    if text == b"a\r\nb\r\n":
        assert written.count(b"\n") == written.count(b"\r\n")
    assert make([edit_of_start_up_file(file)]) == 0
    make([edit_of_start_up_file(file, undo=True)])
    assert file.read_bytes() == text


def test_lines_between_half_a_block_and_a_whole_one_are_the_users(tmp_path: Path) -> None:
    file = tmp_path / ".bashrc"
    file.write_text("# before\n")
    make([edit_of_start_up_file(file)])
    block = file.read_text().removeprefix("# before\n")
    half = "".join(block.splitlines(keepends=True)[:-1])  # an editor has lost the last line
    text = f"# before\n{half}export MINE=1\n{block}"
    file.write_text(text)
    for undo in (False, True):
        with pytest.raises(UserError, match=r"\.bashrc has the line .* Remove that line"):
            edit_of_start_up_file(file, undo=undo)
    assert file.read_text() == text


def test_a_package_that_has_moved_replaces_what_it_wrote(environment: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = contents(environment)
    make(edits_of_environment(environment))
    monkeypatch.setattr(activation, "discovery_folder", lambda: "/elsewhere")
    assert make(edits_of_environment(environment)) > 0
    text = (environment / "bin" / "activate").read_text()
    assert ("/elsewhere" in text, "!discovery" in text) == (True, False)
    make(edits_of_environment(environment, undo=True))
    assert contents(environment) == before


def test_a_link_to_a_start_up_file_stays_a_link(tmp_path: Path) -> None:
    kept, link = tmp_path / "kept", tmp_path / ".bashrc"
    kept.write_text("# mine\n")
    link.symlink_to(kept)
    make([edit_of_start_up_file(link)])
    assert link.is_symlink()
    assert VARIABLE in kept.read_text()


def test_what_is_in_the_way_is_a_message_and_nothing_is_written(environment: Path, tmp_path: Path) -> None:
    script = environment / "bin" / "activate.fish"
    script.chmod(0o444)
    with pytest.raises(UserError, match=r"activate\.fish is read-only"):
        edits_of_environment(environment)
    script.chmod(0o644)
    script.write_text("# nothing of venv's\n")
    with pytest.raises(UserError, match="defines no deactivate"):
        edits_of_environment(environment)
    for name in SCRIPTS:
        (environment / "bin" / name).unlink()
    with pytest.raises(UserError, match="has no activate script"):
        edits_of_environment(environment)
    with pytest.raises(UserError, match="neither a conda nor a virtual environment"):
        edits_of_environment(tmp_path)
    with pytest.raises(UserError, match="is no file"):
        edit_of_start_up_file(tmp_path / "no such")


def test_scripts_of_windows_set_it_in_their_own_words(environment: Path) -> None:
    make(edits_of_environment(environment))
    batch = (environment / "bin" / "activate.bat").read_bytes().decode()
    assert f'@if not defined _OLD_{VARIABLE} @set "{VARIABLE}={FOLDER}"\r\n' in batch
    assert f'@if defined _ACTIVE_{VARIABLE} @set "{VARIABLE}=%_OLD_{VARIABLE}%"\r\n' in (
        (environment / "bin" / "deactivate.bat").read_bytes().decode()
    )
    powershell = (environment / "bin" / "Activate.ps1").read_text(encoding="utf-8")
    quoted = FOLDER.replace("'", "''")
    assert f"$Env:{VARIABLE} = '{quoted}'" in powershell
    function = powershell[powershell.index("function global:deactivate") :]
    assert function.splitlines()[1].startswith("# >>> nnunet_ext register")


def test_the_command_says_what_it_wrote_and_takes_back(
    environment: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "prefix", str(environment))
    monkeypatch.delenv(VARIABLE, raising=False)
    assert main(["register", "--environment"]) == 0
    printed = capsys.readouterr().out
    assert all(f"wrote {environment / 'bin' / name}\n" in printed for name in SCRIPTS)
    assert f"{VARIABLE} is set when" in printed
    assert 'export nnUNet_extTrainer="$(nnunet_ext path)"' in printed
    assert main(["register", "--environment"]) == 0
    assert "nothing to do" in capsys.readouterr().out
    assert main(["register", "--environment", "--undo"]) == 0
    printed = capsys.readouterr().out
    assert f"wrote {environment / 'bin' / 'activate'}\n" in printed
    assert f"{VARIABLE} is no longer set when" in printed
    assert main(["register", "--environment", "--undo"]) == 0
    assert "nothing to take back" in capsys.readouterr().out


def test_the_command_names_a_start_up_file_that_is_not_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["register", "--start-up", str(tmp_path / ".zshrc")]) == 2
    assert "is no file" in capsys.readouterr().err
