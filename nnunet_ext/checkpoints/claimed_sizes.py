"""How much memory a checkpoint takes, before torch reads it: what its archive unpacks to, and what tensors claim."""

import io
import pickle
import pickletools
import zipfile
from pathlib import Path
from typing import Any

from nnunet_ext.checkpoints.archive import refuse_large
from nnunet_ext.errors import UserError, in_one_line

BYTES = {"ComplexDouble": 16, "ComplexFloat": 8, "Double": 8, "Long": 8, "Float": 4, "Int": 4}
BYTES |= {"Half": 2, "BFloat16": 2, "Short": 2}
"""Of a number by the name of torch's storage; 1 in all others."""

LARGEST_TUPLE = 10_000
"""Values of a tuple and the tuples in it. Where it is the key of a dictionary, Python goes through all of them, in
calls that are as deep as they."""
LARGEST_TAIL = (1 << 16) + 22 + 20 + 56
"""Bytes in which the end of an archive lies: a comment, and the records named below."""
IN_MEMO = ("PUT", "BINPUT", "LONG_BINPUT")
LIST_END, LIST_END_64, PLACE_64 = (b"PK\5\6", 22), (b"PK\6\6", 56), (b"PK\6\7", 20)
"""How parts of an archive begin, and their bytes: the end of its list, the same for large ones, and where that is."""


class _Inert(dict[Any, Any]):
    """Stands for every class and function that a pickle names; takes what a pickle does to them, and does nothing."""

    def __init__(self, *given: Any) -> None:
        super().__init__()

    def __hash__(self) -> int:  # type: ignore[override]
        return id(self)

    def __call__(self, *given: Any, **named: Any) -> Any:
        return type("_Named", (_Inert,), {})  # what `getattr` finds, such as a class in a class

    def __setstate__(self, state: Any) -> None: ...

    def append(self, item: Any) -> None: ...

    def extend(self, items: Any) -> None: ...


class TooManyValues(ValueError):
    """A tuple has more than `LARGEST_TUPLE` values, those of the tuples in it counted as often as they are in it."""


class _Storages(pickle._Unpickler):
    """Goes through a pickle of torch without importing what it names, and notes the bytes of each storage."""

    def __init__(self, data: bytes) -> None:
        super().__init__(io.BytesIO(data))
        self.claimed: dict[str, int] = {}
        self.tuples: dict[int, tuple[int, Any]] = {}  # values of each by its id, and the tuple, so that it keeps its id

    def find_class(self, module: str, name: str) -> Any:
        return type(name, (_Inert,), {})

    def persistent_load(self, identifier: Any) -> Any:
        _, kind, key, _, number = identifier
        size = BYTES.get(kind.__name__.removesuffix("Storage"), 1)
        self.claimed[str(key)] = max(self.claimed.get(str(key), 0), int(number) * size)
        return _Inert()

    def count_tuple(self) -> None:
        """Count the values of the tuple that was made last; `TooManyValues` if they are too many."""
        made: tuple[Any, ...] = self.stack[-1]  # type: ignore[attr-defined]
        values = 1 + sum(self.tuples[id(one)][0] if type(one) is tuple and one else 1 for one in made)
        if values > LARGEST_TUPLE:
            raise TooManyValues
        self.tuples[id(made)] = values, made


def _counting(load: Any) -> Any:
    """A pickle's instruction to make a tuple, which is counted."""

    def load_and_count(self: _Storages) -> None:
        load(self)
        self.count_tuple()

    return load_and_count


_Storages.dispatch = {
    code: _counting(load) if load.__name__.startswith("load_tuple") else load
    for code, load in pickle._Unpickler.dispatch.items()
}


def check_claims(file: Path) -> None:
    """See that a checkpoint of torch 1.6 or later is no larger than it may be, and that its file has all its numbers.

    Raises:
        UserError: if it unpacks to more than the limits of `refuse_large`, a storage claims more than is there, or its
            archive cannot be gone through as torch will do it.
    """
    with file.open("rb") as handle:
        if handle.read(2) != b"PK":  # of an older torch
            return
    try:
        with zipfile.ZipFile(file) as content:
            entries = content.infolist()
            refuse_large(file, entries)
            sizes = {entry.filename: entry.file_size for entry in entries}
            pickles = [name for name in sizes if name.casefold().endswith("/data.pkl")]
            # torch's reader takes names that differ in case alone for one
            if len({name.casefold() for name in sizes}) < len(entries) or len(pickles) > 1:
                raise UserError(f"{file} is refused: its archive has two entries of one kind.")
            _check_list(file, content.start_dir)
            storages = _Storages(_checked_pickle(content.read(pickles[0])))
        storages.load()
    except UserError:
        raise
    except TooManyValues:
        raise UserError(
            f"{file} is refused: a tuple has more than {LARGEST_TUPLE} values. Take out all but network_weights, "
            "init_args and trainer_name."
        ) from None
    except Exception as error:  # what is damaged makes zipfile and pickle raise nearly anything
        fix = "Copy it again from where it was trained."
        raise UserError(f"{file} is damaged or cut off. {fix} ({in_one_line(error)})") from None
    folder = pickles[0][: -len("data.pkl")]
    for key, claimed in storages.claimed.items():
        if claimed > (found := sizes.get(f"{folder}data/{key}", 0)):
            raise UserError(f"{file} is refused: a tensor claims {claimed} bytes, but the file has {found} for it.")


def _check_list(file: Path, place: int) -> None:
    """See that the list of an archive's entries that Python has read, from some place on, is the one that torch reads.

    Python takes what lies before the end for the list, and torch what lies where the end says.
    """
    with file.open("rb") as handle:
        length = handle.seek(0, io.SEEK_END)
        before = max(0, length - LARGEST_TAIL)
        handle.seek(before)
        tail = handle.read()
    end = tail.rfind(LIST_END[0])  # behind it there may be a comment, or what a storage has filled up
    told = int.from_bytes(tail[end + 16 : end + 20], "little")
    place_64, end_64 = end - PLACE_64[1], end - PLACE_64[1] - LIST_END_64[1]
    if end_64 >= 0 and tail.startswith(PLACE_64[0], place_64):
        told = int.from_bytes(tail[end_64 + 48 : end_64 + 56], "little")
        at = int.from_bytes(tail[place_64 + 8 : place_64 + 16], "little")
        if not tail.startswith(LIST_END_64[0], end_64) or at != before + end_64:
            told = -1
    if end < 0 or told != place:
        raise UserError(
            f"{file} is refused: its archive has a list of its entries that torch does not read. If it is your own, "
            "read it with torch.load and save it again with torch.save."
        )


def _checked_pickle(data: bytes) -> bytes:
    """A pickle that is whole and asks for no more memory than it has bytes; a ValueError says that it is not."""
    for instruction, argument, _ in pickletools.genops(data):
        if instruction.name in IN_MEMO and int(argument or 0) > len(data):
            raise ValueError(f"{len(data)} bytes claim {argument} objects")
    return data
