"""A folder of predictions and what was made of them, which a command goes on in if the same is asked again."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nnunet_ext.errors import UserError
from nnunet_ext.files import write_json
from nnunet_ext.folders import MARKER, prepare_output_folder
from nnunet_ext.formats.typed import read_typed

RECORD = "request.json"


def open_output(out: Path, wanted: Mapping[str, Any], *, force: bool, holds: str) -> None:
    """Make the output folder, which records what decides the predictions, or go on in one where the same was asked.

    A UserError says if it has content that is not of the same request, which is called what it `holds`.
    """
    record = out / RECORD
    if record.is_file() and (out / MARKER).is_file() and not force:
        before = read_typed(dict[str, Any], record)
        if before == wanted:
            return
        differing = ", ".join(key for key in wanted if before.get(key) != wanted[key])
        raise UserError(
            f"{out} holds {holds} that differs in: {differing}. Choose another folder, or add --force to replace it."
        )
    prepare_output_folder(out, force=force)
    write_json(record, wanted)
