"""Real scribbles beside simulated ones of the same cases: ``python -m benchmarks.scribble_statistics 27``.

Counts what the scribbles of a raw dataset annotate, and what ``nnunet_ext simulate scribbles`` would draw by its
defaults from the dense masks that lie beside them in labelsTr_dense. Writes nothing.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import numpy as np
from tqdm import tqdm

from nnunet_ext.cli import FINE, WRONG_USAGE
from nnunet_ext.errors import UserError
from nnunet_ext.evaluation.text_table import aligned
from nnunet_ext.preprocessing.raw.raw_dataset import RawDataset, read_label_map, read_raw_dataset
from nnunet_ext.preprocessing.simulate.scribble_statistics import (
    CaseCounts,
    class_values,
    count_scribbles,
    scribble_statistics,
    scribble_table,
)
from nnunet_ext.preprocessing.simulate.scribbles import Strokes, scribble_map, slicing_axis
from nnunet_ext.preprocessing.simulate.weaker_dataset import DENSE


def simulated_statistics(dataset: RawDataset, *, seed: int) -> dict[str, CaseCounts]:
    """What simulated scribbles would annotate, by case.

    Args:
        dataset: with dense masks in labelsTr_dense.
        seed: of the strokes.
    """
    values, reader = class_values(dataset), dataset.reader_writer()
    unused = max(values.values()) + 1
    counts = {}
    for case in tqdm(dataset.cases, desc="Drawing scribbles", unit="case", disable=None):
        dense, properties = read_label_map(reader, dataset.folder / DENSE / f"{case}{dataset.ending}")
        axis = slicing_axis(dense.shape, properties["spacing"])
        rng = np.random.default_rng([seed, *case.encode()])
        scribbles, _ = scribble_map(dense, list(values.values()), unused, Strokes(), rng, axis=axis)
        counts[case] = count_scribbles(scribbles, dense, values, axis=axis)
    return counts


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("dataset", help="id or name of a raw dataset with scribbles and dense masks")
    parser.add_argument("--seed", type=int, default=0, help="of the simulated strokes (default: %(default)s)")
    options = parser.parse_args(arguments)
    try:
        dataset = read_raw_dataset(options.dataset)
        real = scribble_statistics(dataset)
        simulated = simulated_statistics(dataset, seed=options.seed)
    except UserError as error:
        print(error, file=sys.stderr)
        return WRONG_USAGE
    for name, counts in (("Real", real), ("Simulated", simulated)):
        print(f"{name}:\n{aligned(scribble_table(list(counts.values())))}\n")
    return FINE


if __name__ == "__main__":
    sys.exit(main())
