"""Pictures of cases: contours of reference and prediction on slices in three planes."""

import base64
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.figure import Figure

from nnunet_ext.errors import UserError
from nnunet_ext.evaluation.scores_table import nanmean
from nnunet_ext.messages import size
from nnunet_ext.preprocessing.raw.places import patient_axes
from nnunet_ext.preprocessing.raw.raw_dataset import Case, read_images, read_label_map, reader_for
from nnunet_ext.report.cases import CaseFiles, Label

# one colour for each label, on grey images; told apart with red-green blindness too (Okabe and Ito)
LABEL_COLOURS = ("#56b4e9", "#f0e442", "#ff7f2a", "#cc79a7", "#00b386", "#ffffff")
RING = "#ff3b5c"  # around a voxel that is pointed at

HEIGHT, WIDTH, DPI = 2.6, 9.0, 130  # a picture's size in inches, at most, and its resolution


def best_slice(labels: npt.NDArray[np.integer[Any]], axis: int) -> int:
    """The slice along an axis that shows the most labels and, among those, the most foreground; the middle if none."""
    others = tuple(other for other in range(labels.ndim) if other != axis)
    if not labels.any():
        return labels.shape[axis] // 2
    present = sum((labels == value).any(axis=others).astype(float) for value in np.unique(labels[labels > 0]))
    return int(np.argmax(present + (labels > 0).mean(axis=others)))


def along_the_patient(volume: npt.NDArray[Any], axes: Sequence[tuple[int, bool]]) -> npt.NDArray[Any]:
    """A volume (Z, Y, X[, colours]) with its axes as `patient_axes` tells: to the head, the back and the left."""
    turned = volume.transpose([*(axis for axis, _ in axes), *range(3, volume.ndim)])
    backwards = tuple(place for place, (_, back) in enumerate(axes) if back)
    flipped: npt.NDArray[Any] = np.flip(turned, backwards)
    return flipped


def visible(image: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.floating[Any]]:
    """What is drawn of an image file, (C, Z, Y, X): the colours of a picture, (Z, Y, X, 3), else the first channel."""
    return np.moveaxis(image[:3], 0, -1) if len(image) in (3, 4) else image[0]


def draw_overlay(
    image: npt.NDArray[np.floating[Any]],
    reference: npt.NDArray[np.integer[Any]],
    prediction: npt.NDArray[np.integer[Any]],
    spacing: Sequence[float],
    labels: Mapping[Label, str],
    at: Sequence[int] | None = None,
    axes: Sequence[tuple[int, bool]] | None = None,
) -> bytes:
    """A PNG: contours of reference (solid) and prediction (dashed) on slices in three planes, or in one for a 2D image.

    Args:
        image: (Z, Y, X) intensities, as nnU-Net's readers give them, or (Z, Y, X, 3) colours; Z is 1 for a 2D image.
        reference: label map of the same shape; values that no label has, such as ignore, are not drawn.
        prediction: label map of the same shape.
        spacing: voxel size in mm along Z, Y, X.
        labels: those to outline, with their colours.
        at: a voxel (z, y, x) that the slices go through, with a ring around it; by default they are the ones that show
            the most labels.
        axes: the volume's axes along the patient's, by `patient_axes`, so that slices are seen from the feet, the front
            and the side, head up; None if they are so already.
    """
    if axes is not None and image.shape[0] > 1:
        image, reference, prediction = (along_the_patient(one, axes) for one in (image, reference, prediction))
        spacing = [spacing[axis] for axis, _ in axes]
        if at is not None:
            at = [size - 1 - at[axis] if back else at[axis] for (axis, back), size in zip(axes, reference.shape)]
    known = np.where(np.isin(reference, [value for label in labels for value in label.values]), reference, 0)
    axes_shown = (0, 1, 2) if image.shape[0] > 1 else (0,)
    low, high = np.percentile(image, [1, 99.5]) if image.ndim == 3 else (0.0, float(image.max()))
    image = np.clip((image - low) / max(high - low, 1e-6), 0, 1)
    sizes = [
        [length * spacing[axis] for axis, length in enumerate(reference.shape) if axis != across]
        for across in axes_shown
    ]
    heights, widths = zip(*sizes)
    inches = min(HEIGHT / max(heights), WIDTH / sum(widths))
    figure = Figure(figsize=(sum(widths) * inches, max(heights) * inches), facecolor="black")
    panels = figure.subplots(1, len(axes_shown), width_ratios=widths, squeeze=False)[0]
    figure.subplots_adjust(left=0, right=1, bottom=0, top=1, wspace=0.02)
    for panel, across in zip(panels, axes_shown):
        index = best_slice(known, across) if at is None else at[across]
        rows, columns = (spacing[axis] for axis in range(3) if axis != across)
        panel.imshow(image.take(index, axis=across), cmap="gray", vmin=0, vmax=1, aspect=rows / columns)
        for label, colour in labels.items():
            for volume, style in ((reference, "solid"), (prediction, "dashed")):
                mask = np.isin(volume.take(index, axis=across), label.values)
                if mask.any() and not mask.all():
                    panel.contour(mask, levels=[0.5], colors=[colour], linestyles=[style], linewidths=1.4)
        if at is not None:
            y, x = (place for axis, place in enumerate(at) if axis != across)
            panel.plot(x, y, marker="o", markersize=14, markerfacecolor="none", markeredgecolor=RING)
        if across > 0:
            panel.invert_yaxis()  # the patient's head up
        panel.set_axis_off()
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI)
    return buffer.getvalue()


def data_url(png: bytes) -> str:
    """A picture as the address that a page has it under."""
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


def choose_cases(runs: Sequence[Mapping[str, float]]) -> list[tuple[str, str]]:
    """The worst, the median and the best case by Dice: pairs of rank and case, without repetition.

    It is the mean over the runs, whose cases' Dice is given; NaN counts as none. Of an even number the median is the
    lower of the two.
    """
    dice = pd.concat([pd.Series(dice, dtype=float) for dice in runs])
    ranked = list(dice.groupby(level=0, sort=False).agg(nanmean).dropna().sort_values(kind="stable").index)
    if not ranked:
        return []
    # the first rank of a case counts
    chosen = {ranked[-1]: "Best", ranked[(len(ranked) - 1) // 2]: "Median", ranked[0]: "Worst"}
    return [(rank, case) for case, rank in reversed(chosen.items())]


def draw_case(
    files: CaseFiles,
    labels: Mapping[Label, str],
    description: Mapping[str, Any] | None,
    at: Sequence[int] | None = None,
) -> str:
    """The picture of a case, a data URL; for `labels` and `at` see `draw_overlay`.

    A UserError says if a file is not known or not there, cannot be read, or is of another size.
    """
    if files.image is None or files.reference is None or description is None:
        raise UserError("the raw dataset was not found")
    for file in (files.image, files.reference, files.prediction):
        if not file.is_file():
            raise UserError(f"{file} does not exist")
    reader = reader_for(description, files.image)
    image, properties = read_images(reader, Case((files.image,), files.reference))
    reference, _ = read_label_map(reader, files.reference)
    prediction, _ = read_label_map(reader, files.prediction)
    for file, found in ((files.reference, reference), (files.prediction, prediction)):
        if found.shape != image[0].shape:
            raise UserError(f"{file} has {size(found.shape)} voxels and its image {size(image[0].shape)}")
    spacing = [float(value) for value in properties["spacing"]]
    axes = patient_axes(properties)
    return data_url(draw_overlay(visible(image), reference, prediction, spacing, labels, at, axes))
