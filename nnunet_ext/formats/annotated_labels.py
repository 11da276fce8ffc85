"""Which labels each case was annotated for, as dataset.json says under ``nnunet_ext``.

Example: ``"nnunet_ext": {"annotated_labels": {"case_1": ["liver"], "case_2": []}, "default": ["liver", "spleen"]}``.
A case that is not listed has the labels of ``default``. Without both keys, every case has every label. ``"scribbled":
["case_4"]`` names cases of which only parts were annotated, with the ignore label elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, StrictStr

from nnunet_ext.errors import UserError
from nnunet_ext.formats.dataset_json import foreground_labels
from nnunet_ext.formats.own_key import KEY
from nnunet_ext.formats.typed import validated
from nnunet_ext.messages import some

LISTS, DEFAULT, SCRIBBLED = "annotated_labels", "default", "scribbled"

MISSING = "missing_labels"
"""Key of an exported model's dataset.json, which lists no cases: ``background`` if it learned that labels which were
missing in a case are background."""

NAMING_CASES = (LISTS, SCRIBBLED, "sources")
"""Keys whose values have names of cases."""

TRAINING, TEST = ("labelsTr", "gt_segmentations"), "labelsTs"
"""nnU-Net's own folders of references: of cases for training, with its copy of these, and of test cases."""

Kind = Literal["dense", "scribbled", "partial", "unlabelled"]
KINDS: tuple[Kind, ...] = ("dense", "scribbled", "partial", "unlabelled")
"""What a case teaches: every label; parts of the case; some labels; nothing."""


class _Block(BaseModel):
    """The keys that are used here; other parts of the package have others."""

    model_config = ConfigDict(extra="allow")

    annotated_labels: dict[StrictStr, list[StrictStr]] = {}
    default: list[StrictStr] | None = None
    scribbled: list[StrictStr] = []


@dataclass(frozen=True)
class AnnotatedLabels:
    """The labels of a dataset, and which of them each case was annotated for."""

    labels: tuple[str, ...]  # names of all labels or regions but background and ignore, in the dataset's order
    lists: Mapping[str, tuple[str, ...]]  # by case
    default: tuple[str, ...] | None  # of cases that are not listed; None if each case must be listed
    scribbled: frozenset[str]  # cases
    where: str  # the file, for messages
    are_all_listed: bool = False  # whether there are no more training cases than lists, so that none has the default

    def of(self, case: str) -> tuple[str, ...]:
        """The labels that a case was annotated for; a UserError if nothing says which."""
        found = self.lists.get(case, self.default)
        if found is None:
            raise UserError(
                f'{self.where} has no list for the case {case} in "{KEY}": "{LISTS}". List the labels that it was '
                f'annotated for ([] for none), or give "{KEY}": "{DEFAULT}" for cases that are not listed.'
            )
        return found

    def missing(self, case: str) -> tuple[str, ...]:
        """The labels that a case was not annotated for; a UserError if nothing says which."""
        found = self.of(case)
        return tuple(label for label in self.labels if label not in found)

    def is_annotated(self, case: str, label: str) -> bool:
        """Whether a case was annotated for a label; true for a case that is not listed if there is no default."""
        found = self.lists.get(case, self.default)
        return found in (None, self.labels) or label in found

    def against(self, folder: str) -> AnnotatedLabels:
        """What holds for scores against the references in a folder of a name.

        The lists are about nnU-Net's own references, and the default about cases for training. What else is there, such
        as ``labelsTr_dense``, has every label.
        """
        if folder in TRAINING:
            return self
        return replace(self, default=None, lists=self.lists if folder == TEST else {})

    def kind(self, case: str) -> Kind:
        """What a case teaches. One of which parts were annotated, for some labels alone, is ``scribbled``."""
        labels = self.of(case)
        if not labels:
            return "unlabelled"
        return "scribbled" if case in self.scribbled else "dense" if len(labels) == len(self.labels) else "partial"

    @property
    def have_gaps(self) -> bool:
        """Whether a training case was not annotated for every label."""
        default = () if self.default is None or self.are_all_listed else (self.default,)
        return any(len(one) < len(self.labels) for one in (*self.lists.values(), *default))

    def are_partial(self, cases: Iterable[str]) -> bool:
        """Whether one of the cases was not annotated for every label."""
        return any(self.missing(case) for case in cases)


def annotated_labels(description: Mapping[str, Any], *, where: object = "dataset.json") -> AnnotatedLabels:
    """What a dataset.json says of the labels that its cases were annotated for.

    Args:
        description: its content.
        where: the file, for messages.

    Raises:
        UserError: naming what is no list of labels, labels that the dataset does not have, and scribbled cases where
            there can be none.
    """
    block = validated(_Block, description.get(KEY) or {}, where=f'"{KEY}" in {where}', what="a dataset.json")
    labels = tuple(foreground_labels(description))

    def checked(names: Iterable[str], place: str) -> tuple[str, ...]:
        if unknown := sorted(set(names) - set(labels)):
            raise UserError(
                f'{where}, "{KEY}": {place} names {some(unknown)}, but the labels are {", ".join(labels)}. Background '
                "and ignore are not listed."
            )
        return tuple(label for label in labels if label in names)

    lists = {case: checked(names, f'"{LISTS}", case {case},') for case, names in block.annotated_labels.items()}
    default = labels if block.default is None and not lists else block.default
    if block.scribbled and "ignore" not in description["labels"]:
        raise UserError(
            f'{where}, "{KEY}": "{SCRIBBLED}" names {some(block.scribbled)}, but the dataset has no ignore label: '
            "every voxel without a scribble would be background. Add the label, or take the cases out of the list."
        )
    checked_default = None if default is None else checked(default, f'"{DEFAULT}"')
    if nothing := [case for case in block.scribbled if lists.get(case, checked_default) == ()]:
        raise UserError(
            f'{where}, "{KEY}": {some(nothing)} were annotated for nothing and are "{SCRIBBLED}". List the labels that '
            f'were scribbled, or take them out of "{SCRIBBLED}".'
        )
    cases = description.get("numTraining")
    are_all_listed = isinstance(cases, int) and cases <= len(lists)
    return AnnotatedLabels(labels, lists, checked_default, frozenset(block.scribbled), str(where), are_all_listed)
