"""Tables of where predictions and labels disagree: a row for each region, and one for each case."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from nnunetv2.imageio.natural_image_reader_writer import NaturalImage2DIO

from nnunet_ext.evaluation.disagreement import Disagreement, world_position
from nnunet_ext.preprocessing.raw.raw_dataset import RawDataset


def regions_table(
    source: RawDataset, found: Mapping[str, Disagreement], labels: Mapping[str, int]
) -> tuple[pd.DataFrame, list[tuple[int, int, int]]]:
    """A row for each region, the highest score first; and of each the voxel at its centre, (z, y, x).

    Args:
        source: the dataset whose labels were looked at.
        found: what was found, by case.
        labels: values by name.
    """
    names, reader, rows = {0: "background", **{value: name for name, value in labels.items()}}, None, []
    for case, of_case in found.items():
        if not of_case.regions:
            continue
        reader = reader or source.reader_writer()
        shape = source.read_labels(reader, case)[0].shape
        properties = source.geometry(reader, case, shape)
        for region in of_case.regions:
            (i, j, k), place = world_position(region.centre, shape, properties)
            right, anterior, superior = place or (None, None, None)
            row: dict[str, Any] = {"case": case, "label": names[region.label], "predicted": names[region.predicted]}
            row |= {"score": region.score, "size": region.size, "unit": unit_of_size(reader, shape)}
            row |= {"confidence": region.confidence, "voxels": region.voxels, "i": i, "j": j, "k": k}
            rows.append((row | {"right": right, "anterior": anterior, "superior": superior}, region.centre))
    rows.sort(key=lambda one: -one[0]["score"])
    columns = ["case", "label", "predicted", "score", "size", "unit", "confidence", "voxels", "i", "j", "k"]
    table = pd.DataFrame([row for row, _ in rows], columns=[*columns, "right", "anterior", "superior"])
    table = table.astype(dict.fromkeys(("right", "anterior", "superior"), float))
    table.insert(0, "rank", range(1, len(table) + 1))
    return table, [centre for _, centre in rows]


def unit_of_size(reader: Any, shape: Sequence[int]) -> str:
    """The unit of a region in a volume, a slice or a picture such as PNG, whose pixels have no size."""
    if isinstance(reader, NaturalImage2DIO):
        return "pixels"
    return "mm³" if shape[0] > 1 else "mm²"


def review_table(found: Mapping[str, Disagreement], labels: Mapping[str, int]) -> pd.DataFrame:
    """A row for each case, the largest disagreement first; for arguments see `regions_table`."""
    lower, upper = pd.Series([one.share for one in found.values()]).quantile([0.25, 0.75]).tolist()
    rows = []
    for name, one in found.items():
        apart = [label for label, value in labels.items() if value in one.missed]
        flags = ["disagrees more than others"] * (one.share > upper + 1.5 * (upper - lower))
        flags += [f"no overlap: {', '.join(apart)}"] * bool(apart)
        dice = sum(one.dice.values()) / len(one.dice) if one.dice else float("nan")
        row: dict[str, Any] = {"case": name, "flagged": "; ".join(flags), "disagreement": one.share, "dice": dice}
        rows.append({**row, "regions": one.number})
    table = pd.DataFrame(rows).sort_values("disagreement", ascending=False, kind="stable")
    table.insert(0, "rank", range(1, len(table) + 1))
    return table
