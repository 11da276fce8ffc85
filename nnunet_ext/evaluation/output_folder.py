"""A folder of predictions and what was made of them, which a command goes on in if the same is asked again."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from nnunet_ext.errors import UserError
from nnunet_ext.files import write_json
from nnunet_ext.folders import (
    MARKER,
    end_interrupted_publication,
    prepare_output_folder,
    unfinished_folder,
)
from nnunet_ext.formats.typed import read_typed

RECORD = "request.json"


@contextmanager
def open_output(out: Path, wanted: Mapping[str, Any], *, force: bool, holds: str) -> Iterator[Path]:
    """Yield the folder to write, which records what decides the predictions, or go on in one where the same was asked.

    This is `out` itself, or with `force` a hidden folder whose content replaces that of `out` when the block ends
    without an exception. What an interrupted block has written is there again the next time that the same is asked.

    Raises:
        UserError: if `out` has content that is not of the same request, which is called what it `holds`.
    """
    end_interrupted_publication(out)
    record = out / RECORD
    if force:
        with unfinished_folder(out, force=True, request=wanted) as folder:
            yield folder
            write_json(folder / RECORD, wanted)
        return
    if record.is_file() and (out / MARKER).is_file():
        before = read_typed(dict[str, Any], record)
        if before != wanted:
            differing = ", ".join(key for key in wanted if before.get(key) != wanted[key])
            raise UserError(
                f"{out} holds {holds} that differs in: {differing}. Choose another folder, or add --force to replace "
                "it."
            )
    else:
        prepare_output_folder(out, force=force)
        write_json(record, wanted)
    yield out
