"""Answers come in order from any number of processes, and no process outlives the one that started it."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest
import torch

from nnunet_ext.errors import UserError
from nnunet_ext.evaluation import parallel
from nnunet_ext.evaluation.parallel import in_order
from support.slow_work import WORKERS

TESTS = Path(__file__).parents[1]


@pytest.fixture
def at_once(monkeypatch):
    """Start processes without first seeing how far one gets."""
    monkeypatch.setattr(parallel, "SECONDS_ALONE", 0)


def number_and_process(number):
    time.sleep(0.2 / (number + 1))  # the first is the last to end
    return number, os.getpid(), torch.get_num_threads()


def fail_from_two_on(number):
    if number >= 2:
        raise UserError(f"No. {number} – ü")
    return number


def end_process(number):
    os._exit(1)


@pytest.mark.usefixtures("at_once")
def test_answers_of_processes_are_in_order_and_each_process_has_one_thread():
    answers = list(in_order(number_and_process, range(6), workers=2))
    assert [number for number, _, _ in answers] == list(range(6))
    processes = {process for _, process, _ in answers}
    assert os.getpid() not in processes
    assert len(processes) <= 2
    assert {threads for _, _, threads in answers} == {1}
    assert not {child.pid for child in multiprocessing.active_children()} & processes


@pytest.mark.parametrize(("workers", "alone", "items"), [(1, 0, 3), (8, 0, 1), (8, 60, 3), (8, 60, 0)])
def test_one_worker_one_item_or_little_work_stay_in_this_process(monkeypatch, workers, alone, items):
    monkeypatch.setattr(parallel, "SECONDS_ALONE", alone)
    monkeypatch.setattr(parallel, "ProcessPoolExecutor", lambda *arguments, **more: pytest.fail("a process"))
    answers = list(in_order(number_and_process, range(items), workers=workers))
    assert [(number, process) for number, process, _ in answers] == [(number, os.getpid()) for number in range(items)]


def test_what_is_left_after_a_while_goes_to_processes(monkeypatch):
    times = iter([0.0, 1.0, 4.9, 5.0])
    monkeypatch.setattr(parallel.time, "monotonic", lambda: next(times))
    monkeypatch.setattr(
        parallel, "_in_processes", lambda function, items, *, workers: [(function, list(items), workers)]
    )
    assert list(in_order(abs, [-1, -2, -3, -4, -5], workers=2)) == [1, 2, (abs, [-3, -4, -5], 2)]


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize("workers", [1, 2])
def test_the_error_is_that_of_the_first_item_in_order(workers):
    answers = in_order(fail_from_two_on, range(5), workers=workers)
    assert [next(answers), next(answers)] == [0, 1]
    with pytest.raises(UserError) as error:
        next(answers)
    assert str(error.value) == "No. 2 – ü"


def test_user_errors_survive_pickling():
    error = pickle.loads(pickle.dumps(UserError("what is wrong")))
    assert type(error) is UserError
    assert str(error) == "what is wrong"


@pytest.mark.usefixtures("at_once")
def test_a_process_that_was_killed_is_told():
    with pytest.raises(UserError, match="One of 2 processes was killed.* --workers 1"):
        list(in_order(end_process, range(2), workers=2))


@pytest.mark.usefixtures("at_once")
def test_closing_ends_the_processes_at_once():
    with closing(in_order(time.sleep, [0, 300, 300, 300], workers=2)) as answers:
        next(answers)
        started = time.monotonic()
    assert time.monotonic() - started < 150
    assert not multiprocessing.active_children()


def is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    state = Path(f"/proc/{process}/stat")
    return not state.is_file() or state.read_text().rpartition(")")[2].split()[0] != "Z"


def wait_for(what, *, seconds):
    end = time.monotonic() + seconds
    while not (found := what()) and time.monotonic() < end:
        time.sleep(0.2)
    return found


@pytest.mark.skipif(os.name != "posix", reason="process groups and signals of POSIX")
@pytest.mark.parametrize(
    ("number", "whole_group", "running"),
    [(signal.SIGINT, True, True), (signal.SIGINT, True, False), (signal.SIGINT, False, True)]
    + [(signal.SIGKILL, False, True)],
)
def test_spawned_workers_end_with_the_program(tmp_path, number, whole_group, running):
    """Ctrl-C of a terminal (to the group) and of a program, as workers run or still start; and a killed program."""
    program = subprocess.Popen(
        [sys.executable, "-m", "support.slow_work", str(tmp_path)],
        cwd=TESTS,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS.parent), str(TESTS)])},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )

    def workers() -> list[int]:
        """Children of the program, but for Python's own that tracks resources."""
        command = ["ps", "-ww", "-eo", "pid,ppid,args"]  # pytest sets COLUMNS, to which ps would cut
        listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        rows = [line.split(maxsplit=2) for line in listed.splitlines()[1:]]
        return [int(pid) for pid, parent, arguments in rows if int(parent) == program.pid and "spawn_main" in arguments]

    try:
        assert wait_for(lambda: len(workers()) == WORKERS, seconds=120)
        started = workers()
        if running:
            assert wait_for(lambda: len(list(tmp_path.iterdir())) == WORKERS, seconds=120)
        (os.killpg if whole_group else os.kill)(program.pid, number)
        shown, complaints = program.communicate(timeout=120)
        assert wait_for(lambda: not any(map(is_running, started)), seconds=120)
    finally:
        if program.poll() is None:
            os.killpg(program.pid, signal.SIGKILL)
    if number == signal.SIGINT:
        assert (shown, complaints, program.returncode) == ("interrupted\n", "", 0)
