"""What the package is for, at the top of README: what people have annotated, and what a model is to find."""

from __future__ import annotations

import numpy as np

from drawing.layout import Panel, Picture, Pixels, Row
from drawing.scans import LABELS, SHAPE, STROKES, Scan, over, scan, two_dates
from nnunet_ext.demo.phantoms import LESION, LIVER, SPLEEN
from nnunet_ext.preprocessing.simulate.partial_annotation import partial_labels
from nnunet_ext.preprocessing.simulate.scribbles import Strokes, scribble_map

ANNOTATED = (1, 6)
"""Of the nine small cases."""


def mosaic(cases: list[Scan], annotated: tuple[int, ...]) -> Pixels:
    """Nine cases in one panel, each a third as large, some with labels."""
    small = [
        case.shown(labels=case.labels if number in annotated else None)[::3, ::3] for number, case in enumerate(cases)
    ]
    return np.concatenate([np.concatenate(small[first : first + 3], axis=1) for first in (0, 3, 6)])


def overview() -> list[Row]:
    """Few cases, scribbles, some lesions, some labels, a prior scan."""
    rng, many = np.random.default_rng(12), [scan(seed) for seed in range(20, 29)]
    dates, current, prior = two_dates(rng)
    now_labels, prior_labels = (dates.labels(one) * LESION for one in (dates.current, dates.prior))
    z = int((now_labels > 0).sum(axis=(0, 1)).argmax())
    now, before = Scan(current, now_labels, now_labels, z), Scan(prior, prior_labels, prior_labels, z)

    scribbled, lesions, labelled = scan(1), scan(5), scan(9)
    strokes, _ = scribble_map(scribbled.labels, (0, LIVER, SPLEEN, LESION), 4, Strokes(), rng, axis=2)
    in_slice = [int(one) for one in np.unique(lesions.plane(lesions.instances)) if one]
    only_lesions = np.where(lesions.labels == LESION, LESION, 0)
    some = partial_labels(only_lesions, lesions.instances, in_slice[:1])
    spleen = np.where(labelled.labels == SPLEEN, SPLEEN, 0)
    return [
        Row(
            "You have",
            [
                Panel("few cases", mosaic(many, ANNOTATED)),
                Panel("scribbles", over(scribbled.shown(), scribbled.plane(strokes), STROKES, opacity=1)),
                Panel("some lesions", lesions.shown(labels=some)),
                Panel("some labels", labelled.shown(labels=spleen)),
                Panel("a prior scan", before.shown(labels=prior_labels)),
            ],
        ),
        Row(
            "You want",
            [
                Panel("", mosaic(many, tuple(range(9)))),
                Panel("", scribbled.shown(labels=scribbled.labels)),
                Panel("", lesions.shown(labels=only_lesions)),
                *(Panel("", one.shown(labels=one.labels)) for one in (labelled, now)),
            ],
        ),
    ]


PICTURES = [Picture("overview", overview, LABELS, side=2 * SHAPE[0])]
