"""Ending a command with everything that it started."""

import os
import signal
import subprocess
import time

import pytest

from nnunet_ext.programs import end_group, group_exists, running

IGNORES_SIGTERM = 'trap "" TERM; echo ready; sleep 60 & wait'


def test_a_group_is_asked_first():
    process = subprocess.Popen(["sleep", "60"], start_new_session=True)
    end_group(process.pid, leader=process)
    assert process.returncode == -signal.SIGTERM
    assert not group_exists(process.pid)


def test_what_does_not_listen_is_killed_with_its_children():
    process = subprocess.Popen(["sh", "-c", IGNORES_SIGTERM], stdout=subprocess.PIPE, start_new_session=True)
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    end_group(process.pid, leader=process, patience_s=0.3)
    assert process.returncode == -signal.SIGKILL
    process.stdout.close()


def test_children_that_their_leader_left_behind_are_ended():
    process = subprocess.Popen(["sh", "-c", "sleep 60 & echo $!"], stdout=subprocess.PIPE, start_new_session=True)
    assert process.stdout is not None
    child = int(process.stdout.readline())
    process.stdout.close()
    assert process.wait() == 0
    os.kill(child, 0)
    started = time.monotonic()
    end_group(process.pid, leader=process, patience_s=2)
    state = subprocess.run(["ps", "-o", "state=", "-p", str(child)], capture_output=True, text=True, check=False).stdout
    assert state.strip()[:1] in ("", "Z")
    assert time.monotonic() - started < 30


def test_a_program_prints_into_the_file_and_knows_the_variables(tmp_path):
    command = ["sh", "-c", "echo $FIRST $PYTHONUNBUFFERED; echo wrong >&2"]
    with (tmp_path / "log").open("wb") as output, running(command, output, {"FIRST": "ä b"}) as process:
        assert process.wait() == 0
    assert (tmp_path / "log").read_text(encoding="utf-8") == "ä b 1\nwrong\n"


def test_an_exception_ends_a_program_with_what_it_has_started(tmp_path):
    started = tmp_path / "started"
    command = ["sh", "-c", f"sleep 60 & touch '{started}'; wait"]
    with (
        pytest.raises(KeyboardInterrupt),
        (tmp_path / "log").open("wb") as output,
        running(command, output, {}) as process,
    ):
        while not started.exists():
            time.sleep(0.01)
        raise KeyboardInterrupt
    assert process.returncode == -signal.SIGTERM
    assert not group_exists(process.pid)
