"""Claims: one holder at a time, and never one that is dead; one run at a time."""

import errno
import fcntl
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time

import pytest

from nnunet_ext.claims import Claim, holder, only_run
from nnunet_ext.errors import UserError

HOLD = """
import sys, time
from pathlib import Path
from nnunet_ext.claims import Claim
assert Claim(Path(sys.argv[1])).take({"host": "ü"})
print("taken", flush=True)
time.sleep(60)
"""


def test_only_one_holds_a_claim_and_says_who_it_is(tmp_path):
    file = tmp_path / "new folder" / "a.claim"
    assert holder(file) is None
    first, second = Claim(file), Claim(file)
    assert first.take({"pid": 1})
    assert not second.take({"pid": 2}, patience_s=0.1)
    assert holder(file) == {"pid": 1}
    first.write({"pid": 1, "group": 7})
    assert holder(file) == {"pid": 1, "group": 7}
    first.release()
    assert holder(file) is None
    assert second.take({})
    assert holder(file) == {}


def test_a_holder_that_cannot_be_read_is_one_whom_nobody_knows(tmp_path, monkeypatch):
    """An SMB share lets nobody read what another has locked."""

    def read(descriptor, size):
        raise PermissionError(errno.EACCES, "Permission denied")

    with Claim(tmp_path / "a.claim") as claim:
        assert claim.take({"pid": 1})
        monkeypatch.setattr(os, "read", read)
        assert holder(claim.file) == {}
    assert holder(claim.file) is None


def test_looking_at_a_claim_does_not_keep_others_from_taking_it(tmp_path):
    file = tmp_path / "a.claim"
    file.touch()
    looking = os.open(file, os.O_RDONLY)
    fcntl.flock(looking, fcntl.LOCK_SH)
    with Claim(file) as claim:
        assert not claim.take({}, patience_s=0.1)
        os.close(looking)
        assert claim.take({})


def test_a_claim_ends_with_a_process_that_is_killed(tmp_path):
    file = tmp_path / "a.claim"
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(file)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"taken\n"
    assert holder(file) == {"host": "ü"}
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert holder(file) is None


def test_a_child_that_got_the_file_goes_on_holding_the_claim(tmp_path):
    claim = Claim(tmp_path / "a.claim")
    assert claim.take({})
    with subprocess.Popen(["sleep", "60"], pass_fds=[claim.fileno()]) as child:
        claim.release()
        assert holder(claim.file) == {}
        child.kill()
    time.sleep(0.05)
    assert holder(claim.file) is None


def test_a_file_system_without_locks_is_named(tmp_path, monkeypatch):
    def flock(descriptor, kind):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(UserError, match="no file locks"):
        Claim(tmp_path / "a.claim").take({})


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    """The folder for temporary files."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.mark.parametrize("parent", ["", "not there yet"])
def test_one_run_at_a_time_and_nothing_is_left(tmp_path, temporary, parent):
    out = tmp_path / parent / "out"
    (tmp_path / "link").symlink_to(out)
    with only_run(out):
        out.parent.mkdir(exist_ok=True)
        for same in (out, out / ".." / "out", tmp_path / "link"):
            message = rf"Another run \(process {os.getpid()} on .*is writing .*"
            with pytest.raises(UserError, match=message), only_run(same, patience_s=0):
                pass
        with only_run(tmp_path / parent / "other"):
            pass
    with only_run(out):
        pass
    assert {path.name for path in (*tmp_path.iterdir(), *temporary.iterdir())} == {
        "tmp",
        "link",
        *filter(None, [parent]),
    }


def test_a_run_that_was_killed_keeps_nobody_away(tmp_path, temporary):
    out = tmp_path / "out"
    script = f"import os\nfrom nnunet_ext.claims import only_run\nwith only_run({str(out)!r}): os.kill(os.getpid(), 9)"
    environment = {**os.environ, "TMPDIR": str(temporary)}
    killed = subprocess.run([sys.executable, "-c", script], check=False, env=environment)
    assert killed.returncode == -signal.SIGKILL
    assert (tmp_path / ".out.lock").exists()
    with only_run(out, patience_s=0):
        pass
    assert not [path for path in (*tmp_path.iterdir(), *temporary.iterdir()) if path != temporary]


def test_a_run_of_another_machine_is_seen_by_the_lock_beside_the_output(tmp_path, temporary, monkeypatch):
    with Claim(tmp_path / ".out.lock") as other:
        assert other.take({"host": "node7", "pid": 12})
        with pytest.raises(UserError, match="process 12 on node7"), only_run(tmp_path / "out", patience_s=0):
            pass


def test_where_no_lock_is_possible_nothing_is_kept_away(tmp_path, temporary, monkeypatch):
    def flock(descriptor, kind):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    entered = []
    with only_run(tmp_path / "out"), only_run(tmp_path / "out"):
        entered.append(True)
    assert entered


def test_waiting_runs_come_one_after_the_other(tmp_path, temporary):
    inside, most, entered = [], [], []

    def work():
        for _ in range(5):
            with only_run(tmp_path / "out", patience_s=60):
                inside.append(1)
                most.append(len(inside))
                entered.append(1)
                inside.pop()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (max(most), len(entered)) == (1, 20)


def test_long_names_that_begin_alike_have_locks_of_their_own(tmp_path, temporary):
    one, other = (tmp_path / f"{'nnUNetTrainer' * 8}_{letter}" for letter in "AB")
    with only_run(one), only_run(other, patience_s=0):
        assert len(list(tmp_path.glob(".*.lock"))) == 2


@pytest.mark.skipif(not hasattr(os, "O_NOFOLLOW"), reason="this system follows links")
def test_a_link_in_the_place_of_a_lock_is_not_followed(tmp_path, temporary):
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / ".out.lock").symlink_to(victim)
    with only_run(tmp_path / "out"):
        pass
    assert victim.read_text() == "precious"
