"""Phantoms: reproducible, with consistent labels, and not solved by a threshold."""

import numpy as np
import pytest
from scipy import ndimage

from nnunet_ext.demo.phantoms import (
    LESION,
    LIVER,
    SPLEEN,
    Geometry,
    largest_component,
    make_geometry,
    render,
    smooth_noise,
)

SEEDS = range(6)
TOUCHING = np.ones((3, 3, 3))


def best_threshold_dice(image: np.ndarray, mask: np.ndarray) -> float:
    """The best Dice of any band of intensities between two percentiles."""
    edges = np.percentile(image, np.arange(0, 101, 4))
    positive, _ = np.histogram(image[mask], edges)
    everything, _ = np.histogram(image, edges)
    found, all_found = np.cumsum([0, *positive]), np.cumsum([0, *everything])
    scores = [
        2 * (found[high] - found[low]) / (all_found[high] - all_found[low] + mask.sum())
        for low in range(len(edges))
        for high in range(low + 1, len(edges))
    ]
    return max(scores)


def draw(seed: int, shape: tuple[int, int, int] = (48, 48, 40)) -> tuple[Geometry, np.ndarray]:
    """A body and an image of it."""
    rng = np.random.default_rng(seed)
    geometry = make_geometry(rng, shape)
    return geometry, render(rng, geometry)


def test_same_seed_gives_the_same_phantom() -> None:
    (first, image), (second, again) = draw(3), draw(3)
    assert image.tobytes() == again.tobytes()
    assert first.organs.tobytes() == second.organs.tobytes()
    assert first.lesion_instances.tobytes() == second.lesion_instances.tobytes()


def test_different_seeds_give_different_anatomy() -> None:
    first, second = (make_geometry(np.random.default_rng(seed)) for seed in (0, 1))
    overlap = 2 * np.sum((first.organs == LIVER) & (second.organs == LIVER))
    assert overlap / (np.sum(first.organs == LIVER) + np.sum(second.organs == LIVER)) < 0.9


@pytest.mark.parametrize("seed", SEEDS)
def test_types_shapes_and_labels(seed: int) -> None:
    phantom, image = draw(seed, (40, 44, 36))
    assert image.shape == phantom.organs.shape == phantom.lesion_instances.shape == (40, 44, 36)
    assert (image.dtype, phantom.organs.dtype) == (np.float32, np.uint8)
    assert phantom.lesion_instances.dtype == np.uint16
    assert np.isfinite(image).all()
    assert set(np.unique(phantom.organs)) == {0, LIVER, SPLEEN, LESION}
    sizes = np.bincount(phantom.organs.ravel())
    assert sizes[LIVER] > sizes[SPLEEN] > 500


@pytest.mark.parametrize("seed", SEEDS)
def test_lesions_are_the_connected_components_of_their_label(seed: int) -> None:
    phantom, _ = draw(seed)
    assert np.array_equal(phantom.lesion_instances > 0, phantom.organs == LESION)
    components, count = ndimage.label(phantom.organs == LESION, structure=TOUCHING)
    assert 1 <= count <= 6
    assert sorted(np.unique(phantom.lesion_instances)) == list(range(count + 1))
    pairs = set(zip(components.ravel(), phantom.lesion_instances.ravel()))
    assert len(pairs) == count + 1


def test_one_geometry_can_be_imaged_twice() -> None:
    geometry = make_geometry(np.random.default_rng(0))
    before = geometry.tissues.copy()
    first, second = (render(np.random.default_rng(seed), geometry) for seed in (1, 2))
    assert not np.array_equal(first, second)
    assert np.corrcoef(first.ravel(), second.ravel())[0, 1] > 0.8
    assert np.array_equal(geometry.tissues, before)


@pytest.mark.parametrize("label", [LIVER, SPLEEN, LESION])
def test_no_threshold_finds_a_label(label: int) -> None:
    scores = [best_threshold_dice(image, phantom.organs == label) for phantom, image in map(draw, SEEDS)]
    assert np.mean(scores) < 0.7  # although each phantom has a threshold of its own, the best for the label


def test_lesions_stand_out_from_the_organ_they_are_in() -> None:
    geometry = make_geometry(np.random.default_rng(0))
    image = render(np.random.default_rng(0), geometry, bias=0)
    lesion, liver = image[geometry.organs == LESION], image[geometry.organs == LIVER]
    assert np.median(lesion) > np.percentile(liver, 90)


def test_smooth_noise_is_standardised_and_smooth() -> None:
    noise = smooth_noise(np.random.default_rng(0), (32, 32, 32), (4, 4, 4))
    assert noise.mean() == pytest.approx(0, abs=1e-5)
    assert noise.std() == pytest.approx(1, abs=1e-5)
    assert np.abs(np.diff(noise, axis=0)).mean() < 0.3


def test_largest_component_counts_corners_as_contact() -> None:
    mask = np.zeros((5, 5, 5), dtype=bool)
    mask[0, 0, 0] = mask[1, 1, 1] = mask[4, 4, 4] = True
    kept = largest_component(mask)
    assert kept.sum() == 2
    assert not kept[4, 4, 4]
    assert not largest_component(np.zeros_like(mask)).any()


def test_small_grids_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 32"):
        draw(0, (16, 48, 40))
