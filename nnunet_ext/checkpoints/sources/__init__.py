"""Readers of public weights, a file for each source. `read_source` finds the one that fits."""

import os
from pathlib import Path

from nnunet_ext.checkpoints.reading import checkpoint_in, load_file
from nnunet_ext.checkpoints.sources.multitalent import MultiTalentReader
from nnunet_ext.checkpoints.sources.nnssl import NnsslReader
from nnunet_ext.checkpoints.sources.nnunet import NNUNetReader
from nnunet_ext.checkpoints.sources.source import Given, Parts, Reader, Source
from nnunet_ext.checkpoints.sources.stunet import STUNetReader
from nnunet_ext.checkpoints.sources.totalsegmentator import TotalSegmentatorReader
from nnunet_ext.checkpoints.sources.voco import VoComniReader
from nnunet_ext.checkpoints.sources.wrapped import WrappedReader
from nnunet_ext.errors import UserError

READERS: tuple[Reader, ...] = (
    NnsslReader(),
    STUNetReader(),
    TotalSegmentatorReader(),
    MultiTalentReader(),
    VoComniReader(),
    NNUNetReader(),
    WrappedReader(),
)
"""In the order in which they are asked whether a file is theirs."""


def built_in_source(name: str | os.PathLike[str]) -> Source | None:
    """The description of a source whose files have no plans, by its name, without weights; None if it is a file."""
    vocomni = VoComniReader()
    return vocomni.described({}) if str(name) == vocomni.name and not Path(name).exists() else None


def read_source(
    path: str | os.PathLike[str],
    *,
    reader: str | None = None,
    parts: Parts | None = None,
    stem: str | None = None,
) -> Source:
    """Read weights of any source onto the CPU, without running code that may be in the file.

    Args:
        path: a checkpoint, or the folder of a model, of which the first fold is read.
        reader: name of the reader; by default the first that recognises the content.
        parts: ``encoder`` or ``all``; by default what the source is good for.
        stem: which one to take of a network with several.

    Raises:
        UserError: if there is no such file, if it is damaged, of a network that is not nnU-Net's, or not what the
            reader expects.
    """
    file, folder = checkpoint_in(Path(path))
    given = Given(file, load_file(file), folder, parts, stem)
    if reader is not None:
        found = next((one for one in READERS if one.name == reader), None)
        if found is None:
            raise UserError(f"There is no reader {reader!r}. There are: {', '.join(one.name for one in READERS)}.")
    else:
        found = next((one for one in READERS if one.recognises(given)), NNUNetReader())
    return found.read(given)
