"""Claims: one holder at a time, and never one that is dead."""

import errno
import fcntl
import os
import signal
import subprocess
import sys
import time

import pytest

from nnunet_ext.errors import UserError
from nnunet_ext.jobs.claims import Claim, holder

HOLD = """
import sys, time
from pathlib import Path
from nnunet_ext.jobs.claims import Claim
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
