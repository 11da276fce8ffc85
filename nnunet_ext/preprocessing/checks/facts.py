"""What is seen of a raw dataset, for advice."""

from collections import Counter
from collections.abc import Iterator
from statistics import median

import numpy as np

from nnunet_ext.advice import Facts
from nnunet_ext.errors import UserError
from nnunet_ext.findings import Finding
from nnunet_ext.formats.own_key import KEY
from nnunet_ext.plans.channel_roles import LONGITUDINAL
from nnunet_ext.preprocessing.checks.dataset_check import single_labels
from nnunet_ext.preprocessing.checks.longitudinal import LongitudinalCheck
from nnunet_ext.preprocessing.raw.instances import components, instances_of
from nnunet_ext.preprocessing.raw.patients import PAIRS, patients_of_cases
from nnunet_ext.preprocessing.raw.raw_dataset import Labels, RawDataset
from nnunet_ext.preprocessing.raw.unlabelled import is_unlabelled
from nnunet_ext.preprocessing.simulate.label_noise import RECORD as NOISE
from nnunet_ext.preprocessing.simulate.partial_annotation import RECORD as SOME_INSTANCES

SCRIBBLED = 0.5  # of a case's voxels: below that share they are strokes, above it some are marked as unknown
FULL = 0.95  # of a slice's voxels: from that share on it was labelled in full


class FactsCheck:
    """Takes note of each case; it finds no fault.

    Args:
        dataset: whose cases it is shown.
        missing_instances: whether the user knows that instances are missing in the labels, which no file tells.
        wrong_labels: whether the user knows that some labels are wrong, which no file tells either.
    """

    def __init__(self, dataset: RawDataset, *, missing_instances: bool = False, wrong_labels: bool = False) -> None:
        self.dataset = dataset
        self.placeholders = is_unlabelled(dataset)
        self.missing_instances = missing_instances or (dataset.folder / SOME_INSTANCES).is_file()
        self.wrong_labels = wrong_labels or (dataset.folder / NOISE).is_file()
        self.foreground, refusal = ({}, "") if self.placeholders else single_labels(dataset)
        self.has_regions = bool(refusal)
        self.annotated = dataset.annotated_labels()
        self.kinds: Counter[str] = Counter()
        self.shapes: list[tuple[int, ...]] = []
        self.instances: list[int] = []  # of each label in each case that has it
        described = LONGITUDINAL in dataset.description.get(KEY, {})
        self.pairs = LongitudinalCheck(dataset) if described else None

    def look_at(self, case: str, labels: Labels) -> None:
        self.shapes.append(labels.shape)
        self.kinds[self._kind(case, labels)] += 1
        found = instances_of(case, components(labels, self.foreground.values()), labels)
        self.instances += Counter(instance.label for instance in found).values()
        if self.pairs is not None:
            self.pairs.look_at(case, labels)

    def _kind(self, case: str, labels: Labels) -> str:
        if self.placeholders:
            return "unlabelled"
        try:
            listed = self.annotated.kind(case)
        except UserError:  # in no list, which `nnunet_ext check` tells
            listed = "unlabelled"
        if listed != "dense" or self.dataset.ignore_label is None:
            return listed
        known = labels != self.dataset.ignore_label
        if not known.any():
            return "unlabelled"
        if any(map(_is_by_slices, (np.moveaxis(known, axis, 0) for axis in range(known.ndim)))):
            return "sliced"
        return "scribbled" if known.mean() < SCRIBBLED else "dense"

    def findings(self) -> Iterator[Finding]:
        return iter(())

    def facts(self) -> Facts:
        """What was seen of all cases."""
        patients = patients_of_cases(self.dataset.folder / PAIRS)
        roles = None if self.pairs is None else self.pairs.roles
        return Facts(
            **self.kinds,
            placeholders=self.placeholders,
            patients=len(set(patients.values())) or None,
            shape=tuple(int(median(sides)) for sides in zip(*self.shapes)),
            labels=0 if self.placeholders else len(self.annotated.labels),
            has_regions=self.has_regions,
            instances=median(self.instances or [0]),
            missing_instances=self.missing_instances,
            wrong_labels=self.wrong_labels,
            priors=None if self.pairs is None or roles is None else self.pairs.cases - len(self.pairs.without_prior),
            has_prior_labels=roles is not None and bool(roles.prior_labels),
        )


def _is_by_slices(known: np.ndarray) -> bool:
    """Whether slices along the first axis are annotated in full or not at all, and some of them not."""
    shares = known.reshape(len(known), -1).mean(axis=1)
    some = shares[shares > 0]
    return len(some) < len(shares) and bool((some >= FULL).all())
