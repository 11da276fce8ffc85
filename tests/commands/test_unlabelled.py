"""``nnunet_ext unlabelled``: datasets that nnU-Net plans and preprocesses without labels."""

import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from nnunetv2.experiment_planning.dataset_fingerprint.fingerprint_extractor import DatasetFingerprintExtractor
from nnunetv2.experiment_planning.verify_dataset_integrity import verify_dataset_integrity

from nnunet_ext.cli import main
from nnunet_ext.preprocessing.raw.raw_dataset import read_raw_dataset
from support.raw_datasets import DATASET_JSON, image_like, read_array, write_array

SHAPE = (6, 8, 10)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Two cases of one channel outside of nnUNet_raw."""
    folder = tmp_path / "some scans ä" / "imagesTs"
    for case in ("a", "b_1"):
        write_array(image_like(np.zeros(SHAPE)), folder / f"{case}_0000.nii.gz")
    (folder / "README.txt").touch()
    return folder


def unlabelled(images: Path, *options: str) -> int:
    return main(["unlabelled", str(images), "-o", "Dataset012_Scans", *options])


def refusal(capsys: pytest.CaptureFixture[str], images: Path, raw: Path, *options: str) -> str:
    """What it says when it leaves nothing."""
    assert unlabelled(images, *options) == 2
    assert list(raw.iterdir()) == []
    return capsys.readouterr().err


def test_images_stay_where_they_are_and_get_placeholders(images, raw, capsys):
    assert unlabelled(images, "--channels", "CT") == 0
    new = raw / "Dataset012_Scans"
    description = json.loads((new / "dataset.json").read_text())
    assert description["channel_names"] == {"0": "CT"}
    assert description["labels"] == {"background": 0, "image": 1}
    assert description["file_ending"] == ".nii.gz"
    assert description["dataset"]["b_1"]["images"] == [str((images / "b_1_0000.nii.gz").resolve())]
    assert sorted(path.name for path in (new / "labelsTr").iterdir()) == ["a.nii.gz", "b_1.nii.gz"]
    assert (read_array(new / "labelsTr" / "a.nii.gz") == np.ones(SHAPE)).all()
    image, label = (sitk.ReadImage(str(file)) for file in (images / "a_0000.nii.gz", new / "labelsTr" / "a.nii.gz"))
    assert label.GetSpacing() == image.GetSpacing()
    shown = capsys.readouterr().out
    assert "2 cases, channel CT" in shown
    assert "nnUNetv2_train 12 3d_fullres all" in shown
    assert "nnUNetv2_move_plans_between_datasets -s TARGET -t 12" in shown


def test_nnunet_takes_the_dataset_and_finds_intensities(images, raw, tmp_path, monkeypatch):
    monkeypatch.setenv("nnUNet_preprocessed", str(tmp_path / "preprocessed"))
    assert unlabelled(images, "--channels", "CT") == 0
    verify_dataset_integrity(str(raw / "Dataset012_Scans"), num_processes=1)
    case = read_raw_dataset("12").cases["a"]
    *_, intensities, _, _ = DatasetFingerprintExtractor.analyze_case(
        [str(case.images[0])], str(case.label), type(read_raw_dataset("12").reader_writer())
    )
    assert len(intensities[0]) > 0


def test_empty_surroundings_are_no_image(tmp_path, raw):
    """Else plans that normalise within the nonzero region would take them into the mean."""
    array = image_like(np.zeros(SHAPE))
    array[:, :3] = 0
    array[3, 6, 5] = 0  # a hole is part of the image
    write_array(array, tmp_path / "imagesTr" / "a_0000.nii.gz")
    assert unlabelled(tmp_path / "imagesTr", "--channels", "MRI") == 0
    expected = np.ones(SHAPE)
    expected[:, :3] = 0
    assert (read_array(raw / "Dataset012_Scans" / "labelsTr" / "a.nii.gz") == expected).all()


def test_channels_are_those_of_the_dataset_beside(images, raw):
    neighbour = images.parent / "dataset.json"
    write_array(image_like(np.zeros(SHAPE)), images / "a_0001.nii.gz")
    write_array(image_like(np.zeros(SHAPE)), images / "b_1_0001.nii.gz")
    own = {"channel_names": {"1": "PET", "0": "CT"}, "overwrite_image_reader_writer": "NibabelIO"}
    neighbour.write_text(json.dumps({**DATASET_JSON, **own}))
    assert unlabelled(images) == 0
    description = json.loads((raw / "Dataset012_Scans" / "dataset.json").read_text())
    assert description["channel_names"] == {"0": "CT", "1": "PET"}
    assert description["overwrite_image_reader_writer"] == "NibabelIO"
    assert len(description["dataset"]["a"]["images"]) == 2


def test_colours_of_a_flat_image_are_channels(tmp_path, raw, capsys):
    for case in "ab":
        write_array(image_like(np.zeros((16, 16, 3))), tmp_path / "photos" / f"{case}_0000.png")
    assert unlabelled(tmp_path / "photos", "--channels", "R", "G", "B") == 0
    assert (read_array(raw / "Dataset012_Scans" / "labelsTr" / "a.png") == np.ones((16, 16))).all()
    assert "nnUNetv2_train 12 2d all" in capsys.readouterr().out


def test_channels_without_names_are_refused(images, raw, capsys):
    assert "--channels" in (message := refusal(capsys, images, raw))
    assert str(images.parent / "dataset.json") in message


def test_wrong_number_of_names_is_refused(images, raw, capsys):
    assert "has 1 channels, but 2 are named: CT, PET" in refusal(capsys, images, raw, "--channels", "CT", "PET")


def test_cases_with_different_channels_are_refused(images, raw, capsys):
    write_array(image_like(np.zeros(SHAPE)), images / "a_0001.nii.gz")
    message = refusal(capsys, images, raw, "--channels", "T1", "T2")
    assert "1 of 2 cases" in message
    assert "channels 0000 to 0001: b_1 has 0000" in message


def test_mixed_kinds_of_files_are_refused(images, raw, capsys):
    write_array(image_like(np.zeros(SHAPE)), images / "c_0000.nrrd")
    message = refusal(capsys, images, raw, "--channels", "CT")
    assert "a_0000.nii.gz, c_0000.nrrd" in message


def test_names_without_channel_number_are_refused(images, raw, capsys):
    write_array(image_like(np.zeros(SHAPE)), images / "c.nii.gz")
    assert "c.nii.gz has no channel number" in refusal(capsys, images, raw, "--channels", "CT")


def test_no_images_are_refused(tmp_path, raw, capsys):
    (tmp_path / "empty").mkdir()
    assert "has no images" in refusal(capsys, tmp_path / "empty", raw, "--channels", "CT")
    assert "is no folder" in refusal(capsys, tmp_path / "missing", raw, "--channels", "CT")


def test_images_that_cannot_be_used_are_named(images, raw, capsys):
    write_array(np.zeros(SHAPE, np.uint8), images / "b_1_0000.nii.gz")
    assert "b_1_0000.nii.gz is 0 everywhere" in refusal(capsys, images, raw, "--channels", "CT")
    (images / "b_1_0000.nii.gz").write_bytes(b"no image")
    assert "b_1_0000.nii.gz is damaged" in refusal(capsys, images, raw, "--channels", "CT")
    (images / "a_0000.nii.gz").write_bytes(b"no image")
    assert "a_0000.nii.gz is damaged" in refusal(capsys, images, raw, "--channels", "CT")


def test_four_dimensional_images_are_refused(tmp_path, raw, capsys):
    volumes = [sitk.GetImageFromArray(image_like(np.zeros(SHAPE))) for _ in range(2)]
    folder = tmp_path / "scans"
    folder.mkdir()
    sitk.WriteImage(sitk.JoinSeries(volumes), str(folder / "a_0000.nii.gz"))
    assert "four axes" in refusal(capsys, folder, raw, "--channels", "T1", "T2")


def test_nothing_is_replaced_without_force(images, raw, capsys):
    assert unlabelled(images, "--channels", "CT") == 0
    assert unlabelled(images, "--channels", "MRI") == 2
    assert "--force" in capsys.readouterr().err
    assert unlabelled(images, "--channels", "MRI", "--force") == 0
    assert json.loads((raw / "Dataset012_Scans" / "dataset.json").read_text())["channel_names"] == {"0": "MRI"}


def test_interruption_leaves_nothing(images, raw, monkeypatch):
    def interrupted(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr("nnunet_ext.preprocessing.raw.unlabelled.placeholder", interrupted)
    assert unlabelled(images, "--channels", "CT") == 130
    assert list(raw.iterdir()) == []
