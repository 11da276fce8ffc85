"""Two datasets that differ by a domain shift, written as nnU-Net raw datasets: a source, and a target to adapt to.

``hippocampus``: MRI of the hippocampus, and other cases of it whose images are changed by `shifted`. ``acdc``: cine MRI
of the heart at the end of diastole, and of other patients at the end of systole. Source and target share no training
case; both are tested on the same cases (patients), which neither trains on. ``acdc_contrast``: the heart at the end of
diastole in both, in other patients and with images changed by `recontrasted`.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk
from scipy.ndimage import gaussian_filter1d

from benchmarks.data import hippocampus
from benchmarks.data.folds import drawn
from benchmarks.data.raw import ENDING, original
from benchmarks.engine.experiment import Draw, Fold
from nnunet_ext.errors import UserError
from nnunet_ext.files import read_json, write_json

SEED = 0
PERCENTILES = (0.5, 99.5)
COARSENING = 2
NOISE = 0.05
PILOT_SHOTS = 5
ONLINE_VALIDATION = 2
DESCRIPTIONS = {
    "hippocampus": f"contrast inverted between the percentiles {PERCENTILES[0]} and {PERCENTILES[1]} of the image, "
    f"slices {COARSENING} times thicker and interpolated back to their own grid, Gaussian noise with a standard "
    f"deviation of {NOISE:.0%} of the range between the percentiles",
    "acdc_contrast": f"contrast inverted between the percentiles {PERCENTILES[0]} and {PERCENTILES[1]} of the image, "
    f"and Gaussian noise with a standard deviation of {NOISE:.0%} of the range between the percentiles",
    "acdc": "the end of systole instead of the end of diastole, with the dense masks of both; images are unchanged",
}


Files = tuple[Path, Path]
"""Where a case is: its image and its label map."""

Change = Callable[[npt.NDArray[np.floating[Any]], np.random.Generator], npt.NDArray[np.float32]]
"""Takes an image and random numbers, and returns the changed image."""


@dataclass(frozen=True)
class Shift:
    """A pair of datasets."""

    name: str  # a key of `DESCRIPTIONS`
    origin: str  # the dataset in nnUNet_raw that both are made from
    # cases (patients) of each part: ``source_train``, ``source_val``, ``pool`` (the target's training cases are drawn
    # from it), ``pilot`` (training cases of the choice of learning rates), ``validation``, ``test``
    sizes: Mapping[str, int]
    change: Change | None = None  # simulates the target's images; None where they are other images

    def files(self) -> tuple[dict[str, Files], dict[str, Files]]:
        """The cases for the source and for the target, by name."""
        folder = original(self.origin)
        if self.origin == hippocampus.ORIGIN:
            cases = files_of(folder, {person: sides[0] for person, sides in hippocampus.persons().items()}, "labelsTr")
            return cases, cases
        pairs = read_json(folder / "two_phase_pairs.json")
        prior, current = ({pair["patient"]: pair[phase] for pair in pairs} for phase in ("prior", "current"))
        source = files_of(folder, prior, "labelsTr_dense")
        return source, source if self.change else files_of(folder, current, "labelsTr_dense")

    def parts(self) -> dict[str, list[str]]:
        """The names of the cases in each part."""
        return drawn_parts(list(self.files()[0]), self.sizes)

    def source_folds(self, sizes: Sequence[int | None], seeds: Sequence[int]) -> list[Fold]:
        """The one fold of the source."""
        parts = self.parts()
        return [{"train": sorted(parts["source_train"]), "val": sorted(parts["source_val"])}]

    def target_folds(self, sizes: Sequence[int | None], seeds: Sequence[int]) -> list[Fold]:
        """The folds of the target: the pilot's, then one for each number of shots and seed.

        The pilot is validated on all validation cases. The others have two of them, because nnU-Net's training wants
        some; nothing is chosen by what it computes on them. For a seed, fewer shots are the first of more shots.
        """
        parts = self.parts()
        folds = [{"train": sorted(parts["pilot"][:PILOT_SHOTS]), "val": sorted(parts["validation"])}]
        for shots, seed in product(sizes, seeds):
            training = drawn(parts["pool"], seed)[:shots]
            folds.append({"train": sorted(training), "val": sorted(parts["validation"][:ONLINE_VALIDATION])})
        return folds


def inverted(image: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.float64]:
    """Dark where it was bright and bright where it was dark, between robust limits that stay as they were."""
    low, high = np.percentile(image, PERCENTILES)
    return low + high - np.clip(image, low, high)


def coarsened(image: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.float64]:
    """What thicker slices would show, on the image's own grid: smoothed, thinned out, interpolated."""
    # a Gaussian with about the width of the thicker slice at half of its height
    smooth = gaussian_filter1d(np.asarray(image, dtype=np.float64), sigma=COARSENING / 2.355, axis=0, mode="nearest")
    kept = np.arange(0, len(image), COARSENING)
    position = np.clip(np.arange(len(image)) / COARSENING, 0, len(kept) - 1)
    below = np.floor(position).astype(int)
    above = np.minimum(below + 1, len(kept) - 1)
    weight = (position - below)[:, None, None]
    return (1 - weight) * smooth[kept[below]] + weight * smooth[kept[above]]


def shifted(image: npt.NDArray[np.floating[Any]], rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """An image as another scanner could have made it: `inverted`, then `coarsened`, then with noise.

    Every amount follows from the image's own range, so that it is the same for images of whatever scale.
    """
    low, high = np.percentile(image, PERCENTILES)
    noise = rng.normal(0.0, NOISE, size=image.shape) * (high - low)
    return (coarsened(inverted(image)) + noise).astype(np.float32)


def recontrasted(image: npt.NDArray[np.floating[Any]], rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """The same without the thicker slices, for images whose slices are thick already."""
    low, high = np.percentile(image, PERCENTILES)
    return (inverted(image) + rng.normal(0.0, NOISE, size=image.shape) * (high - low)).astype(np.float32)


def case_generator(case: str) -> np.random.Generator:
    """Random numbers that depend on the case's name alone."""
    return np.random.default_rng([SEED, *case.encode()])


def write_changed(source: Path, target: Path, case: str, change: Change) -> None:
    """Write the changed image of a case, with the geometry of the original."""
    original = sitk.ReadImage(str(source))
    image = sitk.GetImageFromArray(change(sitk.GetArrayFromImage(original).astype(np.float64), case_generator(case)))
    image.CopyInformation(original)
    sitk.WriteImage(image, str(target))


def drawn_parts(names: Sequence[str], sizes: Mapping[str, int]) -> dict[str, list[str]]:
    """Disjoint parts of a seeded permutation; a UserError if there are too few."""
    if len(set(names)) < sum(sizes.values()):
        raise UserError(f"{sum(sizes.values())} cases are needed, {len(set(names))} are there.")
    order, parts = drawn(names, SEED), {}
    for part, size in sizes.items():
        parts[part], order = order[:size], order[size:]
    return parts


def files_of(folder: Path, cases: Mapping[str, str], labels: str) -> dict[str, Files]:
    """The files of some cases, by another name for each."""
    return {
        name: (folder / "imagesTr" / f"{case}_0000{ENDING}", folder / labels / f"{case}{ENDING}")
        for name, case in cases.items()
    }


def write_side(folder: Path, draw: Draw, *, shift: Shift, is_target: bool) -> None:
    """Write the source or the target of a shift, a raw dataset with imagesTr and imagesTs."""
    files, parts = shift.files()[is_target], shift.parts()
    training = ("pool", "pilot", "validation") if is_target else ("source_train", "source_val")
    for part, names in (("Tr", training), ("Ts", ("test",))):
        images, labels = folder / f"images{part}", folder / f"labels{part}"
        images.mkdir(parents=True)
        labels.mkdir()
        for case in [case for name in names for case in sorted(parts[name])]:
            image, label = files[case]
            if is_target and shift.change:
                write_changed(image, images / f"{case}_0000{ENDING}", case, shift.change)
            else:
                shutil.copyfile(image, images / f"{case}_0000{ENDING}")
            shutil.copyfile(label, labels / f"{case}{ENDING}")
    description = read_json(original(shift.origin) / "dataset.json")
    labels_of = {name: value for name, value in description["labels"].items() if name != "ignore"}
    content = {"channel_names": description["channel_names"], "labels": labels_of, "file_ending": ENDING}
    content |= {"numTraining": sum(shift.sizes[name] for name in training), "name": folder.name.split("_")[1]}
    write_json(folder / "dataset.json", content)


ACDC = "Dataset027_ACDCScribble"
HIPPOCAMPUS = Shift(
    "hippocampus",
    hippocampus.ORIGIN,
    {"source_train": 70, "source_val": 6, "pool": 20, "pilot": 10, "validation": 8, "test": 30},
    shifted,
)
HEART = Shift(
    "acdc",
    ACDC,
    {"source_train": 30, "source_val": 4, "pool": 12, "pilot": 8, "validation": 6, "test": 20},
)
HEART_CONTRAST = Shift(
    "acdc_contrast",
    HEART.origin,
    {"source_train": 30, "source_val": 2, "pool": 17, "pilot": 5, "validation": 6, "test": 20},
    recontrasted,
)
