"""Data for learning from a current scan and its prior."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from nnunet_ext.errors import UserError
from nnunet_ext.findings import Finding
from nnunet_ext.formats.dataset_json import channel_names
from nnunet_ext.formats.own_key import KEY
from nnunet_ext.formats.splits import PARTS
from nnunet_ext.messages import some
from nnunet_ext.nnunet_folders import dataset_number
from nnunet_ext.plans.channel_roles import LONGITUDINAL, roles_of_dataset
from nnunet_ext.preprocessing.checks.dataset_check import known_folds, splits_file
from nnunet_ext.preprocessing.raw.patients import PAIRS, patients_of_cases
from nnunet_ext.preprocessing.raw.raw_dataset import Case, Labels, RawDataset, read_images
from nnunet_ext.preprocessing.raw.splits import FOLDS
from nnunet_ext.techniques.dual_encoder import ChannelRoles


class LongitudinalCheck:
    """Looks at the roles of the channels, at the values of the prior's, and at patients in two parts of a fold."""

    def __init__(self, dataset: RawDataset) -> None:
        self.dataset = dataset
        self.reader = dataset.reader_writer()
        self.names = channel_names(dataset.description)
        self.roles: ChannelRoles | None = None
        try:
            self.roles = roles_of_dataset(dataset.description)
        except UserError as error:
            self.refusal = str(error)
        self.cases = 0
        self.without_prior: list[str] = []
        self.not_binary: dict[str, int] = {}
        self.constant: dict[str, int] = {}

    def look_at(self, case: str, labels: Labels) -> None:
        if self.roles is None:
            return
        self.cases += 1
        files = self.dataset.cases[case].images
        if len(files) != len(self.names):
            return  # told already
        try:
            prior, _ = read_images(self.reader, Case(tuple(files[one] for one in self.roles.prior), Path()))
        except UserError:
            return  # told already
        if not prior.any():
            self.without_prior.append(case)
            return
        for channel, values in zip(self.roles.prior, prior):
            if channel in self.roles.prior_labels:
                if not np.isin(values, (0, 1)).all():
                    self.not_binary.setdefault(case, channel)
            elif values.any() and values.min() == values.max():
                self.constant.setdefault(case, channel)

    def findings(self) -> Iterator[Finding]:
        if self.roles is None:
            yield Finding("problem", "roles", self.refusal)
            return
        yield self.told_roles(self.roles)
        yield from self.channels(self.roles)
        number = len(self.without_prior)
        if self.cases and number == self.cases:
            yield Finding("problem", "prior", "no case has one: all prior channels are 0.")
        else:
            detail = f"{number} of {self.cases} cases have none: {some(self.without_prior)}." if number else ""
            yield Finding("ok", "prior", detail or "each case has one.")
        yield from self.patients()

    def told_roles(self, roles: ChannelRoles) -> Finding:
        """Which channel is what, and whether dataset.json says so."""
        parts = {"current": roles.current, "prior image": roles.prior_image, "prior labels": roles.prior_labels}
        told = "; ".join(f"{part} {', '.join(map(str, channels))}" for part, channels in parts.items() if channels)
        if LONGITUDINAL in self.dataset.description.get(KEY, {}):
            return Finding("ok", "roles", f"{told}.")
        unsaid = f'dataset.json does not say which channels are the prior\'s ("{KEY}": "{LONGITUDINAL}")'
        return Finding("warning", "roles", f"{unsaid}; taken: {told}.")

    def channels(self, roles: ChannelRoles) -> Iterator[Finding]:
        """Whether channels of labels hold 0 and 1 and stay so, and images are no single value."""
        wrong = [channel for channel in roles.prior_labels if self.names[channel].casefold() != "nonorm"]
        if wrong:
            detail = (
                f"channel {', '.join(map(str, wrong))} of dataset.json must have the name noNorm: nnU-Net would "
                "normalise the labels as if they were intensities."
            )
            yield Finding("problem", "prior labels", detail)
        elif self.not_binary:
            fix = "has other values than 0 and 1. Each label of the prior needs a channel of its own."
            yield Finding("problem", "prior labels", f"{self._first(self.not_binary)} {fix}")
        elif roles.prior_labels:
            yield Finding("ok", "prior labels", "channels hold 0 and 1 only.")
        if self.constant:
            detail = f"{self._first(self.constant)} has one value everywhere, which is not 0. A missing prior is 0."
            yield Finding("warning", "prior image", detail)

    def patients(self) -> Iterator[Finding]:
        """Whether a fold has a patient in both of its parts."""
        title, folds = "patients", known_folds(self.dataset)
        patients = patients_of_cases(self.dataset.folder / PAIRS)
        draw = self._cross_validation(len(set(patients.values())))
        if not patients:
            detail = f"which cases are of one patient is not known: there is no {PAIRS} of `nnunet_ext pair`."
            yield Finding("ok", title, detail)
        elif folds:
            in_parts = [
                [{patients[case] for case in fold[part] if case in patients} for part in PARTS] for fold in folds
            ]
            both = {number: sorted(train & val) for number, (train, val) in enumerate(in_parts) if train & val}
            for number, shared in both.items():
                where = f"fold {number} of {splits_file(self.dataset)}"
                fix = f"{draw} --force" if draw else ""
                yield Finding("problem", title, f"{where} has patients in both parts: {some(shared)}.", fix)
            if not both:
                yield Finding("ok", title, "none is in both parts of a fold.")
        elif splits_file(self.dataset) is None and len(set(patients.values())) < len(patients):
            detail = "there are no folds yet, and nnU-Net's own would take each case for a patient."
            yield Finding("warning", title, detail, draw)

    def _cross_validation(self, patients: int) -> str:
        """The command that draws folds of whole patients; empty if there are too few."""
        if patients < 2:
            return ""
        fewer = f" --folds {patients}" if patients < FOLDS else ""
        return f"nnunet_ext split -d {dataset_number(self.dataset.folder.name)} --cross-validation{fewer}"

    def _first(self, wrong: Mapping[str, int]) -> str:
        case, channel = next(iter(wrong.items()))
        return f"channel {channel} of {len(wrong)} of {self.cases} cases ({some(wrong)}; first in {case})"
