"""Data in which some labels are missing in some cases, and the lists in dataset.json that say which."""

from collections import Counter
from collections.abc import Collection, Iterator

import numpy as np

from nnunet_ext.errors import UserError
from nnunet_ext.findings import Finding
from nnunet_ext.formats.annotated_labels import DEFAULT, KINDS, LISTS, SCRIBBLED, AnnotatedLabels
from nnunet_ext.formats.dataset_json import values_of
from nnunet_ext.formats.own_key import KEY
from nnunet_ext.messages import some
from nnunet_ext.preprocessing.checks.dataset_check import known_folds
from nnunet_ext.preprocessing.raw.raw_dataset import Labels, RawDataset


class PartialLabelsCheck:
    """Compares the lists with the cases and their label maps, and looks for folds that lack a label."""

    def __init__(self, dataset: RawDataset) -> None:
        self.dataset = dataset
        self.present: dict[str, set[int]] = {}  # values by case
        self.with_ignore: set[str] = set()  # cases
        self.refusal, self.annotated = "", None
        try:
            self.annotated = dataset.annotated_labels()
        except UserError as error:
            self.refusal = str(error)

    def look_at(self, case: str, labels: Labels) -> None:
        values = set(np.unique(labels).tolist())
        self.present[case] = values - {0, self.dataset.ignore_label}
        if self.dataset.ignore_label in values:
            self.with_ignore.add(case)

    def findings(self) -> Iterator[Finding]:
        if self.annotated is None:
            yield Finding("problem", "lists", self.refusal)
            return
        yield from self.wrong_lists(self.annotated)
        if any(self.annotated.lists.get(case, self.annotated.default) is None for case in self.dataset.cases):
            return  # each case in no list is told
        if not self.annotated.are_partial(self.dataset.cases):
            detail = (
                f'every case is annotated for every label. If labels are missing, say so in "{KEY}": "{LISTS}" of '
                "dataset.json, as nnunet_ext merge does. Otherwise stock nnU-Net gives the same."
            )
            yield Finding("warning", "lists", detail)
        kinds = Counter(map(self.annotated.kind, self.dataset.cases))
        yield Finding("ok", "cases", f"{', '.join(f'{kinds[kind]} {kind}' for kind in KINDS)}.")
        yield from self.counts(self.annotated)
        yield from self.contradictions(self.annotated)
        yield from self.folds(self.annotated)

    def wrong_lists(self, annotated: AnnotatedLabels) -> Iterator[Finding]:
        """Lists of unknown cases, and cases without a list."""
        if unknown := self.dataset.unknown_cases():
            yield Finding("problem", "lists", f"name cases that the dataset does not have: {some(unknown)}.")
        if annotated.default is None and (without := sorted(set(self.dataset.cases) - set(annotated.lists))):
            fix = f'Add them ([] for none), or give "{DEFAULT}" for cases that are not listed.'
            yield Finding("problem", "lists", f"{len(without)} cases are in none: {some(without)}. {fix}")

    def counts(self, annotated: AnnotatedLabels) -> Iterator[Finding]:
        """How many cases are annotated for each label, how many of these have it, and cases that teach nothing."""
        total = len(self.dataset.cases)
        for label in annotated.labels:
            cases = [case for case in self.dataset.cases if annotated.is_annotated(case, label)]
            having = [case for case in cases if self._values(label) & self.present.get(case, set())]
            detail = f"annotated in {len(cases)} of {total} cases; {len(having)} of these have it."
            if having:
                yield Finding("ok", label, detail)
            else:
                yield Finding("problem", label, f"{detail} It cannot be learned. Annotate some cases, or remove it.")
        if nothing := [case for case in self.dataset.cases if not annotated.of(case)]:
            detail = f"{len(nothing)} of {total} cases are annotated for nothing: {some(nothing)}. "
            detail += "They are left out of trainings."
            yield Finding("warning", "annotation", detail)

    def contradictions(self, annotated: AnnotatedLabels) -> Iterator[Finding]:
        """Values in a label map that no label has which the case was annotated for."""
        wrong = {}
        for case, present in self.present.items():
            known = set().union(*(self._values(label) for label in annotated.of(case)))
            if more := present - known:
                wrong[case] = f"{case} ({some(sorted(more))})"
        if complete := sorted(annotated.scribbled & (set(self.present) - self.with_ignore)):
            detail = f"have no voxel of the ignore label: {some(complete)}. Every voxel of them counts as annotated."
            yield Finding("problem", SCRIBBLED, f"{len(complete)} cases of the list {detail}")
        if wrong:
            detail = (
                f"{len(wrong)} of {len(self.present)} cases have values in their label map that they were not "
                f"annotated for: {some(list(wrong.values()))}. Complete their lists, or remove the values."
            )
            yield Finding("problem", "contradictions", detail)
        else:
            yield Finding("ok", "contradictions", "no case has a label that it was not annotated for.")

    def folds(self, annotated: AnnotatedLabels) -> Iterator[Finding]:
        """Folds none of whose training cases has a label, and labels that no case of the validation is scored for."""
        for number, fold in enumerate(known_folds(self.dataset)):
            train, validation = ([case for case in fold[part] if case in self.present] for part in ("train", "val"))
            shares = ", ".join(f"{label} {self._count(annotated, label, train)}" for label in annotated.labels)
            lost = [label for label in annotated.labels if not self._having(annotated, label, train)]
            unseen = [label for label in annotated.labels if not self._count(annotated, label, validation)]
            detail = f"annotated training cases of {len(train)}: {shares}."
            if lost:
                detail += f" None of them has {some(lost)}, which this fold cannot learn."
            blind = len(unseen) == len(annotated.labels)
            if blind:
                detail += " No validation case is annotated for anything. Draw other folds with nnunet_ext split."
            elif unseen and not lost:
                detail += f" No validation case is annotated for {some(unseen)}."
            yield Finding("problem" if lost or blind else "warning" if unseen else "ok", f"fold {number}", detail)

    def _values(self, label: str) -> set[int]:
        return values_of(self.dataset.description["labels"][label])

    @staticmethod
    def _count(annotated: AnnotatedLabels, label: str, cases: Collection[str]) -> int:
        return sum(annotated.is_annotated(case, label) for case in cases)

    def _having(self, annotated: AnnotatedLabels, label: str, cases: Collection[str]) -> bool:
        """Whether one of the cases is annotated for a label and has it."""
        return any(annotated.is_annotated(case, label) and self._values(label) & self.present[case] for case in cases)


def missing_labels(dataset: RawDataset) -> Iterator[Finding]:
    """For other trainers: a warning if dataset.json says that labels are missing."""
    try:
        annotated = dataset.annotated_labels()
    except UserError as error:
        yield Finding("warning", "lists", str(error))
        return
    lists, default = annotated.lists, annotated.default or ()
    if partial := [case for case in dataset.cases if len(lists.get(case, default)) < len(annotated.labels)]:
        detail = (
            f"{len(partial)} of {len(dataset.cases)} cases were not annotated for every label: {some(partial)}. This "
            "trainer takes what is missing for background. nnUNetTrainerPartialLabels does not."
        )
        yield Finding("warning", "lists", detail)
