"""Plans files of nnU-Net v2: the keys that are used here have their types, and configurations inherit in no circle."""

from collections.abc import Iterable, Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictInt, StrictStr, model_validator

from nnunet_ext.errors import UserError
from nnunet_ext.formats.typed import validated

Size = Annotated[StrictInt, Field(ge=1, le=100_000)]
Length = Annotated[float, Field(gt=0, le=1e9, allow_inf_nan=False, strict=True)]


PerAxis = Size | list[Size]
"""The same for all dimensions, or one for each."""


def dimensions(conv_op: str) -> int:
    """2 or 3, by the convolution that a network's arguments name."""
    return 2 if conv_op.endswith("2d") else 3


class UNetArguments(BaseModel):
    """The arguments of a U-Net that say how many tensors it has, of which shapes."""

    model_config = ConfigDict(extra="allow")

    n_stages: Annotated[StrictInt, Field(ge=1, le=100)]
    features_per_stage: Size | list[Size]
    conv_op: StrictStr
    kernel_sizes: Size | list[PerAxis]
    strides: Size | list[PerAxis]
    n_conv_per_stage: Size | list[Size] | None = None
    n_blocks_per_stage: Size | list[Size] | None = None

    @property
    def dimensions(self) -> int:
        """2 or 3."""
        return dimensions(self.conv_op)

    @model_validator(mode="after")
    def _has_an_entry_for_each_stage(self) -> "UNetArguments":
        for key in ("features_per_stage", "kernel_sizes", "strides", "n_conv_per_stage", "n_blocks_per_stage"):
            value = getattr(self, key)
            if isinstance(value, list) and len(value) != self.n_stages:
                raise ValueError(f"{key} has {len(value)} entries for {self.n_stages} stages")
            if isinstance(value, list) and any(isinstance(one, list) and len(one) != self.dimensions for one in value):
                raise ValueError(f"{key} must have {self.dimensions} numbers for each stage of a {self.conv_op}")
        return self


class Architecture(BaseModel):
    """A network and its arguments."""

    model_config = ConfigDict(extra="allow")

    network_class_name: StrictStr | None = None
    arch_kwargs: dict[StrictStr, Any] | None = None
    requires_import: list[StrictStr] | None = Field(None, alias="_kw_requires_import")


class Configuration(BaseModel):
    """A configuration; what it lacks it inherits."""

    model_config = ConfigDict(extra="allow")

    inherits_from: StrictStr | None = None
    data_identifier: StrictStr | None = None
    preprocessor_name: StrictStr | None = None
    batch_size: Size | None = None
    patch_size: list[Size] | None = Field(None, min_length=2, max_length=3)
    spacing: list[Length] | None = Field(None, min_length=2, max_length=3)
    normalization_schemes: list[StrictStr] | None = None
    use_mask_for_norm: list[StrictBool] | None = None
    architecture: Architecture | None = None
    previous_stage: StrictStr | None = None
    next_stage: StrictStr | list[StrictStr] | None = None
    nnunet_ext: dict[StrictStr, Any] | None = None


class Plans(BaseModel):
    """A plans file."""

    model_config = ConfigDict(extra="allow")

    dataset_name: StrictStr | None = None
    plans_name: StrictStr | None = None
    image_reader_writer: StrictStr | None = None
    label_manager: StrictStr | None = None
    transpose_forward: list[StrictInt] | None = None
    transpose_backward: list[StrictInt] | None = None
    foreground_intensity_properties_per_channel: dict[StrictStr, dict[StrictStr, float]] | None = None
    configurations: dict[StrictStr, Configuration]


def require(content: Mapping[str, Any], keys: Iterable[str], *, where: object) -> None:
    """Raise a UserError if plans, or a part of them, lack keys that nnU-Net always writes.

    Other programs leave out what they do not need, so that each use says what it cannot do without.
    """
    if missing := [key for key in keys if content.get(key) is None]:
        raise UserError(
            f"{where} has no {', '.join(missing)}, which nnU-Net always writes. Put the plans back that nnU-Net has "
            "written, or add what is missing."
        )


def checked_plans(content: Any, *, where: object) -> dict[str, Any]:
    """The content of a plans file whose types are right; a configuration that inherits from null inherits from none.

    Args:
        content: what the file holds.
        where: the file, for messages.

    Raises:
        UserError: naming the file, the key, what was expected and what was found; or the configurations that inherit
            from each other, or from one that is not there.
    """
    plans = validated(Plans, content, where=where, what="a plans file")
    for name in plans.configurations:
        line = [name]
        while parent := plans.configurations[line[-1]].inherits_from:
            if parent not in plans.configurations:
                raise UserError(f"{where}: configuration {line[-1]!r} inherits from {parent!r}, which is not there.")
            if parent in line:
                raise UserError(f"{where}: configurations inherit in a circle: {' from '.join([*line, parent])}.")
            line.append(parent)
    configurations = {
        name: {key: value for key, value in one.items() if key != "inherits_from" or value is not None}
        for name, one in content["configurations"].items()
    }
    return {**content, "configurations": configurations}
