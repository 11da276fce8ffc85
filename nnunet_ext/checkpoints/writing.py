"""Writing checkpoints."""

import os
from collections.abc import Mapping
from typing import Any

import torch

from nnunet_ext.files import written_whole


def write_checkpoint(output: str | os.PathLike[str], content: Mapping[str, Any]) -> None:
    """Write a torch file, whole or not at all."""
    # opened here and not by torch, whose errors do not say what is wrong
    with written_whole(output) as temporary, temporary.open("wb") as handle:
        torch.save(dict(content), handle)
