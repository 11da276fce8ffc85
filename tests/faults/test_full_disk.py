"""A disk that is full: one message that names the file, nothing half-written, and the next run succeeds.

Instead of a full disk, the kernel limits the size of the files that the process writes: the same call of the same
library fails in the same way, with EFBIG in the place of ENOSPC, and that without the right to mount a small disk.
"""

import os
import resource

import pytest

from faults.commands import WRITING, Written
from fuzz.commands import PLANNED

pytestmark = pytest.mark.full

SHARES = (0.2, 0.99)  # of the largest file


@pytest.mark.parametrize("share", SHARES)
@pytest.mark.parametrize("command", WRITING, ids=lambda command: command.line[:40])
def test_a_full_disk_is_one_message_and_nothing_is_left_half(command, share, valid, tmp_path, expected):
    undisturbed, _ = expected(command)
    whole = undisturbed.result()
    limit = int(share * max((undisturbed.target.parent / path).stat().st_size for path in whole))
    reading, writing = os.pipe()  # a file of output would be limited, too

    def limit_files():
        for stream in (1, 2):
            os.dup2(writing, stream)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    written = Written.prepare(command, valid, tmp_path / "full")
    status = written.run(before=limit_files)
    os.close(writing)
    with os.fdopen(reading, errors="replace") as stream:
        output = stream.read()
    assert status == 1, output
    assert "Traceback" not in output
    (line,) = [line for line in output.splitlines() if line.startswith(f"nnunet_ext {command.line.split()[0]}: ")]
    assert written.target.name in line or PLANNED in line
    assert set(written.new().items()) <= set(whole.items()), "half of a file has a final name"
    assert written.run() == 0, written.output
    assert written.result() == whole
    assert written.inputs_changed() == []
    assert written.left_hidden() == []
