"""Data for learning from scribbles: labels where somebody annotated, the ignore label elsewhere."""

from collections.abc import Iterator, Sized
from math import floor
from pathlib import Path

import numpy as np

from nnunet_ext.errors import UserError
from nnunet_ext.findings import Finding
from nnunet_ext.messages import SHOWN, some, spread
from nnunet_ext.preprocessing.checks.dataset_check import known_folds, single_labels
from nnunet_ext.preprocessing.raw.new_dataset import DENSE
from nnunet_ext.preprocessing.raw.raw_dataset import Labels, RawDataset, read_label_map

LARGEST_DISAGREEMENT = 0.01  # share of a case's annotated voxels that may differ from its dense labels


class ScribbleCheck:
    """Looks for labels, cases and folds without a scribble, and compares with dense labels if there are any."""

    def __init__(self, dataset: RawDataset) -> None:
        self.dataset = dataset
        self.ignore = dataset.ignore_label
        self.reader = dataset.reader_writer()
        self.cases: dict[str, dict[int, int]] = {}  # annotated voxels by label, without ignore
        self.sizes: dict[str, int] = {}  # numbers of all voxels
        self.dense: dict[str, tuple[int, int]] = {}  # voxels that disagree with the dense labels, and all compared
        self.not_compared: dict[str, str] = {}
        self.missed: dict[int, list[str]] = {}  # cases whose dense labels have a label that no scribble has
        foreground, self.refusal = single_labels(dataset)
        self.labels = {"background": 0, **foreground}

    def look_at(self, case: str, labels: Labels) -> None:
        if self.refusal or self.ignore is None:
            return
        values, counts = np.unique(labels, return_counts=True)
        self.cases[case], self.sizes[case] = dict(zip(values.tolist(), counts.tolist())), labels.size
        self.cases[case].pop(self.ignore, None)
        if (folder := self.dataset.folder / DENSE).is_dir():  # it is for evaluation only, and may be missing
            self._compare(case, labels, folder)

    def _compare(self, case: str, labels: Labels, folder: Path) -> None:
        """Take note of a case's agreement with its dense labels."""
        try:
            dense, _ = read_label_map(self.reader, folder / self.dataset.cases[case].label.name)
        except UserError as error:
            self.not_compared[case] = str(error)
            return
        if dense.shape != labels.shape:
            self.not_compared[case] = f"scribbles {labels.shape}, dense labels {dense.shape} voxels"
            return
        compared = (labels != self.ignore) & (dense != self.ignore)
        self.dense[case] = int((compared & (labels != dense)).sum()), int(compared.sum())
        for value in set(np.unique(dense).tolist()) - set(self.cases[case]) - {self.ignore}:
            self.missed.setdefault(value, []).append(case)

    def findings(self) -> Iterator[Finding]:
        if self.refusal:
            reason = (
                "A scribble says that a voxel has one label and no other, and the losses are of a softmax over such "
                "labels. Regions that overlap need a dataset each."
            )
            yield Finding("problem", "regions", f"{self.refusal} {reason}")
        elif self.ignore is None:
            value = max(self.labels.values()) + 1
            detail = (
                "dataset.json has no ignore label: every voxel that nobody annotated would be taken for background. "
                f'Add "ignore": {value} to its labels, and write {value} into the label files wherever nobody '
                "annotated. If one of its labels means that already, name it ignore."
            )
            yield Finding("problem", "ignore", detail)
        else:
            yield from self.annotation(self.ignore)

    def annotation(self, ignore: int) -> Iterator[Finding]:
        """What is annotated in a dataset that has an ignore label."""
        if not self.cases:
            return  # no case can be read, which is told already
        if not any(self.cases.values()):
            detail = f"no case has a scribble: all voxels of all {len(self.cases)} cases are ignore ({ignore})."
            yield Finding("problem", "scribbles", detail)
            return
        yield self.told_ignore(ignore)
        if empty := [case for case, voxels in self.cases.items() if not voxels]:
            fix = "Annotate them, or leave them out of training."
            yield Finding("warning", "scribbles", f"{self._share(empty)} cases have none: {some(empty)}. {fix}")
        else:
            yield Finding("ok", "scribbles", f"each of {len(self.cases)} cases has some.")
        shares = [100 * sum(voxels.values()) / self.sizes[case] for case, voxels in self.cases.items()]
        yield Finding("ok", "annotated", f"{spread(shares, '% of the voxels of a case', digits=3)}.")
        yield from (
            self.told_label(name, value) if value else self.told_background() for name, value in self.labels.items()
        )
        yield from self.folds()
        yield from self.agreement()

    def told_ignore(self, ignore: int) -> Finding:
        """How many cases leave voxels to it."""
        full = [case for case, voxels in self.cases.items() if sum(voxels.values()) == self.sizes[case]]
        if not full:
            return Finding("ok", "ignore", f"each case has voxels of it ({ignore}).")
        which = f"{self._share(full)} cases have no voxel of it ({ignore}) ({some(full)})"
        if len(full) == len(self.cases):
            which = f"no case has voxels of it ({ignore})"
        detail = (
            f"{which}: all of their voxels count as annotated. If only strokes were drawn, write {ignore} wherever "
            "nobody annotated. If they are annotated everywhere, dense labels are what stock nnU-Net is made for."
        )
        return Finding("warning", "ignore", detail)

    def told_background(self) -> Finding:
        """Whether background is annotated, which every case can be expected to have."""
        without = self._without(0)
        if not without:
            return Finding("ok", "background", self._described(0))
        fix = "Draw strokes outside of all structures, where the program needs it with a label of their own, and save "
        fix += "them as 0."
        if len(without) == len(self.cases):
            detail = f"no case has a scribble of it (0): nothing would be learned of what is no structure. {fix}"
            return Finding("problem", "background", detail)
        detail = f"{self._share(without)} cases have no scribble of it (0): {some(without)}. {fix}"
        return Finding("warning", "background", detail)

    def told_label(self, name: str, value: int) -> Finding:
        """In how many cases a label is annotated; whether the others have it is known from dense labels only."""
        title, without = f"annotation of {value}", self._without(value)
        if len(without) == len(self.cases):
            detail = f"{name}: no case has a scribble of it, so that it cannot be learned. Draw some, or remove it."
            return Finding("problem", title, detail)
        detail = f"{name}: {self._described(value)}"
        if without:
            detail += f" None in {some(without)}."
        if missed := self.missed.get(value):
            return Finding("warning", title, f"{detail} {DENSE} has it in {len(missed)} of these: {some(missed)}.")
        return Finding("ok", title, detail)

    def _without(self, value: int) -> list[str]:
        return [case for case, voxels in self.cases.items() if value not in voxels]

    def _described(self, value: int) -> str:
        numbers = [voxels[value] for voxels in self.cases.values() if value in voxels]
        return f"in {self._share(numbers)} cases; {spread(numbers, 'voxels in a case that has any')}."

    def _share(self, part: Sized) -> str:
        return f"{len(part)} of {len(self.cases)}"

    def folds(self) -> Iterator[Finding]:
        """Folds whose training cases have no scribble of a label that other cases have."""
        present = {value for voxels in self.cases.values() for value in voxels}
        for number, fold in enumerate(known_folds(self.dataset)):
            trained = {value for case in fold["train"] for value in self.cases.get(case, ())}
            if lost := [f"{name} ({value})" for name, value in self.labels.items() if value in present - trained]:
                detail = (
                    f"fold {number} has no training case with a scribble of {', '.join(lost)}: {some(fold['train'])}. "
                    "Draw some, or move a case that has them into its training cases."
                )
                yield Finding("problem", "folds", detail)

    def agreement(self) -> Iterator[Finding]:
        """Whether scribbles say what dense labels say, if there are any."""
        if self.not_compared:
            first, reason = next(iter(self.not_compared.items()))
            which = (
                f"{self._share(self.not_compared)} cases cannot be compared with {DENSE} ({some(self.not_compared)})"
            )
            yield Finding("warning", "dense labels", f"{which}. {first}: {reason.rstrip('.')}.")
        compared = sum(number for _, number in self.dense.values())
        if not compared:
            return
        agreeing = 1 - sum(different for different, _ in self.dense.values()) / compared
        detail = f"{percent(agreeing)} of the annotated voxels have the label of {DENSE}"
        shares = {case: different / number for case, (different, number) in self.dense.items() if number}
        wrong = sorted((case for case, share in shares.items() if share > LARGEST_DISAGREEMENT), key=shares.__getitem__)
        if not wrong:
            yield Finding("ok", "agreement", f"{detail}.")
            return
        worst = wrong[::-1]
        named = [f"{case} ({percent(shares[case])} differ)" for case in worst[:SHOWN]] + worst[SHOWN:]
        detail += (
            f"; more than {percent(LARGEST_DISAGREEMENT)} differ in {len(wrong)} of {len(shares)} cases: "
            f"{some(named)}. Were they drawn on another case, or are labels numbered or images oriented otherwise?"
        )
        yield Finding("warning", "agreement", detail)


class IgnoreLabelCheck(ScribbleCheck):
    """The same for a trainer that needs no scribbles: silent unless there is an ignore label, and with regions."""

    def findings(self) -> Iterator[Finding]:
        if not self.refusal and self.ignore is not None:
            yield from self.annotation(self.ignore)


def percent(share: float) -> str:
    """A share cut to two digits, so that only all are 100 %."""
    return f"{floor(round(10000 * share, 6)) / 100:g} %"
