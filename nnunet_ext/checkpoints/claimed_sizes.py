"""How much memory a checkpoint takes, before torch reads it: what its archive unpacks to, and what tensors claim."""

import io
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nnunet_ext.checkpoints.archive import refuse_large
from nnunet_ext.errors import UserError, in_one_line

BYTES = {"ComplexDouble": 16, "ComplexFloat": 8, "Double": 8, "Long": 8, "Float": 4, "Int": 4}
BYTES |= {"Half": 2, "BFloat16": 2, "Short": 2}
"""Of a number by the name of torch's storage; 1 in all others."""


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


class _Storages(pickle.Unpickler):
    """Goes through a pickle of torch without importing what it names, and notes the bytes of each storage."""

    def __init__(self, stream: io.BytesIO) -> None:
        super().__init__(stream)
        self.claimed: dict[str, int] = {}

    def find_class(self, module: str, name: str) -> Any:
        return type(name, (_Inert,), {})

    def persistent_load(self, identifier: Any) -> Any:
        _, kind, key, _, number = identifier
        size = BYTES.get(kind.__name__.removesuffix("Storage"), 1)
        self.claimed[str(key)] = max(self.claimed.get(str(key), 0), int(number) * size)
        return _Inert()


def check_claims(file: Path) -> None:
    """See that a checkpoint of torch 1.6 or later is no larger than it may be, and that its file has all its numbers.

    Raises:
        UserError: if it unpacks to more than the limits of `refuse_large`, or a storage claims more than is there.
    """
    try:
        with zipfile.ZipFile(file) as content:
            refuse_large(file, content.infolist())
            sizes = {entry.filename: entry.file_size for entry in content.infolist()}
            pickles = [name for name in sizes if name.endswith("/data.pkl")]
            if len(sizes) < len(content.infolist()) or len(pickles) > 1:
                raise UserError(f"{file} is refused: its archive has two entries of one kind.")
            storages = _Storages(io.BytesIO(content.read(pickles[0])))
    except UserError:
        raise
    except Exception:  # torch says what is wrong with an archive that is damaged, or with a file that is none
        return
    try:
        storages.load()
    except Exception as error:
        raise UserError(f"{file} is damaged. Copy it again. ({in_one_line(error)})") from None
    folder = pickles[0].removesuffix("data.pkl")
    for key, claimed in storages.claimed.items():
        if claimed > (found := sizes.get(f"{folder}data/{key}", 0)):
            raise UserError(f"{file} is refused: a tensor claims {claimed} bytes, but the file has {found} for it.")


def check_backed(content: Any, file: Path) -> Any:
    """The content of a checkpoint whose tensors are no larger than their storages; a copy of others would fill memory.

    Raises:
        UserError: naming the tensor.
    """
    pending = [("", content)]
    while pending:
        name, value = pending.pop()
        if isinstance(value, Mapping):
            pending += [(f"{name}.{key}" if name else str(key), one) for key, one in value.items()]
        elif isinstance(value, Tensor) and (value.layout != torch.strided or value.device.type != "cpu"):
            raise UserError(f"{file} is refused: the tensor {name} is sparse or empty, which no weight of nnU-Net is.")
        elif isinstance(value, Tensor) and value.numel() * value.element_size() > value.untyped_storage().nbytes():
            raise UserError(f"{file} is refused: the tensor {name} claims {value.numel()} numbers, and has fewer.")
    return content
