"""Before and after, for each simulator of ``nnunet_ext simulate`` and for ``nnunet_ext pair``."""

from __future__ import annotations

import numpy as np
import SimpleITK as sitk

from drawing.layout import Panel, Picture, Pixels, Row
from drawing.scans import (
    BACKGROUND_STROKE,
    COLOURS,
    LABELS,
    NAMES,
    SHAPE,
    SPACING,
    STROKES,
    Scan,
    over,
    scan,
    two_dates,
)
from nnunet_ext.commands.simulate import NOISE
from nnunet_ext.demo.phantoms import LESION, LIVER, SPLEEN
from nnunet_ext.preprocessing.pairs.image_registration import register_images
from nnunet_ext.preprocessing.pairs.images import moved_image, moved_labels
from nnunet_ext.preprocessing.raw.instances import instances_of
from nnunet_ext.preprocessing.simulate.label_noise import noisy_labels
from nnunet_ext.preprocessing.simulate.missing_labels import lists_by_case, sources_of
from nnunet_ext.preprocessing.simulate.partial_annotation import kept_instances, partial_labels
from nnunet_ext.preprocessing.simulate.scribbles import Strokes, scribble_map

VALUES = (LIVER, SPLEEN, LESION)
INSTANCES_SEED = 8
"""One whose slice shows five lesions."""


def before(case: Scan) -> Row:
    """A scan and its dense labels."""
    return Row("Before", [Panel("scan", case.shown()), Panel("dense labels", case.shown(labels=case.labels))])


def scribbles() -> list[Row]:
    """Strokes by default, and with other settings."""
    case, panels = scan(5), []
    for title, strokes in (
        ("default", Strokes()),
        ("--boundary 0", Strokes(boundary=0)),
        ("--thickness 2", Strokes(thickness=2)),
    ):
        drawn, _ = scribble_map(case.labels, (0, *VALUES), 4, strokes, np.random.default_rng(0), axis=2)
        panels.append(Panel(title, over(case.shown(), case.plane(drawn), STROKES, opacity=1)))
    return [before(case), Row("After: only strokes stay annotated", panels)]


def instances() -> list[Row]:
    """A share of the lesions, at random and the largest first."""
    case, panels = scan(INSTANCES_SEED, lesions_between=(9, 9)), []
    lesions = np.where(case.labels == LESION, LESION, 0)
    found = instances_of("case", case.instances, lesions)
    for title, keep, order in (
        ("--keep 0.5", 0.5, "random"),
        ("--order largest", 0.5, "largest"),
        ("--keep 0", 0.0, "random"),
    ):
        kept = kept_instances(found, keep, np.random.default_rng(1), order=order)  # type: ignore[arg-type]
        left = partial_labels(lesions, case.instances, [one.number for one in kept])
        panels.append(Panel(title, case.shown(labels=left)))
    dense = [Panel("scan", case.shown()), Panel("dense labels", case.shown(labels=lesions))]
    return [Row("Before", dense), Row("After: only some lesions stay annotated", panels)]


def labels() -> list[Row]:
    """One label in each of three cases."""
    cases = {f"case {number}": scan(seed) for number, seed in enumerate((1, 5, 9), start=1)}
    rng, names = np.random.default_rng(0), {name: value for value, name in NAMES.items()}
    lists = lists_by_case({case: [case] for case in cases}, sources_of(list(names), keep=1, rng=rng), rng)
    dense = [Panel(name, case.shown(labels=case.labels)) for name, case in cases.items()]
    after = []
    for name, case in cases.items():
        left = np.where(np.isin(case.labels, [names[label] for label in lists[name]]), case.labels, 0)
        after.append(Panel(" ".join(lists[name]), case.shown(labels=left)))
    return [Row("Before", dense), Row("After --keep 1: each case keeps one label", after)]


def noise() -> list[Row]:
    """The kinds of errors, in the spleen's label."""
    case, panels = scan(5), []
    for kind in NOISE:
        wrong = noisy_labels(
            case.labels.astype(np.int64),
            SPACING,
            {SPLEEN: kind},
            np.random.default_rng(2),
            size=5.0,
            values=VALUES,
            ignore=None,
        )
        panels.append(Panel(kind, case.shown(labels=wrong)))
    first, *others = panels
    dense = Panel("right labels", case.shown(labels=case.labels))
    return [Row("Before, and the spleen after each error", [dense, first, others[0]]), Row("", others[1:])]


# ---------------------------------------------------------------------- pairs


def as_image(array: np.ndarray) -> sitk.Image:
    """(X, Y, Z) as an image."""
    image = sitk.GetImageFromArray(np.ascontiguousarray(array.transpose(2, 1, 0)))
    image.SetSpacing(SPACING)
    return image


def pair() -> list[Row]:
    """A prior scan in which the patient lay otherwise, before and after registration, and what is written."""
    rng = np.random.default_rng(12)
    dates, current, prior = two_dates(rng)
    contours = (dates.labels(dates.prior) * LESION).astype(np.uint8)
    centre = [length * step / 2 for length, step in zip(SHAPE, SPACING)]
    turn = sitk.Euler3DTransform(centre, 0.0, 0.0, np.radians(12.0), (6.0, -4.0, 0.0))
    grid, image, label_map = (as_image(one) for one in (current, prior, contours))
    # the patient lies otherwise at the first date
    image, label_map = moved_image(image, grid, turn), moved_labels(label_map, grid, turn)
    transform = register_images(grid, image, "rigid").transform
    scans = grid, image, label_map, moved_image(image, grid, transform), moved_labels(label_map, grid, transform)
    current, prior, contours, after, after_contours = (sitk.GetArrayFromImage(one).transpose(2, 1, 0) for one in scans)
    z = int((after_contours > 0).sum(axis=(0, 1)).argmax())
    now, earlier, aligned = (Scan(image, contours, contours, z) for image in (current, prior, after))
    as_channel = over(np.zeros_like(now.shown()), (now.plane(after_contours) > 0) * LESION, opacity=1)
    return [
        Row(
            "Given: two scans, and the prior's labels",
            [
                Panel("current", now.shown()),
                Panel("prior", earlier.shown()),
                Panel("prior labels", earlier.shown(labels=contours)),
            ],
        ),
        Row(
            "Overlaid: by their headers, and registered",
            [
                Panel("none", overlay(now.shown(), earlier.shown())),
                Panel("rigid", overlay(now.shown(), aligned.shown())),
            ],
        ),
        Row(
            "Written: channels on the current grid",
            [Panel("0: current", now.shown()), Panel("1: prior", aligned.shown()), Panel("2: prior label", as_channel)],
        ),
    ]


def overlay(current: Pixels, prior: Pixels) -> Pixels:
    """As in the pictures that the command writes: current green, prior magenta, grey where both are alike."""
    coarse = [(one[..., 0] // 32) * 32 for one in (prior, current)]
    return np.stack([coarse[0], coarse[1], coarse[0]], axis=-1)


PICTURES = [
    Picture("simulate_scribbles", scribbles, [*LABELS, ("background", BACKGROUND_STROKE)]),
    Picture("simulate_instances", instances, [("lesion", COLOURS[LESION])]),
    Picture("simulate_labels", labels, LABELS),
    Picture("simulate_noise", noise, LABELS),
    Picture("pair", pair, [("current", (0, 200, 0)), ("prior", (200, 0, 200)), ("lesion", COLOURS[LESION])]),
]
