"""A picture to judge a registration by: current and prior scan in two colours, before and after, in three planes."""

import textwrap
from pathlib import Path

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk
from matplotlib.figure import Figure

from nnunet_ext.files import written_whole
from nnunet_ext.preprocessing.pairs.body import body_mask
from nnunet_ext.preprocessing.pairs.image_registration import Registration

Grey = npt.NDArray[np.float64]

# the slice's normal, then the axes that are drawn to the right and downwards
PLANES = {"axial": (2, 0, 1), "coronal": (1, 0, 2), "sagittal": (0, 1, 2)}
TILES = 8
INCHES = 3.2
LETTERS = 110  # that go into a line of three panels
PIXELS_PER_INCH = 110


def registration_picture(
    current: sitk.Image, prior_before: sitk.Image, prior_after: sitk.Image, file: Path, registration: Registration
) -> None:
    """Write a PNG of a registration: overlays before and after, and a checkerboard after, through the body's centre.

    In the overlays the current scan is green and the prior magenta: grey is agreement. Planes go through the current
    image's axes and have the names of the patient's nearest ones; two-dimensional images have one. Both priors, as the
    header has it and as registered, are on current's grid. `file` is named by the case, and its folder must exist.
    """
    if current.GetDimension() == 3:
        current, prior_before, prior_after = (
            sitk.DICOMOrient(image, "LPS") for image in (current, prior_before, prior_after)
        )
    images = [sitk.Cast(image, sitk.sitkFloat64) for image in (current, prior_before, prior_after)]
    now, before, after = (_grey(sitk.GetArrayFromImage(image)) for image in images)
    if current.GetDimension() == 2:
        now, before, after = now[None], before[None], after[None]
    spacing = (*current.GetSpacing(), 1.0)[:3]
    planes = PLANES if now.shape[0] > 1 else {"plane": PLANES["axial"]}
    rows = {"before": _overlay(now, before), "after": _overlay(now, after), "after, tiles": _tiles(now, after, spacing)}
    centre = _centre_of_body(current)

    is_flat = len(planes) == 1
    across, height = len(rows) if is_flat else len(planes), INCHES * len(rows)
    if is_flat:
        height = INCHES * np.clip(now.shape[1] * spacing[1] / (now.shape[2] * spacing[0]), 0.3, 3)
    figure = Figure(figsize=(INCHES * across, height + 1.2), dpi=PIXELS_PER_INCH, layout="constrained")
    figure.suptitle(f"{file.stem}\n{_figures(registration)}", fontsize=10, parse_math=False)
    axes = figure.subplots(*((1, len(rows)) if is_flat else (len(rows), len(planes))), squeeze=False)
    axes = axes.T if is_flat else axes
    for row, (name, colours) in enumerate(rows.items()):
        for column, (plane, (normal, right, down)) in enumerate(planes.items()):
            slice_ = np.take(colours, centre[normal], axis=2 - normal)
            # arrays are (Z, Y, X): the axis drawn downwards comes first already
            ax = axes[row, column]
            origin = "upper" if plane in ("axial", "plane") else "lower"
            ax.imshow(slice_, aspect=spacing[down] / spacing[right], origin=origin)
            ax.set(xticks=[], yticks=[])
            if is_flat:
                ax.set_title(name, fontsize=9)
            elif row == 0:
                ax.set_title(plane, fontsize=9)
            if column == 0 and not is_flat:
                ax.set_ylabel(name, fontsize=9)
    figure.supxlabel("green: current   magenta: prior   grey: both alike", fontsize=9)
    with written_whole(file) as temporary:
        figure.savefig(temporary, format="png")


def _figures(registration: Registration) -> str:
    asked, reached = registration.kind, registration.reached
    lines = [
        f"{asked}{'' if asked == reached else f' (reached: {reached})'} · normalised mutual information "
        f"{registration.similarity_before:.3f} → {registration.similarity_after:.3f}",
        f"moved by {registration.mean_displacement:.1f} mm (at most {registration.max_displacement:.1f}) · "
        f"body covered {registration.inside:.0%}",
    ]
    if registration.problem:
        lines += textwrap.wrap(f"PROBLEM: {registration.problem}", LETTERS)
    return "\n".join(lines)


def _grey(values: Grey) -> Grey:
    """Values from 0 to 1 between the first and the 99th percentile."""
    low, high = np.percentile(values, [1, 99])
    return np.clip((values - low) / max(high - low, 1e-12), 0, 1)


def _overlay(current: Grey, prior: Grey) -> Grey:
    """The same weight for both in red, green, blue: equal values are grey."""
    return np.stack([prior, current, prior], axis=-1)


def _tiles(current: Grey, prior: Grey, spacing: tuple[float, ...]) -> Grey:
    """Cubes of both in turn, equally long in mm along every axis."""
    extents = np.asarray(current.shape) * np.asarray(spacing[::-1])
    edge = extents.max() / TILES
    numbers = [(np.arange(size) * step // edge).astype(int) for size, step in zip(current.shape, spacing[::-1])]
    odd = (numbers[0][:, None, None] + numbers[1][None, :, None] + numbers[2][None, None, :]) % 2 == 1
    return np.repeat(np.where(odd, prior, current)[..., None], 3, axis=-1)


def _centre_of_body(image: sitk.Image) -> list[int]:
    """The index, along X, Y, Z, of the body's centre; of the image's centre if no body is found."""
    mask = sitk.GetArrayFromImage(body_mask(image))
    places = np.argwhere(mask if mask.any() else np.ones_like(mask))
    return [*(round(value) for value in places.mean(axis=0)[::-1]), 0][:3]
