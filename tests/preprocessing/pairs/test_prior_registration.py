"""Registration of bodies whose true place is known. Voxels are 2 mm, the noise 4 % of the mean intensity."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import SimpleITK as sitk

from nnunet_ext.preprocessing.pairs import registration_stages
from nnunet_ext.preprocessing.pairs.body import body_mask
from nnunet_ext.preprocessing.pairs.image_pair import normalised_mutual_information, prepared_pair, shrink_factors
from nnunet_ext.preprocessing.pairs.image_registration import register_images
from nnunet_ext.preprocessing.pairs.images import moved_image, moved_labels
from support.bodies import (
    CENTRE,
    Floats,
    depth,
    drawn,
    grid,
    intensities,
    organs,
    positions,
    rigid,
    transformed,
)

VOXEL = 2.0
IDENTITY = sitk.Transform(3, sitk.sitkIdentity)
SHIFTED = rigid((6, -5, 8), (6, -4, 5))


def other_contrast(points: Floats) -> Floats:
    """The same body with intensities in another proportion, as another sequence shows it."""
    return np.sqrt(intensities(points)) * 20


def current_image() -> sitk.Image:
    return drawn(grid(), intensities, noise=4)


def prior_image(placed: sitk.Transform, on: sitk.Image | None = None) -> sitk.Image:
    """A prior that shows at p what the body has at placed(p)."""
    on = grid() if on is None else on
    return drawn(on, other_contrast, placed=transformed(placed), noise=4, seed=1)


def target_error(current: sitk.Image, found: Callable[[Floats], Floats], truth: Callable[[Floats], Floats]) -> float:
    """The mean distance in mm, over the body, between where points are taken to and where they belong."""
    points = positions(current)
    points = points[depth(points) > 0][::7]
    return float(np.linalg.norm(found(points) - truth(points), axis=1).mean())


def errors(current: sitk.Image, found: sitk.Transform, placed: sitk.Transform) -> tuple[float, float]:
    """Target error in mm before registration and after it."""
    truth = transformed(placed.GetInverse())
    return target_error(current, lambda points: points, truth), target_error(current, transformed(found), truth)


def dice(first: sitk.Image, second: sitk.Image) -> float:
    """Mean over the three organs."""
    a, b = sitk.GetArrayFromImage(first), sitk.GetArrayFromImage(second)
    return float(np.mean([2 * ((a == k) & (b == k)).sum() / ((a == k).sum() + (b == k).sum()) for k in (1, 2, 3)]))


def test_known_rotation_and_shift_are_found_to_a_fraction_of_a_voxel():
    current = current_image()
    found = register_images(current, prior_image(SHIFTED), "rigid")
    before, after = errors(current, found.transform, SHIFTED)
    assert before > 9
    assert after < VOXEL / 4
    assert (found.problem, found.kind, found.reached) == (None, "rigid", "rigid")
    assert found.similarity_after > 3 * found.similarity_before
    assert found.inside > 0.97
    # what is reported is the truth's own displacement
    assert found.mean_displacement == pytest.approx(before, abs=0.5)
    assert found.max_displacement > found.mean_displacement


def test_registered_image_and_labels_lie_on_the_current_scan():
    current = current_image()
    prior = prior_image(SHIFTED)
    labels = drawn(grid(), organs, placed=transformed(SHIFTED))
    truth = drawn(grid(), organs)
    found = register_images(current, prior, "rigid")
    assert dice(moved_labels(labels, current, IDENTITY), truth) < 0.5
    assert dice(moved_labels(labels, current, found.transform), truth) > 0.9
    image = moved_image(prior, current, found.transform)
    assert image.GetPixelID() == sitk.sitkFloat32
    expected = other_contrast(positions(current))
    inside = depth(positions(current)) > 0.1
    assert np.corrcoef(sitk.GetArrayFromImage(image)[inside], expected[inside])[0, 1] > 0.95


def test_affine_follows_scaling_and_shearing_that_rigid_cannot():
    placed = sitk.AffineTransform(3)
    placed.SetCenter(CENTRE.tolist())
    rotation = np.reshape(SHIFTED.GetMatrix(), (3, 3))
    placed.SetMatrix((rotation @ [[1.1, 0.05, 0], [0, 0.93, 0], [0, 0.04, 1.06]]).ravel().tolist())
    placed.SetTranslation((4.0, 3.0, -5.0))
    current, prior = current_image(), prior_image(placed)
    found = register_images(current, prior, "affine")
    before, after = errors(current, found.transform, placed)
    assert before > 7
    assert after < VOXEL / 2
    assert (found.problem, found.reached) == (None, "affine")
    assert errors(current, register_images(current, prior, "rigid").transform, placed)[1] > 2 * after


def bulging(points: Floats) -> Floats:
    """A smooth deformation by up to some 6 mm, without folds."""
    q = (points - CENTRE) / 30
    shift = np.stack(
        [
            5 * np.sin(2 * q[..., 1]) * np.cos(q[..., 2]),
            4 * np.cos(2 * q[..., 0]),
            4 * np.sin(2 * q[..., 2] + q[..., 0]),
        ],
        axis=-1,
    )
    return points + shift * np.exp(-(q**2).sum(axis=-1, keepdims=True) / 2)


def test_bspline_follows_a_smooth_deformation_that_affine_cannot():
    current = drawn(grid(), other_contrast, placed=bulging, noise=4)
    prior = drawn(grid(), intensities, noise=4, seed=1)
    found = {kind: register_images(current, prior, kind) for kind in ("affine", "bspline")}
    error = {kind: target_error(current, transformed(one.transform), bulging) for kind, one in found.items()}
    assert target_error(current, lambda points: points, bulging) > 3
    assert error["bspline"] < 0.75 * error["affine"]
    assert error["bspline"] < 0.7 * VOXEL
    assert (found["bspline"].problem, found["bspline"].reached) == (None, "bspline")
    assert found["bspline"].similarity_after > found["affine"].similarity_after


def test_prior_on_an_oblique_grid_far_away_is_found():
    axes = np.reshape(rigid((20, -15, 30), (0, 0, 0)).GetMatrix(), (3, 3))
    far = np.array([120.0, -60.0, 40.0])
    on = grid((40, 36, 30), (2.2, 2.5, 3.0), direction=axes, centre=CENTRE + far)
    placed = sitk.CompositeTransform([rigid((5, 4, -6), (0, 0, 0)), sitk.TranslationTransform(3, (-far).tolist())])
    current = current_image()
    found = register_images(current, prior_image(placed, on), "rigid")
    assert found.problem is None
    assert errors(current, found.transform, placed)[1] < VOXEL / 4
    # before, the scans do not overlap at all
    assert found.similarity_before < 0.01
    assert moved_image(on, current, found.transform).GetDirection() == current.GetDirection()


@pytest.mark.parametrize("kind", ["rigid", "bspline"])
def test_nine_thick_slices_are_registered(kind):
    thick = ((44, 44, 9), (2.0, 2.0, 10.0))
    placed = rigid((0, 0, 7), (6, -5, 3))
    current = drawn(grid(*thick), intensities, noise=4)
    found = register_images(current, prior_image(placed, grid(*thick)), kind)
    assert found.problem is None
    assert found.reached != "none"
    before, after = errors(current, found.transform, placed)
    assert before > 8
    assert after < VOXEL


def test_thick_slices_keep_their_number_while_fine_axes_are_shrunk():
    assert shrink_factors(grid((156, 143, 9), (1.5, 1.5, 10.0)), 6.0) == [4, 4, 1]
    assert shrink_factors(grid((156, 143, 9), (1.5, 1.5, 1.5)), 6.0) == [4, 4, 1]
    assert shrink_factors(grid((30, 23, 48), (1.0, 1.0, 1.0)), 4.0) == [2, 1, 4]


@pytest.mark.parametrize("kind", ["rigid", "affine", "bspline"])
def test_two_dimensional_images_are_registered(kind):
    placed = rigid((8,), (5, -6))
    current = drawn(grid((64, 64), (1.5, 1.5)), intensities, noise=4)
    found = register_images(current, prior_image(placed, grid((60, 64), (1.5, 1.6))), kind)
    before, after = errors(current, found.transform, placed)
    assert before > 7
    assert after < 0.75
    assert found.problem is None


def test_one_seed_gives_equal_transforms_and_another_does_not():
    current, prior = current_image(), prior_image(SHIFTED)
    first, second, other = (register_images(current, prior, "bspline", seed=seed) for seed in (0, 0, 1))

    def parameters(transform: sitk.Transform) -> list[float]:
        return [
            value
            for one in (transform.GetNthTransform(0), transform.GetNthTransform(1))
            for value in one.GetParameters()
        ]

    assert first.reached == "bspline"
    assert parameters(first.transform) == parameters(second.transform)
    assert first.similarity_after == second.similarity_after
    assert parameters(first.transform) != parameters(other.transform)


def test_number_of_threads_does_not_change_the_transform():
    current, prior = current_image(), prior_image(SHIFTED)
    threads = sitk.ProcessObject.GetGlobalDefaultNumberOfThreads()
    found = []
    try:
        for count in (1, 4):
            sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(count)
            found.append(register_images(current, prior, "rigid").transform.GetParameters())
    finally:
        sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(threads)
    assert found[0] == found[1]


def test_aligned_pair_stays_where_it_is_without_a_problem():
    current = current_image()
    found = register_images(current, drawn(grid(), intensities, noise=4, seed=2), "affine")
    assert found.problem is None
    assert found.mean_displacement < VOXEL / 4
    assert found.similarity_after >= found.similarity_before


def test_unrelated_noise_is_a_problem_and_moves_nothing():
    noise = drawn(grid(), lambda points: np.random.default_rng(3).normal(100, 20, points.shape[:-1]))
    found = register_images(current_image(), noise, "affine")
    assert found.problem is not None
    assert (found.reached, found.mean_displacement) == ("none", 0.0)


def test_prior_that_shows_another_part_of_the_body_is_a_problem(monkeypatch):
    # the first guesses lay any two fields of view on one another: here the optimiser ends far off, as it may
    far = rigid((0, 0, 0), (70, 0, 0))
    monkeypatch.setattr(registration_stages, "rigid", lambda pair, start, *, seed: far)
    found = register_images(current_image(), prior_image(SHIFTED), "rigid")
    assert "covers" in str(found.problem)
    assert "50% is expected" in str(found.problem)
    assert (found.reached, found.inside) == ("none", 1.0)


def test_stage_that_loses_similarity_is_a_problem_for_rigid(monkeypatch):
    monkeypatch.setattr(registration_stages, "rigid", lambda pair, start, *, seed: rigid((0, 0, 0), (9, 0, 0)))
    found = register_images(current_image(), drawn(grid(), intensities), "rigid")
    assert "did not grow" in str(found.problem)
    assert found.similarity_after == found.similarity_before


def test_body_carried_further_than_its_radius_is_a_problem(monkeypatch):
    on = grid((80, 44, 44))
    monkeypatch.setattr(registration_stages, "rigid", lambda pair, start, *, seed: rigid((0, 0, 0), (45, 0, 0)))
    found = register_images(current_image(), drawn(on, intensities), "rigid")
    assert "carried 45 mm away" in str(found.problem)


def test_affine_that_doubles_the_volume_is_a_problem_and_rigid_is_kept(monkeypatch):
    def blown_up(pair, start, *, seed):
        transform = sitk.AffineTransform(3)
        transform.SetCenter(CENTRE.tolist())
        transform.Scale(1.3)
        return transform

    monkeypatch.setattr(registration_stages, "affine", blown_up)
    found = register_images(current_image(), prior_image(SHIFTED), "bspline")
    assert "volume changed 2.20 times" in str(found.problem)
    assert (found.kind, found.reached) == ("bspline", "rigid")
    assert errors(current_image(), found.transform, SHIFTED)[1] < VOXEL / 4


def test_deformation_that_folds_is_a_problem(monkeypatch):
    def folded(pair, start, *, seed):
        transform = sitk.BSplineTransformInitializer(pair.current, [4, 4, 4], order=3)
        parameters = np.zeros(transform.GetNumberOfParameters())
        parameters[171] = 100.0  # a control point in the body is pulled past the next
        transform.SetParameters(parameters.tolist())
        return transform

    monkeypatch.setattr(registration_stages, "bspline", folded)
    found = register_images(current_image(), prior_image(SHIFTED), "bspline")
    assert "folds" in str(found.problem)
    assert found.reached in ("rigid", "affine")


def test_error_of_the_optimiser_is_a_problem_not_an_exception(monkeypatch):
    def failing(pair, start, *, seed):
        raise RuntimeError("ITK ERROR:\nall samples map outside moving image buffer\n")

    monkeypatch.setattr(registration_stages, "rigid", failing)
    found = register_images(current_image(), prior_image(SHIFTED), "rigid")
    assert found.problem == ("rigid: the optimiser ended with an error (all samples map outside moving image buffer)")


def unusable() -> dict[str, tuple[sitk.Image, str]]:
    tiny = drawn(grid((20, 20, 20)), lambda points: 100.0 * (np.linalg.norm(points - CENTRE, axis=-1) < 6))
    blank = drawn(grid(), lambda points: np.full(points.shape[:-1], 7.0))
    return {
        "constant": (blank, "no body is found"),
        "tiny": (tiny, "voxels; at least"),
        "one slice": (current_image()[:, :, 20:21], "44 x 44 x 1 voxels; registration needs 4"),
    }


@pytest.mark.parametrize("name", unusable())
def test_images_that_cannot_be_registered_are_named_with_the_reason(name):
    image, reason = unusable()[name]
    current = current_image()
    for which, found in (
        ("prior", register_images(current, image, "rigid")),
        ("current", register_images(image, current, "rigid")),
    ):
        assert which in str(found.problem)
        assert reason in str(found.problem)
        assert found.transform.TransformPoint((1.0, 2.0, 3.0)) == (1.0, 2.0, 3.0)


def test_without_registration_the_figures_are_those_of_the_headers():
    current, prior = current_image(), prior_image(SHIFTED)
    found = register_images(current, prior, "none")
    assert found.transform.TransformPoint((1.0, 2.0, 3.0)) == (1.0, 2.0, 3.0)
    assert found.problem is None
    assert found.similarity_after == found.similarity_before > 0
    assert found.similarity_before == register_images(current, prior, "rigid").similarity_before


def test_similarity_of_images_by_a_hand_worked_table():
    first = np.repeat([0.0, 1.0], 5000).astype(np.float32)
    # an equal half each; the excess of a 2 x 2 table of 10000 is 1 / 20000 nats
    assert normalised_mutual_information(first, first) == pytest.approx(1 - 1 / 20000 / np.log(2))
    assert normalised_mutual_information(first, 3 - 2 * first) == pytest.approx(1 - 1 / 20000 / np.log(2))
    assert normalised_mutual_information(first, np.tile([0.0, 1.0], 5000).astype(np.float32)) == pytest.approx(
        -1 / 20000 / np.log(2)
    )
    assert normalised_mutual_information(first, np.ones_like(first)) == 0


def test_volume_changes_on_an_oblique_grid_are_the_determinant():
    axes = np.reshape(rigid((20, -15, 30), (0, 0, 0)).GetMatrix(), (3, 3))
    image = drawn(grid((44, 44, 30), (2.0, 2.0, 3.0), direction=axes), intensities)
    pair = prepared_pair(image, image)
    assert not isinstance(pair, str)
    transform = sitk.AffineTransform(3)
    matrix = np.array([[1.2, 0.3, 0.0], [-0.1, 0.9, 0.2], [0.0, 0.1, 1.1]])
    transform.SetMatrix(matrix.ravel().tolist())
    np.testing.assert_allclose(pair.volume_changes(transform), np.linalg.det(matrix), rtol=1e-6)


@pytest.mark.parametrize("slices", [(44, 2.0), (9, 10.0)])
def test_labels_survive_a_rotation_there_and_back_better_than_by_nearest_neighbour(slices):
    on = grid((44, 44, slices[0]), (2.0, 2.0, slices[1]))
    labels = drawn(on, organs)
    there = rigid((12, -9, 15), (1.3, -2.1, 0.7))
    ours = moved_labels(moved_labels(labels, on, there), on, there.GetInverse())
    nearest = labels
    for transform in (there, there.GetInverse()):
        nearest = sitk.Resample(nearest, on, transform, sitk.sitkNearestNeighbor, 0)
    assert ours.GetPixelID() == labels.GetPixelID()
    assert dice(ours, labels) > dice(nearest, labels) + 0.005
    assert dice(ours, labels) > 0.96


def test_no_label_appears_between_two_others():
    # values 1 and 9 side by side: interpolated as numbers, 5 would lie between
    values = np.zeros((8, 8, 8), dtype=np.uint16)
    values[:, :, :4], values[:, :, 4:] = 1, 9
    labels = sitk.GetImageFromArray(values)
    moved = moved_labels(labels, labels, sitk.TranslationTransform(3, (0.45, 0.0, 0.0)))
    assert moved.GetPixelID() == sitk.sitkUInt16
    assert set(np.unique(sitk.GetArrayFromImage(moved))) <= {0, 1, 9}
    assert sitk.GetArrayFromImage(moved)[0, 0, 3] == 1
    beyond = moved_labels(labels, labels, sitk.TranslationTransform(3, (20.0, 0.0, 0.0)))
    assert not sitk.GetArrayFromImage(beyond).any()


def test_moved_image_has_the_lowest_value_where_the_prior_ends():
    prior = drawn(grid(), lambda points: intensities(points) - 1000)
    moved = sitk.GetArrayFromImage(moved_image(prior, prior, sitk.TranslationTransform(3, (60.0, 0.0, 0.0))))
    assert moved[0, 0, -1] == sitk.GetArrayFromImage(prior).min()


def test_body_mask_is_the_body_with_its_cavities_and_without_the_table():
    def chest(points: Floats) -> Floats:
        values = np.where(depth(points) > 0, 40.0, -1000.0)
        lung = np.linalg.norm(points - CENTRE - [8, 0, 0], axis=-1) < 12
        table = (points[..., 1] > CENTRE[1] + 38) & (points[..., 1] < CENTRE[1] + 41)
        return np.where(lung, -850.0, np.where(table, 100.0, values))

    image = drawn(grid(), chest, noise=10)
    mask = sitk.GetArrayFromImage(body_mask(image)).astype(bool)
    truth = depth(positions(image)) > 0
    assert 2 * (mask & truth).sum() / (mask.sum() + truth.sum()) > 0.97
    assert body_mask(image).GetOrigin() == image.GetOrigin()
    assert not sitk.GetArrayFromImage(body_mask(drawn(grid(), lambda p: np.full(p.shape[:-1], 7.0)))).any()
