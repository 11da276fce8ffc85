"""nnU-Net's splits_final.json: the folds of a cross-validation."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from pydantic import BaseModel, TypeAdapter, ValidationError

from nnunet_ext.errors import UserError
from nnunet_ext.files import read_json
from nnunet_ext.messages import counted, some

Fold = dict[str, list[str]]
"""One entry of splits_final.json: the cases of ``train`` and of ``val``."""

PARTS = ("train", "val")


class _FoldInFile(BaseModel, strict=True):
    train: list[str]
    val: list[str]


_SPLITS_FILE = TypeAdapter(list[_FoldInFile])


def read_splits(file: Path) -> list[Fold]:
    """Read a splits_final.json; a UserError if it is missing or has another format."""
    try:
        return [fold.model_dump() for fold in _SPLITS_FILE.validate_python(read_json(file))]
    except ValidationError:
        raise UserError(
            f'{file} is no split of nnU-Net. Expected: a list of {{"train": [...], "val": [...]}} of cases.'
        ) from None


def check_has_folds(folds: Sequence[Fold], numbers: Iterable[int | str], *, file: Path, advice: str) -> None:
    """Raise a UserError, which ends in the advice, if a file does not have all of some folds."""
    missing = [number for number in dict.fromkeys(numbers) if isinstance(number, str) or number >= len(folds)]
    if missing:
        there = f"it has {counted(len(folds), 'fold')}, numbered from 0"
        raise UserError(f"{file} has no fold {some(missing)}; {there}. {advice}")


def same_fold(one: Fold, other: Fold) -> bool:
    """Whether two folds hold the same cases, in whatever order."""
    return all(set(one[part]) == set(other[part]) for part in PARTS)
