"""The channels of one case: a current scan, and its prior brought onto the current grid."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import SimpleITK as sitk

from nnunet_ext.errors import UserError
from nnunet_ext.formats.pairing import RegistrationKind
from nnunet_ext.preprocessing.pairs import images
from nnunet_ext.preprocessing.pairs.body import body_box, match_histogram
from nnunet_ext.preprocessing.pairs.image_registration import Registration, register_images
from nnunet_ext.preprocessing.pairs.pairing import Pair

IfDiverged = Literal["stop", "unregistered", "without-prior"]

IGNORE = "ignore"
LITTLE = 0.5  # share of the current scan below which a prior that covers no more is worth a warning


@dataclass(frozen=True)
class Pairing:
    """What is made of a pair, in training and in prediction alike."""

    labels: Mapping[str, int]  # values by name, without background; ``ignore`` is no label of the prior
    modality: str = "MRI"  # what nnU-Net is told of the current scan's intensities, e.g. MRI or CT
    registration: RegistrationKind = "none"  # of priors to current scans; ``none``: as their headers have them
    prior_image: bool = True  # whether the prior image is a channel
    prior_labels: bool = True  # whether each prior label is one
    crop_to_body: float | None = None  # margin in mm around the current body; None crops nothing
    match_histogram: str | None = None  # file of the image whose intensities all images get; None changes nothing

    @property
    def known_values(self) -> set[int]:
        """What a label map may hold."""
        return {0, *self.labels.values()}

    @property
    def prior_values(self) -> dict[str, int]:
        """Values by name of the labels that have a channel."""
        return {name: value for name, value in self.labels.items() if name != IGNORE} if self.prior_labels else {}

    @property
    def channel_names(self) -> list[str]:
        """As dataset.json names them, in order; nnU-Net normalises by these names."""
        image = [f"prior {self.modality}"] * self.prior_image  # no name of a normalisation: z-score keeps zeros zero
        return [self.modality, *image, *("noNorm" for _ in self.prior_values)]

    @property
    def roles(self) -> dict[str, list[int]]:
        """Which channels are what, as dataset.json says it."""
        first_label = 1 + self.prior_image
        return {
            "current": [0],
            "prior_image": [1] * self.prior_image,
            "prior_labels": list(range(first_label, first_label + len(self.prior_values))),
        }


Prior = dict[str, sitk.Image]
"""What is used of a prior scan, all on one grid: ``image`` and ``labels``, as far as they are there and wanted."""


@dataclass(frozen=True)
class PairedCase:
    """One case, ready to be written."""

    channels: tuple[sitk.Image, ...]  # of the case, all on one grid, in order
    label: sitk.Image | None  # the reference on the same grid, None if there is none
    record: Mapping[str, Any]  # what was done, for JSON
    problem: str = ""  # why the prior is not where it should be; empty if it is
    # if there was a registration: the current image, and on its grid the prior image before and after
    views: tuple[sitk.Image, sitk.Image, sitk.Image] | None = None
    registration: Registration | None = None  # the one that the views show


@dataclass(frozen=True)
class Placement:
    """How a prior comes to lie on the current grid."""

    transform: sitk.Transform | None  # points of current -> points of prior; None if the grids are the same already
    record: Mapping[str, Any]  # what was done, for JSON
    problem: str = ""  # why it is not to be trusted; empty if it is
    warnings: tuple[str, ...] = ()  # what somebody should look at
    registration: Registration | None = None  # that found the place; None if the headers gave it


def make_case(pair: Pair, pairing: Pairing, *, if_diverged: IfDiverged) -> PairedCase:
    """Read a pair and bring its prior onto the current grid; a UserError says if files cannot be used or do not fit.

    `if_diverged` is what is made of a prior whose place has a problem: the case is left to be reported (``stop``), the
    prior stays where its header has it (``unregistered``), or counts as missing (``without-prior``).
    """
    current = images.read_scan(pair.current_image)
    label = None
    if pair.current_label is not None:
        label = _read_labels_of(current, pair.current_label, pairing, image_file=pair.current_image)
        label.CopyInformation(current)  # the same within rounding, which would differ from file to file
    prior = read_prior(pair, pairing, dimensions=current.GetDimension())
    if pairing.match_histogram is not None:
        like = images.read_scan(Path(pairing.match_histogram))
        current = match_histogram(current, like, names=(pair.current_image, pairing.match_histogram))
        if "image" in prior:
            names = pair.prior_image, pairing.match_histogram
            prior["image"] = match_histogram(prior["image"], like, names=names)

    placement = place_prior(current, prior, pairing.registration)
    views, registration, problem = None, placement.registration, placement.problem
    if registration is not None:
        transforms = images.unmoved(current), registration.transform
        before, after = (images.moved_image(prior["image"], current, by) for by in transforms)
        views = (current, before, after)
    record = {**placement.record, "problem": problem or None}
    warnings = [*placement.warnings]
    if problem and if_diverged != "stop":
        record["if_diverged"], problem = if_diverged, ""
        if if_diverged == "unregistered":
            placement = by_the_headers(current, prior)
            warnings += [*placement.warnings, *filter(None, [placement.problem])]
        else:
            prior = {}

    labelled = 0 if label is None else _count(label)
    if label is not None and not labelled:
        warnings.append("the current label map is empty")
    grid = current
    if pairing.crop_to_body is not None:
        box = body_box(current, pairing.crop_to_body, name=pair.current_image)
        grid, label = current[box], None if label is None else label[box]
        record["cropped_from"], record["cropped_to"] = list(current.GetSize()), list(grid.GetSize())
        if label is not None and (lost := labelled - _count(label)):
            warnings.append(f"{lost} of {labelled} labelled voxels lie outside of the body and were cut off")
    channels = [grid]
    if pairing.prior_image:
        channels.append(_on(grid, prior.get("image"), placement.transform, images.moved_image))
    if pairing.prior_labels:
        labels = prior.get("labels")
        moved = _on(grid, labels, placement.transform, images.moved_labels)
        for name, value in pairing.prior_values.items():
            channels.append(moved == value)
            if labels is not None and _count(labels == value) and not _count(channels[-1]):
                warnings.append(f"all of the prior label {name} lies outside of the image")
    record = {
        "patient": pair.patient,
        "files": {name: str(file.resolve()) for name, file in pair.files.items()},
        "prior": " and ".join(prior) or "missing",
        **record,
        "warnings": warnings,
    }
    return PairedCase(tuple(channels), label, record, problem, views, registration)


def read_prior(pair: Pair, pairing: Pairing, *, dimensions: int) -> Prior:
    """Read what is used of a prior; a UserError if its files do not fit each other or the current image."""
    prior: Prior = {} if pair.prior_image is None else {"image": images.read_scan(pair.prior_image)}
    if pairing.prior_labels and pair.prior_label is not None:
        labels = _read_labels_of(prior.get("image"), pair.prior_label, pairing, image_file=pair.prior_image)
        if not prior and pairing.registration != "none":
            raise UserError(
                f"Case {pair.case} has a prior label map, {pair.prior_label}, but no prior image, which the "
                f"registration ({pairing.registration}) needs. Add the image, leave the cell of the label map empty "
                "too, or use --registration none if the label map lies in the current scan's coordinates."
            )
        prior["labels"] = labels
    elif not pairing.prior_image:
        return {}  # the image would only be registered and then left out
    for part in prior.values():
        if part.GetDimension() != dimensions:
            raise UserError(
                f"Case {pair.case}: the current image {pair.current_image} has {dimensions} dimensions, its prior "
                f"{part.GetDimension()}. Both must have the same number."
            )
    return prior


def _read_labels_of(image: sitk.Image | None, file: Path, pairing: Pairing, *, image_file: Path | None) -> sitk.Image:
    """Read a label map, which lies on the grid of its image if there is one."""
    labels = images.read_label_image(file, pairing.known_values)
    if image is not None and (apart := images.difference(labels, image)):
        raise UserError(
            f"{file} does not lie on the grid of its image {image_file}: {apart}. A label map is needed in the place "
            "where it was drawn: check whether the files belong together, else resample the labels (nearest neighbour)."
        )
    return labels


def place_prior(current: sitk.Image, prior: Prior, kind: RegistrationKind) -> Placement:
    """Find where a prior lies on the current scan; it has an image, unless it is missing or `kind` is ``none``."""
    if kind == "none" or "image" not in prior:
        return by_the_headers(current, prior)
    found = register_images(current, prior["image"], kind)
    record = {
        "registration": kind,
        "reached": found.reached,
        "resampled": [f"prior {part}" for part in prior],
        "similarity_before": _rounded(found.similarity_before),
        "similarity_after": _rounded(found.similarity_after),
        "mean_displacement_mm": _rounded(found.mean_displacement),
        "max_displacement_mm": _rounded(found.max_displacement),
        "coverage": _rounded(found.inside),
    }
    return Placement(found.transform, record, found.problem or "", registration=found)


def by_the_headers(current: sitk.Image, prior: Prior) -> Placement:
    """The place that a prior has by its header: nothing is moved on the same grid, else it is resampled."""
    record: dict[str, Any] = {"registration": "none", "resampled": []}
    if not prior:
        return Placement(None, record)
    grid = next(iter(prior.values()))
    if not (apart := images.difference(grid, current)):
        return Placement(None, {**record, "coverage": 1.0})
    share = float(images.covered(current, grid, images.unmoved(current)).mean())
    record["resampled"] = [f"prior {part}" for part in prior]
    record |= {"grids": f"prior and current differ: {apart}", "coverage": _rounded(share)}
    if share == 0:
        return Placement(images.unmoved(current), record, "by their headers, prior and current scan do not overlap")
    warnings = []
    if share < LITTLE:
        warnings.append(f"by the headers, the prior covers {share:.0%} of the current image")
    if images.has_no_position(current) or images.has_no_position(grid):
        warnings.append("the grids differ and one header gives no position (spacing 1, origin 0): they may not fit")
    return Placement(images.unmoved(current), record, warnings=tuple(warnings))


def _on(
    grid: sitk.Image, image: sitk.Image | None, transform: sitk.Transform | None, move: Callable[..., sitk.Image]
) -> sitk.Image:
    """Something of the prior on the current grid; zeros if it is missing."""
    if image is None:
        return images.on_grid(np.zeros(grid.GetSize()[::-1], np.uint8), grid)
    if transform is None and image.GetSize() == grid.GetSize():
        return images.on_grid(sitk.GetArrayFromImage(image), grid)
    return move(image, grid, images.unmoved(grid) if transform is None else transform)


def _count(labels: sitk.Image) -> int:
    return int(np.count_nonzero(sitk.GetArrayViewFromImage(labels)))


def _rounded(value: float) -> float | None:
    """For JSON, which has no NaN."""
    return round(float(value), 4) if np.isfinite(value) else None
