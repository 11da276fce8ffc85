"""JSON as typed models, and what is wrong with it in words that a user can act on."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, TypeAdapter, ValidationError

from nnunet_ext.errors import UserError
from nnunet_ext.files import read_json

Model = TypeVar("Model", bound=BaseModel)
T = TypeVar("T")

EXPECTED = {
    "missing": "is missing",
    "string_type": "must be text",
    "dict_type": "must be an object {…}",
    "list_type": "must be a list […]",
    "model_type": "must be an object {…}",
    "int_type": "must be a whole number",
    "float_type": "must be a number",
    "finite_number": "must be a finite number",
    "bool_type": "must be true or false",
    "too_short": "must not be empty",
}
"""What pydantic's kinds of errors mean."""

LIMITS = {"greater_than": "more than", "greater_than_equal": "at least", "less_than_equal": "at most"}
KINDS = {list: "a list", str: "text", int: "a number", float: "a number", bool: "true or false", type(None): "null"}


def read_typed(kind: type[T], file: Path, *, maker: str = "nnunet_ext") -> T:
    """The content of a JSON file that is of a type, such as ``dict[str, str]``; a UserError says what is not."""
    content = read_json(file)
    try:
        return TypeAdapter(kind).validate_python(content)
    except ValidationError as error:
        raise UserError(f"{file} is not as {maker} writes it:\n{_listed(error)}") from None


def validated(model: type[Model], content: Any, *, where: object, what: str) -> Model:
    """The content of a JSON file as a model.

    Args:
        model: its type.
        content: what was read.
        where: the file, for messages.
        what: nnU-Net's name of such a file.

    Raises:
        UserError: naming the file and, for each key that is wrong, what was expected and what was found.
    """
    if not isinstance(content, Mapping):
        kind = KINDS.get(type(content), type(content).__name__)
        raise UserError(f"{where} holds {kind}; {what} of nnU-Net is an object with keys.")
    try:
        return model.model_validate(dict(content))
    except ValidationError as error:
        raise UserError(f"{where} is not as nnU-Net needs it:\n{_listed(error)}") from None


def _listed(error: ValidationError) -> str:
    """One line for each key that is wrong."""
    lines: dict[str, str] = {}
    for problem in error.errors():
        place = ".".join(str(part)[:80] for part in problem["loc"] if not _is_type(str(part)))
        kind, context = problem["type"], problem.get("ctx", {})
        message = problem["msg"].removeprefix("Value error, ")
        if kind in LIMITS:
            message = f"must be {LIMITS[kind]} {next(iter(context.values()))}"
        message = EXPECTED.get(kind, message)
        if kind in EXPECTED.keys() - {"missing"} or kind in LIMITS:
            message += f"; {shown(problem['input'])} was found"
        lines.setdefault(place.partition(".")[0], f"  - {place}: {message}")
    return "\n".join(lines.values())


def _is_type(part: str) -> bool:
    """Whether a part of a place is pydantic's name of one of several types, not a key."""
    return part.startswith(("list[", "constrained-", "function-")) or part in ("int", "str", "float")


def shown(value: Any) -> str:
    """A value in at most 60 characters."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:56]} …"
