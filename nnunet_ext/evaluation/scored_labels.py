"""Which labels of predictions can be scored: those that both dataset.json files have."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nnunet_ext.errors import UserError
from nnunet_ext.formats.dataset_json import foreground_labels


@dataclass(frozen=True)
class ScoredLabels:
    """The labels that a model and a dataset have in common, and the names that only one of them has."""

    keys: Mapping[str, tuple[int, ...]]  # by name, the value, or the values of a region
    only_model: tuple[str, ...]
    only_dataset: tuple[str, ...]
    ignore: int | None  # value of voxels of the reference that do not count
    of_model: tuple[tuple[int, ...], ...]  # values of each label or region of the model, in its order


def match_labels(model: Mapping[str, Any], dataset: Mapping[str, Any], *, name: str) -> ScoredLabels:
    """Find the labels or regions that are in both dataset.json files, by name; `name` is the dataset's, for messages.

    Raises:
        UserError: if a name stands for other values in the other, or there is no common name.
    """
    ours, theirs = foreground_labels(model), foreground_labels(dataset)
    common = [label for label in ours if label in theirs]
    for label in common:
        if set(ours[label]) != set(theirs[label]):
            value, other = (" + ".join(map(str, values[label])) for values in (ours, theirs))
            found = f"has the value {value} in the model and {other} in {name}"
            if len(ours[label]) == len(theirs[label]) == 1:
                advice = f"Give it the model's value in {name}, in the label maps as well as in dataset.json."
            else:
                advice = f"Define it by the model's values in dataset.json of {name}, if the label maps have them."
            raise UserError(f"Label {label!r} {found}. {advice}")
    if not common:
        raise UserError(
            f"The model and {name} have no label in common: the model has {', '.join(ours)}; {name} has "
            f"{', '.join(theirs)}."
        )
    return ScoredLabels(
        keys={label: ours[label] for label in common},
        only_model=tuple(label for label in ours if label not in theirs),
        only_dataset=tuple(label for label in theirs if label not in ours),
        ignore=dataset["labels"].get("ignore"),
        of_model=tuple(ours.values()),
    )


def label_channels(model: Mapping[str, Any], labels: Sequence[str]) -> dict[str, int]:
    """Which channel of the probabilities each label of a model with this dataset.json has.

    That is the label's value or, in a model of regions, its place among them.
    """
    values = foreground_labels(model)
    if any(len(value) > 1 for value in values.values()):
        return {label: list(values).index(label) for label in labels}
    return {label: values[label][0] for label in labels}
