"""dataset.json, as nnU-Net v2 describes it: checked when it is read, and what it says of channels and labels."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StrictInt, StrictStr, field_validator

from nnunet_ext.errors import UserError
from nnunet_ext.files import read_json
from nnunet_ext.formats.names import check_names
from nnunet_ext.formats.typed import validated

Value = Annotated[StrictInt, Field(ge=0, le=65535)]
"""A voxel's value: from 0 to what nnU-Net stores."""


class Files(BaseModel):
    """The files of a case, relative to the dataset's folder or absolute."""

    images: list[StrictStr] = Field(min_length=1)
    label: StrictStr


class DatasetJson(BaseModel):
    """The keys of dataset.json that are used here; nnU-Net and users may have others."""

    model_config = ConfigDict(extra="allow")

    channel_names: dict[StrictStr, StrictStr] | None = None
    modality: dict[StrictStr, StrictStr] | None = None
    labels: dict[StrictStr, Value | list[Value]]
    file_ending: StrictStr
    regions_class_order: list[Value] | None = None
    overwrite_image_reader_writer: StrictStr | None = None
    dataset: dict[StrictStr, Files] | None = None
    nnunet_ext: dict[StrictStr, Any] | None = None

    @field_validator("channel_names", "modality", mode="before")
    @classmethod
    def _channels(cls, value: Any) -> Any:
        expected = 'Write the number of each channel and its name: {"0": "T1", "1": "FLAIR"}'
        if isinstance(value, list):
            raise ValueError(f"a list was found. {expected}")
        if isinstance(value, dict):
            value = {key: str(name) if isinstance(name, int) else name for key, name in value.items()}
            if not value or sorted(value, key=str) != sorted(map(str, range(len(value)))):
                raise ValueError(f"the keys are {', '.join(map(repr, value)) or 'missing'}. {expected}")
        return value

    @field_validator("labels", mode="before")
    @classmethod
    def _labels(cls, value: Any) -> Any:
        expected = 'Write the name of each label and its value: {"background": 0, "liver": 1}'
        if isinstance(value, list):
            raise ValueError(f"a list was found. {expected}")
        if isinstance(value, dict) and any(
            isinstance(found, str) and not found.isdecimal() for found in value.values()
        ):
            raise ValueError(f"the values are names. {expected}")
        if isinstance(value, dict) and isinstance(value.get("ignore"), list):
            raise ValueError(f"ignore is {value['ignore']}, and must be one number")
        if isinstance(value, dict):
            return {name: int(found) if isinstance(found, str) else found for name, found in value.items()}
        return value

    @field_validator("file_ending")
    @classmethod
    def _ending(cls, value: str) -> str:
        if not value.startswith(".") or len(value) < 2 or "/" in value or "\\" in value:
            raise ValueError(f"{value!r} was found, but it must begin with a dot, as '.nii.gz' does")
        return value


def checked_dataset_json(content: Any, *, where: object) -> dict[str, Any]:
    """The content of a dataset.json whose types and values are right.

    Args:
        content: what the file holds.
        where: the file, for messages.

    Returns:
        The content with numbers in the place of digits (nnU-Net v1 wrote both), without known keys that are null.

    Raises:
        UserError: naming the file, the key, what was expected and what was found.
    """
    parsed = validated(DatasetJson, content, where=where, what="dataset.json")
    if parsed.channel_names is None and parsed.modality is None:
        raise UserError(f"{where} has no channel_names, which nnU-Net needs.")
    if parsed.dataset is not None:
        check_names(parsed.dataset, what="case", where=where)
    known = parsed.model_dump()
    kept = [key for key in content if key not in DatasetJson.model_fields or known[key] is not None]
    return {key: content[key] if key == "dataset" else known[key] for key in kept}


def read_dataset_json(file: Path) -> dict[str, Any]:
    """Read a dataset.json; see `checked_dataset_json`."""
    return checked_dataset_json(read_json(file), where=file)


def channel_names(dataset_json: Mapping[str, Any]) -> list[str]:
    """The names of a dataset's channels, in order."""
    # the key that dataset.json had before nnU-Net v2
    names = dataset_json["channel_names"] if "channel_names" in dataset_json else dataset_json["modality"]
    return [str(names[key]) for key in sorted(names, key=int)]


def values_of(label: Any) -> set[int]:
    """The values that a label or a region stands for."""
    return {int(value) for value in (label if isinstance(label, (list, tuple)) else [label])}


def foreground_labels(dataset_json: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Values by name of all labels and regions but background and ignore."""
    values = {
        str(name): tuple(dict.fromkeys(map(int, value))) if isinstance(value, (list, tuple)) else (int(value),)
        for name, value in dataset_json["labels"].items()
        if name != "ignore"
    }
    return {name: value for name, value in values.items() if set(value) != {0}}


def declared_values(dataset_json: Mapping[str, Any]) -> dict[int, str]:
    """Names by value of every label, ignore included; a value that only regions have is named by the first of them."""
    values: dict[int, str] = {}
    for name, label in dataset_json["labels"].items():
        for value in values_of(label):
            values.setdefault(value, str(name))
    return values
