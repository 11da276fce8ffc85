"""Phantoms as raw datasets: nnU-Net's layout, the same cases whatever their number, tables for the priors."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from nnunet_ext.demo.datasets import write_follow_up_dataset, write_phantom_dataset
from nnunet_ext.demo.phantoms import LABELS, LESION
from nnunet_ext.errors import UserError
from nnunet_ext.preprocessing.pairs.pairing import read_table


def read(path: Path) -> np.ndarray:
    return sitk.GetArrayFromImage(sitk.ReadImage(str(path)))


def test_dataset_follows_nnunets_layout(tmp_path: Path) -> None:
    folder = write_phantom_dataset(tmp_path / "raw folder", dataset_id=7, name="Test", cases=2, test_cases=1)
    assert folder == tmp_path / "raw folder" / "Dataset007_Test"
    files = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert files == {
        "dataset.json",
        *(f"imagesTr/phantom_{case:03d}_0000.nii.gz" for case in range(2)),
        *(f"{part}/phantom_{case:03d}.nii.gz" for case in range(2) for part in ("labelsTr", "instancesTr")),
        "imagesTs/phantom_test_000_0000.nii.gz",
        "labelsTs/phantom_test_000.nii.gz",
    }
    dataset = json.loads((folder / "dataset.json").read_text())
    assert dataset["labels"] == LABELS
    assert dataset["numTraining"] == 2
    assert list(dataset["channel_names"]) == ["0"]


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


@pytest.mark.parametrize(
    "wrong",
    [
        {"cases": 0},
        {"test_cases": -1},
        {"without_prior": 25},
        {"without_prior": -1},
        {"dataset_id": 0},
        {"dataset_id": 1000},
    ],
)
def test_impossible_numbers_are_refused(tmp_path: Path, wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        write_follow_up_dataset(tmp_path, **wrong)
    assert not list(tmp_path.iterdir())


# ---------------------------------------------------------------------- two dates


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    folder = tmp_path_factory.mktemp("raw folder")
    return write_follow_up_dataset(folder, dataset_id=7, name="Test", cases=3, test_cases=1, without_prior=1)


def test_the_current_scans_are_a_dataset_of_nnunet_with_the_priors_beside_it(dataset):
    assert dataset.name == "Dataset007_Test"
    files = {str(path.relative_to(dataset)) for path in dataset.rglob("*") if path.is_file()}
    assert files == {
        "dataset.json",
        "pairsTr.csv",
        "pairsTs.csv",
        *(f"imagesTr/patient_{number:03d}_0000.nii.gz" for number in range(3)),
        *(f"labelsTr/patient_{number:03d}.nii.gz" for number in range(3)),
        *(f"{part}/patient_{number:03d}.nii.gz" for number in range(2) for part in ("priorsTr", "priorLabelsTr")),
        "imagesTs/patient_test_000_0000.nii.gz",
        *(f"{part}Ts/patient_test_000.nii.gz" for part in ("labels", "priors", "priorLabels")),
    }
    description = json.loads((dataset / "dataset.json").read_text())
    assert description["channel_names"] == {"0": "MRI"}
    assert description["labels"] == {"background": 0, "lesion": 1}
    assert description["numTraining"] == 3


def test_the_tables_are_those_of_pair_and_leave_missing_priors_empty(dataset):
    wanted = ["prior_image", "prior_label"]
    training = read_table(dataset / "pairsTr.csv", wanted=wanted, with_labels=True)
    test = read_table(dataset / "pairsTs.csv", wanted=wanted, with_labels=False)
    assert [pair.patient for pair in (*training, *test)] == [*(f"patient_00{n}" for n in range(3)), "patient_test_000"]
    assert [pair.prior_image is None for pair in (*training, *test)] == [False, False, True, False]
    assert [pair.prior_label is None for pair in (*training, *test)] == [False, False, True, False]
    with (dataset / "pairsTr.csv").open() as file:
        assert list(csv.DictReader(file))[0]["prior_image"] == "priorsTr/patient_000.nii.gz"


def test_all_files_of_a_patient_lie_on_one_grid(dataset):
    for pair in read_table(dataset / "pairsTr.csv", wanted=["prior_image", "prior_label"], with_labels=True):
        images = [sitk.ReadImage(str(file)) for file in pair.files.values()]
        assert len({(image.GetSize(), image.GetSpacing(), image.GetOrigin()) for image in images}) == 1


def test_a_patient_does_not_depend_on_how_many_there_are(dataset, tmp_path: Path):
    few = write_follow_up_dataset(tmp_path, cases=1, test_cases=1, without_prior=0)
    for name in ("imagesTr/patient_000_0000", "priorsTr/patient_000", "imagesTs/patient_test_000_0000"):
        assert np.array_equal(read(few / f"{name}.nii.gz"), read(dataset / f"{name}.nii.gz"))
