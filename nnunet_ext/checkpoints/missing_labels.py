"""What a model has learned of labels that were missing in some of its training cases."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nnunet_ext.checkpoints.networks import find_trainer
from nnunet_ext.formats.annotated_labels import MISSING, annotated_labels
from nnunet_ext.formats.own_key import KEY
from nnunet_ext.techniques.partial_labels import PARTIAL_LABELS

BACKGROUND = "background"  # the value of the key


def takes_missing_for_background(trainer: str, dataset_json: Mapping[str, Any], *, where: Path) -> bool:
    """Whether a model was taught that labels which nobody looked for are background.

    Args:
        trainer: the name of the class that trained it.
        dataset_json: the model's, which lists what each training case was annotated for, or was exported.
        where: its file, for messages.
    """
    about = dataset_json.get(KEY)
    if isinstance(about, Mapping) and about.get(MISSING) == BACKGROUND:
        return True
    has_gaps = annotated_labels(dataset_json, where=where).have_gaps
    return has_gaps and PARTIAL_LABELS not in getattr(find_trainer(trainer), "techniques", ())
