"""What a checkpoint says of its training, as far as the report shows it."""

from typing import Any

from pydantic import BaseModel, StrictInt, StrictStr


class Moved(BaseModel):
    """What a fine-tuning has moved."""

    shares: dict[StrictStr, tuple[StrictInt, StrictInt]] = {}


class Own(BaseModel):
    """What this package has written; absent from checkpoints of stock nnU-Net."""

    version: StrictStr | None = None
    settings: dict[StrictStr, Any] = {}
    moved: Moved = Moved()
    source: dict[StrictStr, Any] = {}  # the public weights that it was started from, with citation and licence


class Recorded(BaseModel):
    """The checkpoint."""

    logging: dict[StrictStr, list[Any]] = {}
    nnunet_ext: Own = Own()
