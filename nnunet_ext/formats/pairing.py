"""What dataset.json says, under ``nnunet_ext``, of how pairs of scans were prepared."""

from collections.abc import Mapping
from pathlib import PureWindowsPath
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictStr

from nnunet_ext.errors import UserError
from nnunet_ext.formats.dataset_json import Value
from nnunet_ext.formats.own_key import KEY
from nnunet_ext.formats.typed import validated
from nnunet_ext.messages import some

RegistrationKind = Literal["none", "rigid", "affine", "bspline"]
"""How a prior scan is brought onto the current one."""

PAIRING = "pairing"
"""The key of what a prediction has to do as the training did."""

MATCHED = "match_histogram"
"""The key in it of the image whose intensities all images get: a whole path, or null."""


class Prepared(BaseModel):
    """What is under the key."""

    model_config = ConfigDict(extra="allow")

    labels: dict[StrictStr, Value] | None = None  # of the prior scan; None in datasets of an early version
    modality: StrictStr = "MRI"
    registration: RegistrationKind = "none"
    crop_to_body: Annotated[float, Field(ge=0, allow_inf_nan=False, strict=True)] | None = None
    match_histogram: StrictStr | None = None


def prepared(content: Mapping[str, Any], *, where: object) -> Prepared:
    """What is under the key in the dataset.json `where`; a UserError if it is wrong, or of a newer version."""
    place = f'"{KEY}": "{PAIRING}" in {where}'
    found = validated(Prepared, content, where=place, what="a dataset.json")
    if found.model_extra:
        raise UserError(
            f"{place} has keys that are not known: {some(list(found.model_extra))}. Update nnunet_ext if a newer "
            "version made the dataset, or remove them."
        )
    return found


def without_folders(about: Mapping[str, Any]) -> dict[str, Any]:
    """The block of ``nnunet_ext`` with the matched image's name alone, as folders may be called after a patient."""
    pairing = about.get(PAIRING)
    if not isinstance(pairing, Mapping) or not isinstance(file := pairing.get(MATCHED), str):
        return dict(about)
    name = PureWindowsPath(file).name  # which takes / and \ alike, wherever the dataset was made
    return {**about, PAIRING: {**pairing, MATCHED: name}}
