"""Data for learning from partially annotated instances."""

from collections import Counter
from collections.abc import Iterator, Sequence

from nnunet_ext.findings import Finding
from nnunet_ext.messages import some, spread
from nnunet_ext.preprocessing.checks.dataset_check import known_folds, single_labels
from nnunet_ext.preprocessing.raw.instances import Instance, components, instances_of
from nnunet_ext.preprocessing.raw.raw_dataset import Labels, RawDataset


class PartialInstancesCheck:
    """Counts the annotated instances, the connected components of each label, and looks for cases without any."""

    def __init__(self, dataset: RawDataset) -> None:
        self.dataset = dataset
        self.cases: list[str] = []
        self.with_ignore = 0
        self.instances: list[Instance] = []
        self.labels, self.refusal = single_labels(dataset)

    def look_at(self, case: str, labels: Labels) -> None:
        self.cases.append(case)
        if self.dataset.ignore_label is not None:
            self.with_ignore += bool((labels == self.dataset.ignore_label).any())
        self.instances += instances_of(case, components(labels, self.labels.values()), labels)

    def findings(self) -> Iterator[Finding]:
        if self.refusal:
            yield Finding("problem", "regions", self.refusal)
            return
        total = len(self.cases)
        if self.dataset.ignore_label is not None:
            detail = (
                f"{self.with_ignore} of {total} cases have voxels of it ({self.dataset.ignore_label}). They leave the "
                "supervised terms, but take pseudo labels."
            )
            yield Finding("ok", "ignore", detail)
        for name, value in self.labels.items():
            if members := [instance for instance in self.instances if instance.label == value]:
                yield Finding("ok", f"instances of {value}", instance_summary(name, members, cases=total))
        if annotated := {instance.case for instance in self.instances}:  # none at all is told already
            yield from self.cases_without_annotation(annotated)
        detail = (
            "instances of one label that touch count as one. Whether a case has un-annotated instances cannot be told "
            "from its files."
        )
        yield Finding("ok", "note", detail)

    def cases_without_annotation(self, annotated: set[str]) -> Iterator[Finding]:
        """Warn of cases without annotation; folds whose training cases are all such are a problem."""
        if empty := [case for case in self.cases if case not in annotated]:
            detail = (
                f"{len(empty)} of {len(self.cases)} cases have no annotated instance: {some(empty)}. All of their "
                "voxels count as background in the supervised terms."
            )
            yield Finding("warning", "annotation", detail)
        else:
            yield Finding("ok", "annotation", "each case has an annotated instance.")
        for number, fold in enumerate(known_folds(self.dataset)):
            if not annotated.intersection(fold["train"]):
                detail = f"fold {number} has no training case with an annotated instance: {some(fold['train'])}."
                yield Finding("problem", "folds", detail)


def instance_summary(name: str, instances: Sequence[Instance], *, cases: int) -> str:
    """How many instances of a label there are, how many a case has and how large they are."""
    per_case = Counter(instance.case for instance in instances).values()
    return (
        f"{name}: {len(instances)} in {len(per_case)} of {cases} cases; {spread(per_case, 'in a case that has any')}; "
        f"{spread([instance.voxels for instance in instances], 'voxels each')}."
    )
