"""Registration of a prior scan to the current one."""

from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk

from nnunet_ext.formats.pairing import RegistrationKind
from nnunet_ext.messages import last_line
from nnunet_ext.preprocessing.pairs import registration_stages as stages
from nnunet_ext.preprocessing.pairs.image_pair import ImagePair, prepared_pair
from nnunet_ext.preprocessing.pairs.images import unmoved

STAGES: tuple[RegistrationKind, ...] = ("rigid", "affine", "bspline")
LEAST_SIMILARITY = 0.03
LEAST_INSIDE = 0.5
LARGEST_CHANGE_OF_VOLUME = 2.0


@dataclass(frozen=True)
class Registration:
    """What registration found; all figures are of the returned transform and over the current body."""

    transform: sitk.Transform  # points of the current image -> points of the prior image, in mm
    kind: RegistrationKind  # what was asked for
    reached: RegistrationKind  # what the transform is: less than `kind` after a problem or a stage that gained nothing
    similarity_before: float  # normalised mutual information before (see `ImagePair.similarity`), about 0 to 1
    similarity_after: float  # the same with the transform
    mean_displacement: float  # mean length of the body's displacement, in mm; a different origin of the scans counts
    max_displacement: float  # the longest
    inside: float  # share of the current body that the moved prior's field of view covers
    problem: str | None  # why registration is taken for failed, wholly or from some stage on; None if it is not


def register_images(current: sitk.Image, prior: sitk.Image, kind: RegistrationKind, *, seed: int = 0) -> Registration:
    """Find the transform that lays the prior scan on the current one.

    Mattes mutual information of voxels drawn in the current body and a rim around it is maximised from coarse to fine:
    rigid from the best of three first guesses (no movement, centres of the images, centres of the bodies), then affine,
    then a B-spline, as far as `kind` says. A stage that gains no similarity is left out, and `reached` tells. Two runs
    with one seed give equal transforms on one machine, however many threads it has.

    Registration counts as diverged, and the transform before the stage in question is returned, if

    - the optimiser ends with an error, or less than half of the current body lies in the moved prior's field of view,
    - the body's centre is carried further from the stage's start than the body's radius (root of the mean square),
    - affine: volume more than doubles or halves; B-spline: the deformation folds (a Jacobian determinant of 0 or less
        in the body),
    - rigid: similarity does not grow although the body is moved by more than half a voxel. A pair that is moved by less
        was aligned before.

    There is a problem too, and the transform is the identity, if the similarity in the end is below LEAST_SIMILARITY
    (unrelated images), or an image is nearly constant, has fewer than 4 voxels along an axis or a body of a few voxels.
    A high similarity is no proof of a good registration: look at pictures.

    Both images have one channel, two or three dimensions and finite values, as `read_scan` gives them. The seed, from
    0, is that of the drawing of voxels. The kind ``none`` gives the identity.
    """
    identity = unmoved(current)
    pair = prepared_pair(current, prior)
    if isinstance(pair, str):
        return Registration(identity, kind, "none", np.nan, np.nan, 0.0, 0.0, np.nan, None if kind == "none" else pair)

    identity = stages.no_movement(pair)
    before = similarity = pair.similarity(identity)
    transform, problem = identity, None
    reached: RegistrationKind = "none"
    for stage in STAGES[: STAGES.index(kind) + 1] if kind != "none" else ():
        try:
            start = stages.first_guess(pair) if stage == "rigid" else transform
            found = getattr(stages, stage)(pair, start, seed=seed)
        except RuntimeError as error:
            problem = f"{stage}: the optimiser ended with an error ({last_line(error)})"
            break
        if problem := _divergence(pair, stage, start, found):
            break
        found_similarity = pair.similarity(found)
        if found_similarity > similarity:
            transform, reached, similarity = found, stage, found_similarity
        elif stage == "rigid" and not _is_still(pair, transform, found):
            problem = (
                "rigid: the normalised mutual information did not grow "
                f"({similarity:.3f} before, {found_similarity:.3f} after)"
            )
            break
    if kind != "none" and similarity < LEAST_SIMILARITY:
        problem = problem or (
            f"the normalised mutual information is {similarity:.3f} after registration; below {LEAST_SIMILARITY:g} "
            "the images have next to nothing in common"
        )
        transform, reached, similarity = identity, "none", before
    lengths = np.linalg.norm(pair.shifts(transform), axis=1)
    return Registration(
        transform=transform,
        kind=kind,
        reached=reached,
        similarity_before=before,
        similarity_after=similarity,
        mean_displacement=float(lengths.mean()),
        max_displacement=float(lengths.max()),
        inside=pair.inside(transform),
        problem=problem,
    )


def _divergence(pair: ImagePair, stage: RegistrationKind, start: sitk.Transform, found: sitk.Transform) -> str | None:
    """Why what a stage found from `start` is implausible; None if it is not."""
    if (inside := pair.inside(found)) < LEAST_INSIDE:
        needed = f"at least {LEAST_INSIDE:.0%} is expected"
        return f"{stage}: the moved prior covers {inside:.0%} of the current body; {needed}"
    carried = float(np.linalg.norm((pair.shifts(found) - pair.shifts(start)).mean(axis=0)))
    if carried > (radius := pair.radius()):
        return f"{stage}: the body's centre was carried {carried:.0f} mm away; its radius is {radius:.0f} mm"
    volume = pair.volume_changes(found)
    if stage == "affine" and not 1 / LARGEST_CHANGE_OF_VOLUME <= volume.mean() <= LARGEST_CHANGE_OF_VOLUME:
        return f"affine: the body's volume changed {volume.mean():.2f} times; 0.5 to 2 is expected"
    if stage == "bspline" and volume.min() <= 0:
        return f"bspline: the deformation folds (in {(volume <= 0).mean():.2%} of the body)"
    return None


def _is_still(pair: ImagePair, before: sitk.Transform, after: sitk.Transform) -> bool:
    """Whether a stage moved the body by less than half a voxel."""
    lengths = np.linalg.norm(pair.shifts(after) - pair.shifts(before), axis=1)
    return bool(lengths.mean() < min(pair.current.GetSpacing()) / 2)
