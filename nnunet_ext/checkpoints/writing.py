"""Writing checkpoints."""

import os
from collections.abc import Mapping
from typing import Any, BinaryIO, cast

import torch

from nnunet_ext.files import written_whole


class _Stream:
    """A file that takes what torch's writer writes after Ctrl-C has closed it: an error there aborts the process."""

    def __init__(self, handle: BinaryIO) -> None:
        self.handle = handle

    def write(self, data: bytes) -> int:
        return len(data) if self.handle.closed else self.handle.write(data)

    def flush(self) -> None:
        if not self.handle.closed:
            self.handle.flush()


def write_checkpoint(output: str | os.PathLike[str], content: Mapping[str, Any]) -> None:
    """Write a torch file, whole or not at all."""
    # opened here and not by torch, whose errors do not say what is wrong
    with written_whole(output) as temporary, temporary.open("wb") as handle:
        torch.save(dict(content), cast(BinaryIO, _Stream(handle)))
