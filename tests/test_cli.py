"""The command line: help with an example, exit statuses, errors without a traceback."""

import errno
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from nnunet_ext import cli
from nnunet_ext.errors import UserError
from nnunet_ext.version import __version__


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_every_command_has_help_with_an_example(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main([command, "--help"])
    assert stop.value.code == 0
    example = capsys.readouterr().out.partition("Example")[2]
    assert f"nnunet_ext {command}" in example


def test_help_of_the_whole_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main(["--help"])
    assert stop.value.code == 0
    first_words = {line.split()[0] for line in capsys.readouterr().out.splitlines() if line.strip()}
    assert set(cli.COMMANDS) <= first_words


@pytest.mark.parametrize("argv", [[], ["no-such-command"], ["path", "--no-such-option"]])
def test_wrong_usage_exits_with_two(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main(argv)
    assert stop.value.code == 2
    assert "usage: nnunet_ext" in capsys.readouterr().err


def test_user_error_is_one_message_and_status_two(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(args: object) -> int:
        raise UserError("plans.json does not exist.")

    monkeypatch.setattr("nnunet_ext.commands.path.run", run)
    assert cli.main(["path"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "nnunet_ext path: plans.json does not exist.\n"


def test_mistake_in_the_program_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(args: object) -> int:
        raise ZeroDivisionError

    monkeypatch.setattr("nnunet_ext.commands.path.run", run)
    with pytest.raises(ZeroDivisionError):
        cli.main(["path"])


def on_a_full_disk(error: Exception) -> Exception:
    """An exception as libraries raise it in the place of the system's."""
    error.__context__ = OSError(errno.ENOSPC, "No space left on device", "/data/x")
    return error


@pytest.mark.parametrize(
    ("error", "said", "status"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "No space left on device. Make room", 1),
        (PermissionError(errno.EACCES, "Permission denied", "/data/x"), "/data/x: Permission denied. ", 2),
        (on_a_full_disk(RuntimeError("unexpected pos 576 vs 534")), "/data/x: No space left on device. Make room", 1),
        (on_a_full_disk(UserError("/data/x cannot be written.")), "/data/x cannot be written.", 1),
    ],
)
def test_full_disk_and_missing_right_are_one_message(
    error: Exception, said: str, status: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(args: object) -> int:
        raise error

    monkeypatch.setattr("nnunet_ext.commands.path.run", run)
    assert cli.main(["path"]) == status
    message = capsys.readouterr().err
    assert message.startswith(f"nnunet_ext path: {said}")
    assert message.count("\n") == 1


def test_other_errors_of_the_system_are_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(args: object) -> int:
        raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")

    monkeypatch.setattr("nnunet_ext.commands.path.run", run)
    with pytest.raises(BlockingIOError):
        cli.main(["path"])


def test_a_reader_that_has_left_is_no_error_of_the_program() -> None:
    script = "from nnunet_ext.cli import main; raise SystemExit(main(['list', '--json']))"
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()  # as head does
        assert process.stderr.read() == b""
        assert process.wait(120) == 141


def test_another_pipe_that_breaks_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(args: object) -> int:
        raise BrokenPipeError(errno.EPIPE, "of a worker")

    monkeypatch.setattr("nnunet_ext.commands.path.run", fail)
    with pytest.raises(BrokenPipeError, match="of a worker"):
        cli.main(["path"])


def test_interruption_ends_quietly(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def run(args: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr("nnunet_ext.commands.path.run", run)
    assert cli.main(["path"]) == 130
    assert capsys.readouterr().err == "nnunet_ext path: interrupted.\n"


def test_an_interrupt_that_a_library_turned_into_an_error_ends_quietly(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(args: object) -> int:
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            raise ValueError("Invalid affine transformation matrix") from None
        return 0

    monkeypatch.setattr("nnunet_ext.commands.path.run", run)
    assert cli.main(["path"]) == 130
    assert capsys.readouterr().err == "nnunet_ext path: interrupted.\n"


def test_exit_status_of_a_command_is_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nnunet_ext.commands.path.run", lambda args: cli.PROBLEM)
    assert cli.main(["path"]) == 1


def test_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main(["--version"])
    assert stop.value.code == 0
    assert capsys.readouterr().out == f"nnunet_ext {__version__}\n"


@pytest.mark.parametrize("command", ["path", "list"])
def test_command_line_starts_without_torch(command: str) -> None:
    code = (
        f"import sys; from nnunet_ext.cli import main; main([{command!r}]); "
        "sys.exit(bool({'torch', 'nnunetv2'} & set(sys.modules)))"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)


def test_a_link_in_a_circle_is_a_message(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "loop").symlink_to("loop")
    loop = str(tmp_path / "loop")
    for folders in ((loop, loop), (str(tmp_path), loop)):
        command = ["evaluate", "--predictions", folders[0], "--labels", folders[1], "-o", str(tmp_path / "out")]
        assert cli.main(command) == 2
        assert loop in capsys.readouterr().err


def test_an_interrupted_program_leaves_at_once_with_what_it_has_to_tidy_up() -> None:
    script = textwrap.dedent(
        """
        import atexit, sys
        from nnunet_ext import cli
        from nnunet_ext.commands import path
        def run(args):
            raise KeyboardInterrupt
        class Slow:
            def __del__(self):
                print("taken apart")
        slow, path.run, sys.argv = Slow(), run, ["nnunet_ext", "path"]
        atexit.register(print, "tidied up")
        cli.main()
        """
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout) == (130, "tidied up\n")
    assert ended.stderr == "nnunet_ext path: interrupted.\n"


@pytest.mark.parametrize(("ending", "status"), [("return 0", 0), ("raise KeyboardInterrupt", 130)])
def test_a_program_without_a_console_ends_as_any_other(ending, status):
    script = textwrap.dedent(
        f"""
        import sys
        from nnunet_ext import cli
        from nnunet_ext.commands import path
        def run(args):
            {ending}
        path.run, sys.argv, sys.stdout = run, ["nnunet_ext", "path"], None
        sys.exit(cli.main())
        """
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert ended.returncode == status, ended.stderr
    assert "Traceback" not in ended.stderr


def test_output_that_cannot_be_set_up_anew_ends_no_command(tmp_path: Path) -> None:
    """As where the file behind it became a pipe."""
    script = textwrap.dedent(
        """
        import os, sys
        from nnunet_ext import cli
        sys.stdout.seekable()
        reading, writing = os.pipe()
        os.dup2(writing, 1)
        sys.argv = ["nnunet_ext", "path"]
        sys.exit(cli.main())
        """
    )
    streams: dict[str, Any] = {"stderr": subprocess.PIPE, "env": {**os.environ, "PYTHONIOENCODING": "latin-1"}}
    with (tmp_path / "out").open("wb") as output:
        ended = subprocess.run([sys.executable, "-c", script], stdout=output, check=False, **streams)
    assert ended.returncode == 0, ended.stderr


@pytest.mark.parametrize(("encoding", "shown"), [("latin-1", b"\\u2026 \xfc"), ("utf-8", "\u2026 \u00fc".encode())])
def test_output_without_a_code_for_a_letter_shows_an_escape(encoding: str, shown: bytes) -> None:
    script = textwrap.dedent(
        """
        import sys
        from nnunet_ext import cli
        from nnunet_ext.commands import path
        def run(args):
            print("\\u2026 \\u00fc \\udcff")
            return 0
        path.run, sys.argv = run, ["nnunet_ext", "path"]
        sys.exit(cli.main())
        """
    )
    environment = {**os.environ, "PYTHONIOENCODING": f"{encoding}:strict"}
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, env=environment, check=False)
    assert (ended.returncode, ended.stdout.split(b"\n")[0]) == (0, shown + b" \\udcff"), ended.stderr
