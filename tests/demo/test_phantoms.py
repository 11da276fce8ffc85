"""Phantoms: reproducible, with consistent labels, and not solved by a threshold."""

import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from scipy import ndimage

from nnunet_ext.demo.phantoms import (
    LABELS,
    LESION,
    LIVER,
    SPLEEN,
    largest_component,
    make_geometry,
    make_phantom,
    render,
    smooth_noise,
    write_phantom_dataset,
)
from nnunet_ext.errors import UserError

SEEDS = range(6)
TOUCHING = np.ones((3, 3, 3))


def read(path: Path) -> np.ndarray:
    return sitk.GetArrayFromImage(sitk.ReadImage(str(path)))


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


def test_same_seed_gives_the_same_phantom() -> None:
    first, second = (make_phantom(np.random.default_rng(3)) for _ in range(2))
    assert first.image.tobytes() == second.image.tobytes()
    assert first.organs.tobytes() == second.organs.tobytes()
    assert first.lesion_instances.tobytes() == second.lesion_instances.tobytes()


def test_different_seeds_give_different_anatomy() -> None:
    first, second = (make_geometry(np.random.default_rng(seed)) for seed in (0, 1))
    overlap = 2 * np.sum((first.organs == LIVER) & (second.organs == LIVER))
    assert overlap / (np.sum(first.organs == LIVER) + np.sum(second.organs == LIVER)) < 0.9


@pytest.mark.parametrize("seed", SEEDS)
def test_types_shapes_and_labels(seed: int) -> None:
    phantom = make_phantom(np.random.default_rng(seed), (40, 44, 36))
    assert phantom.image.shape == phantom.organs.shape == phantom.lesion_instances.shape == (40, 44, 36)
    assert (phantom.image.dtype, phantom.organs.dtype) == (np.float32, np.uint8)
    assert phantom.lesion_instances.dtype == np.uint16
    assert np.isfinite(phantom.image).all()
    assert set(np.unique(phantom.organs)) == {0, LIVER, SPLEEN, LESION}
    sizes = np.bincount(phantom.organs.ravel())
    assert sizes[LIVER] > sizes[SPLEEN] > 500


@pytest.mark.parametrize("seed", SEEDS)
def test_lesions_are_the_connected_components_of_their_label(seed: int) -> None:
    phantom = make_phantom(np.random.default_rng(seed))
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
    phantoms = [make_phantom(np.random.default_rng(seed)) for seed in SEEDS]
    scores = [best_threshold_dice(phantom.image, phantom.organs == label) for phantom in phantoms]
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
        make_phantom(np.random.default_rng(0), (16, 48, 40))


def test_dataset_follows_nnunets_layout(tmp_path: Path) -> None:
    folder = write_phantom_dataset(
        tmp_path / "raw folder", dataset_id=7, name="Test", cases=2, test_cases=1, channels=2
    )
    assert folder == tmp_path / "raw folder" / "Dataset007_Test"
    files = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert files == {
        "dataset.json",
        *(f"imagesTr/phantom_{case:03d}_{channel:04d}.nii.gz" for case in range(2) for channel in range(2)),
        *(f"{part}/phantom_{case:03d}.nii.gz" for case in range(2) for part in ("labelsTr", "instancesTr")),
        *(f"imagesTs/phantom_test_000_{channel:04d}.nii.gz" for channel in range(2)),
        "labelsTs/phantom_test_000.nii.gz",
    }
    dataset = json.loads((folder / "dataset.json").read_text())
    assert dataset["labels"] == LABELS
    assert dataset["numTraining"] == 2
    assert list(dataset["channel_names"]) == ["0", "1"]


def test_written_volumes_share_geometry_and_hold_the_instances(tmp_path: Path) -> None:
    folder = write_phantom_dataset(tmp_path, cases=2, test_cases=0)
    for case in ("phantom_000", "phantom_001"):
        image = sitk.ReadImage(str(folder / "imagesTr" / f"{case}_0000.nii.gz"))
        labels = sitk.ReadImage(str(folder / "labelsTr" / f"{case}.nii.gz"))
        assert image.GetSpacing() == labels.GetSpacing() == pytest.approx((1.5, 1.5, 2.0))
        assert image.GetSize() == labels.GetSize()
        instances = read(folder / "instancesTr" / f"{case}.nii.gz")
        assert np.array_equal(instances > 0, sitk.GetArrayFromImage(labels) == LESION)


def test_a_case_does_not_depend_on_how_many_there_are(tmp_path: Path) -> None:
    few = write_phantom_dataset(tmp_path / "few", cases=1, test_cases=1)
    more = write_phantom_dataset(tmp_path / "more", cases=2, test_cases=1)
    for name in ("imagesTr/phantom_000_0000.nii.gz", "imagesTs/phantom_test_000_0000.nii.gz"):
        assert np.array_equal(read(few / name), read(more / name))
    first, second = (read(more / "labelsTr" / f"phantom_00{case}.nii.gz") for case in (0, 1))
    assert first.shape != second.shape or not np.array_equal(first, second)


def test_a_folder_with_content_is_refused_and_kept(tmp_path: Path) -> None:
    folder = tmp_path / "Dataset900_Phantoms"
    folder.mkdir()
    (folder / "mine.txt").write_text("precious")
    with pytest.raises(UserError, match="not empty"):
        write_phantom_dataset(tmp_path)
    assert [path.name for path in folder.iterdir()] == ["mine.txt"]


@pytest.mark.parametrize("wrong", [{"cases": 0}, {"channels": 0}, {"test_cases": -1}, {"dataset_id": 1000}])
def test_impossible_numbers_are_refused(tmp_path: Path, wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError):
        write_phantom_dataset(tmp_path, **wrong)
