"""Datasets whose labels are wrong in places, simulated from datasets whose labels are right."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from nnunet_ext.errors import UserError
from nnunet_ext.preprocessing.raw.new_dataset import WEAK
from nnunet_ext.preprocessing.raw.raw_dataset import Labels, RawDataset
from nnunet_ext.preprocessing.simulate.weaker_dataset import weaker_dataset

RECORD = "noise.json"
ROUNDING = 1 + 1e-6  # of spacings, which some formats keep as 32-bit floats

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class NoisyLabels:
    """What was changed: by label the cases that have it, those in which it is wrong, and its voxels; of the last,
    ``all`` is the foreground as a whole."""

    present: Mapping[str, int]
    wrong: Mapping[str, int]
    voxels: Mapping[str, tuple[int, int]]  # changed, and in the dense labels or the new ones
    flat: bool  # whether the images are two-dimensional


def dilated(mask: Mask, spacing: Sequence[float], size: float, rng: np.random.Generator) -> Mask:
    """The voxels at most `size` mm from those of a mask, from centre to centre."""
    return ndimage.distance_transform_edt(~mask, sampling=spacing) <= size


def eroded(mask: Mask, spacing: Sequence[float], size: float, rng: np.random.Generator) -> Mask:
    """The voxels of a mask that are more than `size` mm from every other one; the border of the image is none."""
    return ndimage.distance_transform_edt(mask, sampling=spacing) > size if not mask.all() else mask


def shifted(mask: Mask, spacing: Sequence[float], size: float, rng: np.random.Generator) -> Mask:
    """A mask moved by `size` mm in a random direction, rounded to whole voxels; what leaves the image is lost.

    It moves along axes of more than one voxel whose spacing is at most `size`, so that it always moves.
    """
    can_move = np.array([length > 1 and step <= size for length, step in zip(mask.shape, spacing)])
    if not can_move.any():  # the image is a point
        return mask
    direction = rng.standard_normal(mask.ndim) * can_move
    steps = np.rint(direction / np.linalg.norm(direction) * size / np.asarray(spacing))
    return ndimage.shift(mask.astype(np.uint8), steps, order=0, cval=0).astype(bool)


BOUNDARY: Mapping[str, Callable[[Mask, Sequence[float], float, np.random.Generator], Mask]] = {
    "dilation": dilated,
    "erosion": eroded,
    "shift": shifted,
}
SWAP = "swap"
KINDS = (*BOUNDARY, SWAP)


def noisy_labels(
    labels: Labels,
    spacing: Sequence[float],
    wrong: Mapping[int, str],
    rng: np.random.Generator,
    *,
    size: float,
    values: Sequence[int],
    ignore: int | None,
) -> Labels:
    """A label map with errors. Each is made from the right labels; where two meet, that of the later label stays.

    What a label gains it takes from its neighbours. What it leaves becomes the nearest other label, background
    included: the boundary between the two moves. Voxels of the ignore label stay.

    Args:
        labels: (Z, Y, X).
        spacing: of the axes, in mm.
        wrong: the kind of error by label, some of `KINDS`.
        rng: draws directions and the labels that are put in the place of others.
        size: in mm, of errors of the boundary.
        values: of the foreground labels.
        ignore: the ignore label, if any.
    """
    noisy, is_open = labels.copy(), labels != (-1 if ignore is None else ignore)
    for value, kind in wrong.items():
        mask = labels == value
        if kind == SWAP:
            noisy[mask] = rng.choice([other for other in values if other != value])
            continue
        new = BOUNDARY[kind](mask, spacing, size, rng)
        left, others = mask & ~new, is_open & ~mask
        if left.any() and others.any():
            nearest = ndimage.distance_transform_edt(
                ~others, sampling=spacing, return_distances=False, return_indices=True
            )
            noisy[left] = labels[tuple(axis[left] for axis in nearest)]
        noisy[new & others] = value
    return noisy


def simulate_label_noise(
    source: RawDataset, name: str, *, kinds: Sequence[str], rate: float, size: float, seed: int, force: bool
) -> NoisyLabels:
    """Write a raw dataset of the same images in which some labels of some cases are wrong.

    Beside the labels there are the right ones, the folds of the source, and a JSON file of what was changed. The draws
    of a case depend on its name and the seed, not on the other cases.

    Args:
        source: the dataset with dense labels.
        name: of the new dataset; for this and `force` see `weaker_dataset`.
        kinds: some of `KINDS`, one of which is drawn for each label that becomes wrong.
        rate: the probability that a label of a case becomes wrong.
        size: in mm, of errors of the boundary.
        seed: of the draws.

    Raises:
        UserError: if a label has no other to be swapped with, or `size` is below the distance of two voxels in a case.
    """
    values = source.foreground_values()
    if SWAP in kinds and len(values) < 2:
        raise UserError(
            f"{source.folder.name} has {len(values)} label beside background: there is none to swap with. "
            "Leave swap out of --kinds."
        )
    present, wrong, record = dict.fromkeys(values, 0), dict.fromkeys(values, 0), {}
    counts = {label: np.zeros(2, dtype=np.int64) for label in (*values, "all")}
    reach = size * ROUNDING
    with weaker_dataset(source, name, force=force) as new:
        for case, labels, properties in new.dense_labels("Making labels wrong"):
            spacing = [float(step) for step in properties["spacing"]]
            finest = min((step for step, length in zip(spacing, labels.shape) if length > 1), default=reach)
            if reach < finest and set(kinds) - {SWAP}:
                raise UserError(
                    f"The voxels of {source.cases[case].label} are {finest:g} mm apart, so that errors of {size:g} mm "
                    "would change nothing. Take a larger size."
                )
            rng = np.random.default_rng([seed, *case.encode()])
            drawn = {label: str(rng.choice(kinds)) for label in values if rng.random() < rate}
            there = {label for label, value in values.items() if (labels == value).any()}
            of_case = {label: kind for label, kind in drawn.items() if label in there}
            noisy = noisy_labels(
                labels,
                spacing,
                {values[label]: kind for label, kind in of_case.items()},
                rng,
                size=reach,
                values=list(values.values()),
                ignore=source.ignore_label,
            )
            changed = changed_voxels(labels, noisy, values)
            for label, number in changed.items():
                counts[label] += number
            for label in there:
                present[label] += 1
                wrong[label] += label in of_case
            record[case] = {"wrong": of_case, "changed_voxels": {label: int(one[0]) for label, one in changed.items()}}
            record[case]["changed_share"] = changed["all"][0] / max(1, changed["all"][1])
            new.write(WEAK, case, noisy, properties)
        shares = {label: float(one[0] / max(1, one[1])) for label, one in counts.items()}
        about: dict[str, Any] = {"made_by": "simulate noise", "kinds": list(kinds), "rate": rate, "size": size}
        about |= {"seed": seed, "changed_share": shares}
        new.finish(about, record=RECORD, cases=record, labels=source.description["labels"])
    return NoisyLabels(present, wrong, {label: (int(one[0]), int(one[1])) for label, one in counts.items()}, new.flat)


def changed_voxels(before: Labels, after: Labels, values: Mapping[str, int]) -> dict[str, tuple[int, int]]:
    """By label, and for ``all``, the voxels that differ and those that have the label before or after.

    Their ratio is 1 minus the intersection over union; ``all`` counts voxels whose label changed among the foreground.
    """
    found = {}
    for label, value in values.items():
        one, other = before == value, after == value
        found[label] = int((one != other).sum()), int((one | other).sum())
    is_foreground = np.isin(before, list(values.values())) | np.isin(after, list(values.values()))
    return {**found, "all": (int((before != after).sum()), int(is_foreground.sum()))}
