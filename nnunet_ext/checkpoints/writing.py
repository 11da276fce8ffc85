"""Writing checkpoints."""

import io
import os
from collections.abc import Mapping
from typing import Any

import torch

from nnunet_ext.files import written_whole


def write_checkpoint(output: str | os.PathLike[str], content: Mapping[str, Any]) -> None:
    """Write a torch file, whole or not at all.

    Torch writes into memory: after Ctrl-C its writer would still write to a file that is closed by then, which aborts
    the process. Its errors about files do not say what is wrong either.
    """
    whole = io.BytesIO()
    torch.save(dict(content), whole)
    with written_whole(output) as temporary:
        temporary.write_bytes(whole.getbuffer())
