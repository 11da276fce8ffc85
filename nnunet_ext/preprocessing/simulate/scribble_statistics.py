"""How much scribbles annotate, and how far they agree with dense masks."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isnan, nan
from statistics import median

import numpy as np

from nnunet_ext.preprocessing.raw.raw_dataset import Labels, RawDataset
from nnunet_ext.preprocessing.simulate.scribbles import VoxelCounts, voxels_of


@dataclass(frozen=True)
class Counts:
    """A class in a case, or all of them."""

    voxels: int  # of the dense mask
    scribbled: int  # voxels that scribbles give this class
    right: int  # those of them that the dense mask gives it, too
    slices: int  # that have the class in the dense mask
    annotated: int  # those of them with a scribble of the class


@dataclass(frozen=True)
class CaseCounts:
    """The scribbles of a case."""

    classes: Mapping[str, Counts]  # by name
    whole: Counts  # all classes together


def count_scribbles(scribbles: Labels, dense: Labels, values: Mapping[str, int], *, axis: int) -> CaseCounts:
    """Count what a case's scribbles, (Z, Y, X), annotate, in slices across an axis, among voxels of the classes."""
    numbers, ours = list(values.values()), np.moveaxis(dense, axis, 0)
    theirs = np.moveaxis(scribbles, axis, 0)
    there = voxels_of(ours, numbers)
    drawn = voxels_of((two[np.isin(one, numbers)] for one, two in zip(ours, theirs)), numbers)
    right = voxels_of((one[one == two] for one, two in zip(ours, theirs)), numbers)

    def count(there: VoxelCounts, drawn: VoxelCounts, right: VoxelCounts) -> Counts:
        slices = there > 0
        annotated = slices & (drawn > 0)
        return Counts(*(int(part.sum()) for part in (there, drawn, right, slices, annotated)))

    classes = {name: count(*of_class) for name, *of_class in zip(values, there.T, drawn.T, right.T)}
    return CaseCounts(classes, count(*(part.sum(axis=1) for part in (there, drawn, right))))


def class_values(dataset: RawDataset) -> dict[str, int]:
    """Values of all labels by name, background first; a UserError if the dataset has regions."""
    return {"background": 0, **dataset.foreground_values()}


def scribble_table(cases: Sequence[CaseCounts]) -> list[list[str]]:
    """Rows of cells: for each class, and for all, what is scribbled, its share of the class, and its agreement."""
    rows = [["label", "cases", "slices", "of", "voxels", "share: median", "lowest", "highest", "agreement", "lowest"]]
    columns = [(name, [case.classes[name] for case in cases]) for name in cases[0].classes]
    for name, counts in [*columns, ("all", [case.whole for case in cases])]:
        shares = [one.scribbled / one.voxels for one in counts if one.voxels]
        drawn = [one for one in counts if one.scribbled]
        annotated, slices, total, right = (
            sum(getattr(one, part) for one in counts) for part in ("annotated", "slices", "scribbled", "right")
        )
        figures = [median(shares), min(shares), max(shares)] if shares else [nan] * 3
        figures += [right / total, min(one.right / one.scribbled for one in drawn)] if drawn else [nan] * 2
        percents = ["–" if isnan(figure) else f"{100 * figure:.2f} %" for figure in figures]
        rows.append([name, *map(str, (len(shares), annotated, slices, total)), *percents])
    return rows
