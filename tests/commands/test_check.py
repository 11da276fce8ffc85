"""``nnunet_ext check``: what it finds in a dataset for a trainer, on one page."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from nnunet_ext.cli import main
from nnunet_ext.registry import TRAINERS
from support.raw_datasets import SPACING, write_array, write_raw

SHAPE = (4, 10, 10)
EMPTY = np.zeros(SHAPE, np.uint8)
FINDINGS = ("ok", "warning", "problem")


def with_lesions(*sizes: int, value: int = 1) -> np.ndarray:
    """A row of voxels of each size, three rows apart."""
    labels = EMPTY.copy()
    for number, size in enumerate(sizes):
        labels[1, 3 * number, :size] = value
    return labels


@pytest.fixture
def folder(raw: Path) -> Path:
    return raw / "Dataset005_Some"


class Page:
    """What a check prints, as findings by title."""

    def __init__(self, status: int, text: str) -> None:
        self.status, self.text = status, text
        self.findings: dict[str, str] = {}
        self.severity: dict[str, str] = {}
        title = ""
        for line in text.splitlines()[2:]:
            if line.startswith(FINDINGS):
                severity, title = line[:7].strip(), line[9:28].strip()
                title = f"{title} again" if title in self.findings else title
                self.findings[title], self.severity[title] = line[30:], severity
            elif line.startswith(" ") and title:
                self.findings[title] += f" {line.strip()}"


@pytest.fixture
def check(capsys):
    def run(trainer: str = "nnUNetTrainerDBDMP") -> Page:
        status = main(["check", "-d", "5", "--trainer", trainer])
        return Page(status, capsys.readouterr().out)

    return run


def test_good_dataset_is_described_by_hand(folder, check):
    write_raw(folder, {"a": with_lesions(2, 4, 8), "b": with_lesions(3)})
    page = check()
    assert page.status == 0
    assert set(page.severity.values()) == {"ok"}
    assert page.findings["dataset.json"] == "2 cases, channel MRI, 1 label."
    assert page.findings["instances of 1"] == (
        "lesion: 4 in 2 of 2 cases; 1, 2, 3 in a case that has any (minimum, median, maximum); "
        "2, 3.5, 8 voxels each (minimum, median, maximum)."
    )
    assert page.text.endswith("No problem found.\n")
    assert len(page.text.splitlines()) < 40


@pytest.mark.parametrize("trainer", [entry.name for entry in TRAINERS])
def test_every_trainer_has_a_check(folder, check, trainer):
    # two scans, for those that need a prior; un-annotated voxels, for those that learn from scribbles
    labels = with_lesions(2)
    labels[3] = 2
    names = {"background": 0, "lesion": 1, "ignore": 2}
    write_raw(folder, {"a": labels}, names=names, channels=("MRI", "prior MRI"))
    page = check(trainer)
    assert page.status == 0
    assert {"dataset.json", "files", "images", "label values", "geometry"} <= set(page.findings)


def test_unknown_trainer_is_told_the_known_ones(folder, capsys):
    assert main(["check", "-d", "5", "--trainer", "nnUNetTrainer"]) == 2
    message = capsys.readouterr().err
    assert "'nnUNetTrainer'" in message
    assert all(entry.name in message for entry in TRAINERS)


def test_cases_without_annotation_are_named(folder, check):
    write_raw(folder, {"a": with_lesions(2), **{f"empty{number}": EMPTY for number in range(7)}})
    page = check()
    assert page.status == 0
    assert page.severity["annotation"] == "warning"
    assert "7 of 8 cases" in page.findings["annotation"]
    assert "empty0, empty1, empty2, empty3, empty4 and 2 more" in page.findings["annotation"]
    assert page.text.endswith("1 warning found.\n")


@pytest.mark.parametrize("trainer", ["nnUNetTrainerDBDMP", "nnUNetTrainerMixUp"])
def test_dataset_without_foreground_is_a_problem(folder, check, trainer):
    write_raw(folder, {"a": EMPTY, "b": EMPTY})
    page = check(trainer)
    assert page.status == 1
    assert page.severity["foreground"] == "problem"
    assert "annotation" not in page.findings


def test_fold_that_trains_on_nothing_is_a_problem(folder, check, tmp_path, monkeypatch):
    write_raw(folder, {"a": with_lesions(2), "b": EMPTY, "c": EMPTY})
    folds = [{"train": ["a", "b"], "val": ["c"]}, {"train": ["b", "c"], "val": ["a"]}]
    (folder / "splits_final.json").write_text(json.dumps(folds))
    page = check()
    assert page.status == 1
    assert page.findings["folds again"].startswith("fold 1 has no training case with an annotated instance: b, c")
    # what training reads comes first
    preprocessed = tmp_path / "preprocessed" / folder.name
    preprocessed.mkdir(parents=True)
    (preprocessed / "splits_final.json").write_text(json.dumps(folds[:1]))
    monkeypatch.setenv("nnUNet_preprocessed", str(preprocessed.parent))
    assert check().status == 0


def test_folds_that_name_other_cases_or_nothing_are_a_problem(folder, check):
    write_raw(folder, {"a": with_lesions(2)})
    file = folder / "splits_final.json"
    file.write_text('[{"train": ["a", "x"], "val": ["y"]}]')
    page = check("nnUNetTrainerMixUp")
    assert page.status == 1
    assert page.findings["folds"].endswith("names cases that the dataset does not have: x, y.")
    file.write_text("{}")
    page = check()
    assert page.severity["folds"] == "problem"
    assert "is no split of nnU-Net" in page.findings["folds"]


def test_regions_are_a_problem_for_dbdmp_alone(folder, check):
    labels = with_lesions(2, 3)
    labels[2] = 2
    write_raw(
        folder,
        {"a": labels},
        names={"background": 0, "whole": [1, 2], "core": 2},
        regions_class_order=[1, 2],
    )
    page = check()
    assert page.status == 1
    assert "has regions (whole)" in page.findings["regions"]
    page = check("nnUNetTrainerMixUp")
    assert page.status == 0
    assert page.findings["dataset.json"] == "1 case, channel MRI, 2 regions."


def test_ignore_label_is_explained_and_no_instance(folder, check):
    labels = with_lesions(2)
    labels[3] = 2
    write_raw(folder, {"a": labels, "b": with_lesions(1)}, names={"background": 0, "lesion": 1, "ignore": 2})
    page = check()
    assert page.status == 0
    assert page.findings["ignore"].startswith("1 of 2 cases have voxels of it (2).")
    assert "lesion: 2 in 2 of 2 cases" in page.findings["instances of 1"]
    assert not any("instances of 2" in title for title in page.findings)


def test_label_that_no_case_has_is_a_warning(folder, check):
    write_raw(folder, {"a": with_lesions(2)}, names={"background": 0, "lesion": 1, "node": 2})
    page = check()
    assert page.status == 0
    assert page.severity["foreground"] == "warning"
    assert "node (2)" in page.findings["foreground"]


def test_values_that_dataset_json_does_not_list_are_a_problem(folder, check):
    write_raw(folder, {"a": with_lesions(2), "b": with_lesions(2, value=7)})
    page = check()
    assert page.status == 1
    assert "wrong in 1 of 2 cases (b)" in page.findings["label values"]
    assert "values that dataset.json does not list: 7" in page.findings["label values"]


def test_fractional_labels_are_a_problem_and_whole_floats_are_not(folder, check):
    write_raw(folder, {"a": with_lesions(2).astype(np.float32), "b": with_lesions(2) * np.float32(0.5)})
    page = check()
    assert page.status == 1
    assert "wrong in 1 of 2 cases (b)" in page.findings["label values"]
    assert "0.5" in page.findings["label values"]


def test_labels_above_255_are_fine(folder, check):
    labels = np.arange(400, dtype=np.uint16).reshape(SHAPE) % 301
    names = {"background": 0, **{f"label{value}": value for value in range(1, 301)}}
    write_raw(folder, {"a": labels}, names=names)
    assert check("nnUNetTrainerMixUp").status == 0
    page = check()
    assert page.status == 0
    assert "label300: 1 in 1 of 1 cases" in page.text


def test_labels_with_gaps_are_a_problem_of_dataset_json(folder, check):
    write_raw(folder, {"a": with_lesions(2)}, names={"background": 0, "lesion": 1, "other": 3})
    page = check()
    assert page.status == 1
    assert list(page.findings) == ["dataset.json"]
    assert "found: 0, 1, 3" in page.findings["dataset.json"]


@pytest.mark.parametrize(
    ("names", "highest"),
    [
        ({"background": 0, "ignore": 1, "lesion": 2}, 2),
        ({"background": 0, "lesion": 1, "ignore": 255}, 2),
        ({"background": 0, "whole": [1, 2], "core": 2, "ignore": 2}, 3),
    ],
)
def test_ignore_label_that_is_not_the_highest_is_a_problem_of_dataset_json(folder, check, names, highest):
    write_raw(folder, {"a": with_lesions(2)}, names=names, regions_class_order=[1, 2])
    page = check()
    assert page.status == 1
    assert list(page.findings) == ["dataset.json"]
    assert f"the ignore label has the value {names['ignore']}." in page.findings["dataset.json"]
    assert f"needs the highest without a gap, {highest} here" in page.findings["dataset.json"]


def test_labels_that_nnunet_does_not_take_are_a_problem_of_dataset_json(folder, check):
    write_raw(folder, {"a": with_lesions(2)}, names={"lesion": 1})
    page = check()
    assert page.status == 1
    assert "Background label not declared" in page.findings["dataset.json"]


@pytest.mark.parametrize("key", ["labels", "channel_names", "file_ending"])
def test_incomplete_dataset_json_is_told(folder, capsys, key):
    write_raw(folder, {"a": with_lesions(2)})
    file = folder / "dataset.json"
    file.write_text(json.dumps({name: value for name, value in json.loads(file.read_text()).items() if name != key}))
    assert main(["check", "-d", "5", "--trainer", "nnUNetTrainerDBDMP"]) == 2
    message = capsys.readouterr().err
    assert "dataset.json" in message
    assert f"has no {key}" in message or f"{key}: is missing" in message


def test_files_that_are_missing_or_broken_are_a_problem(folder, check):
    write_raw(folder, {case: with_lesions(2) for case in "abcd"}, channels=("T1", "T2"))
    (folder / "labelsTr" / "b.nii.gz").unlink()
    (folder / "imagesTr" / "c_0001.nii.gz").unlink()
    (folder / "imagesTr" / "d_0000.nii.gz").write_bytes(b"no image")
    page = check()
    assert page.status == 1
    assert "wrong in 1 of 4 cases (b)" in page.findings["files"]
    assert "wrong in 2 of 4 cases (c, d)" in page.findings["images"]
    assert "1 channels, but dataset.json names 2" in page.findings["images"]
    (folder / "imagesTr" / "a_0000.nii.gz").write_bytes(b"no image")
    page = check()
    assert page.status == 1
    assert page.severity["images"] == "problem"
    assert "a_0000.nii.gz is damaged" in page.findings["images"]


def test_labels_that_do_not_fit_their_images_are_a_problem(folder, check):
    write_raw(folder, {case: with_lesions(2) for case in "abc"})
    write_array(with_lesions(2)[:3], folder / "labelsTr" / "b.nii.gz")
    write_array(with_lesions(2), folder / "labelsTr" / "c.nii.gz", (SPACING[0], SPACING[1], 2.0))
    page = check("nnUNetTrainerConfigurable")
    assert page.status == 1
    assert "wrong in 2 of 3 cases (b, c)" in page.findings["geometry"]
    assert "b: image (4, 10, 10), labels (3, 10, 10) voxels" in page.findings["geometry"]


def test_image_values_that_are_no_numbers_are_a_problem(folder, check):
    write_raw(folder, {"a": with_lesions(2)}, ending=".mha")
    image = np.ones(SHAPE, np.float32)
    image[0, 0, 0] = np.nan
    write_array(image, folder / "imagesTr" / "a_0000.mha")
    assert "(NaN)" in check("nnUNetTrainerMixUp").findings["images"]


@pytest.mark.parametrize("pretraining", ["nnUNetTrainerModelsGenesis", "nnUNetTrainerVolumeFusion", "nnUNetTrainerMAE"])
def test_pretraining_takes_anything_and_knows_placeholders(folder, check, pretraining):
    write_raw(folder, {"a": with_lesions(2)})
    page = check(pretraining)
    assert page.status == 0
    assert "pre-training does not look at them" in page.findings["labels"]
    write_raw(folder, {"a": np.ones(SHAPE, np.uint8)})
    assert "are placeholders" in check(pretraining).findings["labels"]
    write_raw(folder, {"a": EMPTY})
    page = check(pretraining)
    assert (page.status, page.severity["labels"]) == (0, "warning")
    assert "$ nnunet_ext unlabelled" in page.text


def test_what_unlabelled_makes_is_known_as_placeholders(folder, check, raw):
    images = write_raw(raw / "Dataset004_Images", {"a": EMPTY}) / "imagesTr"
    image = np.ones(SHAPE, np.uint8)
    image[:, :2] = 0
    write_array(image, images / "a_0000.nii.gz")
    assert main(["unlabelled", str(images), "-o", folder.name]) == 0
    assert "are placeholders" in check("nnUNetTrainerModelsGenesis").findings["labels"]


def test_flat_images_are_checked(folder, check):
    labels = np.zeros((16, 16), np.uint8)
    labels[:2, :2] = labels[8:9, 8:9] = 1
    write_raw(folder, {"a": labels}, ending=".png")
    page = check()
    assert page.status == 0
    assert "lesion: 2 in 1 of 1 cases" in page.findings["instances of 1"]


def test_masks_in_colour_are_a_problem_of_their_labels(folder, check):
    labels = np.zeros((16, 16), np.uint8)
    labels[:2, :2] = 1
    write_raw(folder, {"a": labels, "b": labels}, ending=".png")
    write_array(np.stack([labels * 255, labels, labels], axis=-1), folder / "labelsTr" / "b.png")
    page = check()
    assert page.status == 1
    assert "wrong in 1 of 2 cases (b)" in page.findings["label values"]
    assert "b.png is a picture in colour" in page.findings["label values"]
    assert "2 colours: (0, 0, 0), (255, 1, 1)" in page.findings["label values"]


def test_grey_values_of_pictures_are_told_with_the_numbers_to_write(folder, check):
    labels = np.zeros((16, 16), np.uint8)
    labels[:2, :2] = 1
    names = {"background": 0, "lesion": 1, "ignore": 2}
    white, grey = labels * np.uint8(255), labels * np.uint8(127)
    write_raw(folder, {"a": labels, "b": grey, "c": white}, names=names, ending=".png")
    page = check()
    assert page.status == 1
    assert "wrong in 2 of 3 cases (b, c)" in page.findings["label values"]
    assert (
        "write 0 for 0, 1 for 127, 2 for 255, with NumPy: np.searchsorted([0, 127, 255], labels)."
        in (page.findings["label values"])
    )


def test_smoothed_grey_values_are_told_as_such(folder, check):
    labels = np.zeros((16, 16), np.uint8)
    labels[:2, :4] = (255, 200, 100, 20)
    write_raw(folder, {"a": labels}, ending=".png")
    found = check().findings["label values"]
    assert "grey values of a picture, 5 of them where dataset.json has 2 labels: it was smoothed" in found
    assert "searchsorted" not in found


def test_stock_training_is_told_of_cases_without_annotated_background(folder, check):
    labels = np.full_like(EMPTY, 2)
    labels[1, 1, 1:4] = 1
    write_raw(folder, {"a": labels}, names={"background": 0, "lesion": 1, "ignore": 2})
    page = check("nnUNetTrainerConfigurable")
    assert (page.status, page.severity["background"]) == (1, "problem")
    assert check("nnUNetTrainerMixUp").status == 0


@pytest.mark.parametrize(("value", "words"), [(np.nan, "not a number"), (np.inf, "infinite")])
def test_voxels_that_are_not_finite_are_a_problem(folder, check, value, words):
    write_raw(folder, {case: with_lesions(2, 4) for case in "ab"}, ending=".mha")
    image = np.ones(SHAPE, np.float32)
    image[0, 0, 0] = value
    write_array(image, folder / "imagesTr" / "b_0000.mha")
    page = check()
    assert page.severity["images"] == "problem"
    assert words in page.findings["images"]


def test_hidden_files_that_nnunet_takes_for_cases_are_a_problem(folder, check):
    write_raw(folder, {case: with_lesions(2, 4) for case in "ab"})
    (folder / "imagesTr" / "._a_0000.nii.gz").touch()
    (folder / "imagesTr" / "scan.nii.gz").touch()
    page = check()
    assert page.severity["names of files"] == "problem"
    assert "._a_0000.nii.gz, scan.nii.gz" in page.findings["names of files"]
    assert "2 cases" in page.findings["dataset.json"]


def test_labels_elsewhere_in_the_patient_are_a_warning(folder, check):
    write_raw(folder, {case: with_lesions(2, 4) for case in "ab"})
    file = folder / "labelsTr" / "b.nii.gz"
    labels = sitk.ReadImage(file)
    labels.SetOrigin((5.0, 0.0, 0.0))
    sitk.WriteImage(labels, file)
    page = check()
    assert page.severity["place"] == "warning"
    assert "the origins of image and labels differ: 0 0 0 and 5 0 0" in page.findings["place"]
    assert page.severity["geometry"] == "ok"


@pytest.mark.parametrize(
    ("fold", "words"),
    [
        ({"train": ["a", "b"], "val": []}, "fold 1 in .* has no val case"),
        ({"train": [], "val": ["a"]}, "fold 1 in .* has no train case"),
        ({"train": ["a", "b"], "val": ["b"]}, "trains and validates on the same cases: b"),
        ({"train": ["a", "a"], "val": ["b"]}, "names cases twice under train: a"),
    ],
)
def test_folds_by_hand_are_looked_at(folder, check, fold, words):
    write_raw(folder, {case: with_lesions(2, 4) for case in "ab"})
    (folder / "splits_final.json").write_text(json.dumps([{"train": ["a"], "val": ["b"]}, fold]))
    page = check()
    assert page.severity["folds"] == "problem"
    assert re.search(words, page.findings["folds"])
