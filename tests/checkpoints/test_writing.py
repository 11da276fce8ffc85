"""A checkpoint is written whole, and an interrupt reaches the caller."""

import subprocess
import sys

import pytest
import torch

from nnunet_ext.checkpoints.writing import write_checkpoint

INTERRUPTED = """
import sys
import torch
from nnunet_ext.checkpoints.writing import write_checkpoint

def interrupt(writer, *_):
    raise KeyboardInterrupt

for writer in (torch.serialization._open_zipfile_writer_buffer, torch.serialization._open_zipfile_writer_file):
    setattr(writer, sys.argv[2], interrupt)
try:
    write_checkpoint(sys.argv[1], {"network_weights": {"a": torch.ones(3)}})
except KeyboardInterrupt:
    print("interrupted")
"""


@pytest.mark.parametrize("moment", ["__enter__", "__exit__"])
def test_an_interrupt_does_not_abort_the_process_and_leaves_what_was_there(tmp_path, moment):
    """Torch's writer writes once more when it goes, where an error ends the process."""
    target = tmp_path / "checkpoint.pth"
    target.write_bytes(b"of before")
    command = [sys.executable, "-c", INTERRUPTED, str(target), moment]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout) == (0, "interrupted\n"), ended.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint.pth"]
    assert target.read_bytes() == b"of before"


def test_what_is_written_is_read_back(tmp_path):
    content = {"network_weights": {"a": torch.arange(6.0).reshape(2, 3)}, "trainer_name": "nnUNetTrainer"}
    write_checkpoint(tmp_path / "checkpoint.pth", content)
    read = torch.load(tmp_path / "checkpoint.pth", weights_only=True)
    assert read["trainer_name"] == content["trainer_name"]
    assert torch.equal(read["network_weights"]["a"], content["network_weights"]["a"])
