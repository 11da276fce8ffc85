"""Which channels of a longitudinal dataset are the current scan, the prior image and the prior labels."""

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from nnunet_ext.errors import UserError
from nnunet_ext.formats.dataset_json import channel_names
from nnunet_ext.formats.own_key import KEY
from nnunet_ext.techniques.dual_encoder import ChannelRoles

LONGITUDINAL = "longitudinal"  # the key of the roles in dataset.json, under ``nnunet_ext``


def roles_of_dataset(dataset_json: Mapping[str, Any]) -> ChannelRoles:
    """The roles that a dataset.json gives its channels; without any, channel 0 is current and the rest prior image.

    Example: ``"nnunet_ext": {"longitudinal": {"current": [0], "prior_image": [1], "prior_labels": [2, 3]}}``. A
    UserError says if they do not fit the channels.
    """
    channels = len(channel_names(dataset_json))
    given = _about(dataset_json).get(LONGITUDINAL)
    where = f'dataset.json, "{KEY}": "{LONGITUDINAL}"'
    if given is None:
        given = {"current": [0], "prior_image": list(range(1, channels))}
    try:
        roles = ChannelRoles.model_validate(given)
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors())
        raise UserError(f"{where}: {problems}. Found: {given!r}.") from None
    check_roles(roles, channels, where=where)
    return roles


def roles_in(dataset_json: Mapping[str, Any]) -> dict[str, Any]:
    """The entry of a dataset.json about roles, for another dataset of the same channels; empty if there is none."""
    about = _about(dataset_json)
    return {LONGITUDINAL: about[LONGITUDINAL]} if LONGITUDINAL in about else {}


def _about(dataset_json: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a dataset.json, which a training has read by itself, has under ``nnunet_ext``."""
    about = {} if dataset_json.get(KEY) is None else dataset_json[KEY]
    if not isinstance(about, Mapping):
        raise UserError(f'dataset.json, "{KEY}": {about!r} was found, and an object {{…}} with keys is needed.')
    return about


def check_roles(roles: ChannelRoles, channels: int, *, where: str) -> None:
    """Raise a UserError unless roles, which stand at `where`, fit the number of channels and name a prior."""
    if channels < 2:
        makes = "`nnunet_ext pair` makes a dataset of current and prior scans; without a prior, use nnUNetTrainer."
        raise UserError(f"The dataset has one channel and so no prior scan. {makes}")
    named = [*roles.current, *roles.prior]
    if not roles.prior:
        raise UserError(f"{where} names no prior channel: expected prior_image, prior_labels or both.")
    if missing := sorted({channel for channel in named if not 0 <= channel < channels}):
        numbers = ", ".join(map(str, missing))
        raise UserError(f"{where} names channel {numbers}; the dataset has the channels 0 to {channels - 1}.")
    if twice := sorted({channel for channel in named if named.count(channel) > 1}):
        raise UserError(f"{where} gives channel {', '.join(map(str, twice))} more than one role; each must have one.")
