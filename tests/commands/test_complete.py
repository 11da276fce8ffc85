"""``nnunet_ext complete``: the dataset it writes, what it refuses, and how interrupted work goes on.

Most tests put a stand-in in the place of nnU-Net's predictor, whose probability of foreground is the image's intensity,
so that what must come out is known. One trains a model and compares with nnU-Net's own prediction.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from nnunetv2.experiment_planning.verify_dataset_integrity import verify_dataset_integrity
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor, predict_entry_point_modelfolder
from nnunetv2.training.logging.nnunet_logger import MetaLogger
from nnunetv2.utilities.label_handling.label_handling import LabelManager
from skimage import io

from nnunet_ext.cli import main
from nnunet_ext.pseudo_labels import teachers
from nnunet_ext.pseudo_labels.completion import Rules, completed_labels
from support.labelling import NEW, ORIGIN, SHAPE, SOURCE, SPACING, Workplace, case_arrays
from support.nnunet_runs import call_entry_point, train
from support.tiny_data import dataset_name


def complete(place: Workplace, *arguments: str) -> int:
    return main(["complete", str(place.model), "-d", "705", "-o", NEW, "--device", "cpu", *arguments])


def test_unannotated_instances_are_added_and_all_else_stays(place, predictor, capsys):
    before = {path: path.stat().st_mtime_ns for path in place.root.rglob("*") if path.is_file()}
    assert complete(place, "--min-voxels", "2") == 0
    expected = case_arrays()[1]
    expected[0, 3:5, 0:3] = 1
    for case in ("case_0", "case_1", "case_2"):
        assert (place.labels(case) == expected).all()
    written = sitk.ReadImage(str(place.raw / NEW / "labelsTr" / "case_0.nii.gz"))
    assert written.GetSpacing() == pytest.approx(SPACING)
    assert written.GetOrigin() == ORIGIN
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert place.hidden() == [".made_by_nnunet_ext"]

    counts = place.read("completion.json")
    assert counts["cases"]["case_1"]["node"] == {
        "annotated_instances": 1,
        "annotated_voxels": 2,
        "found_instances": 1,
        "added_instances": 1,
        "added_voxels": 6,
        "small_instances": 1,
        "attached_voxels": 1,
        "ignored_voxels": 0,
    }
    assert counts["total"]["node"]["added_voxels"] == 18
    for label, total in counts["total"].items():
        of_cases = [found[label] for found in counts["cases"].values()]
        assert total == {name: sum(count[name] for count in of_cases) for name in total}
    shown = capsys.readouterr().out
    assert "what nnU-Net prints" not in shown
    assert "[2/3] case_1: 1 annotated, 1 added\n" in shown
    assert next(line for line in shown.splitlines() if line.startswith("node")).split() == ["node", *"33330"]
    assert "guesses of a model" in shown
    assert "nnUNetv2_plan_and_preprocess -d 706" in shown


def test_the_new_dataset_is_one_of_nnunet_and_says_where_it_is_from(place, predictor):
    assert complete(place, "--threshold", "0.3", "--disable-tta") == 0
    verify_dataset_integrity(str(place.raw / NEW), num_processes=1)
    description = place.read("dataset.json")
    assert description["labels"] == place.description["labels"]
    assert description["licence"] == "free"
    assert description["numTraining"] == 3
    assert description["dataset"]["case_0"]["images"] == [f"../{SOURCE}/imagesTr/case_0_0000.nii.gz"]
    about = description["nnunet_ext"]
    assert about["completed_from"] == SOURCE
    assert about["threshold"] == 0.3
    assert about["uncertain"] is None
    assert about["model"]["folder"] == place.model.name
    assert about["model"]["folds"] == [0]
    assert about["model"]["mirroring"] is False
    assert len(about["model"]["sha256"]["0"]) == 64
    assert place.read("completion.json")["model"] == about["model"]
    assert place.read("splits_final.json") == json.loads(
        (place.preprocessed / SOURCE / "splits_final.json").read_text()
    )


def test_uncertain_voxels_get_an_ignore_label_that_nnunet_takes(place, predictor, capsys):
    assert complete(place, "--uncertain", "0.3", "0.7", "--min-voxels", "2") == 0
    expected = case_arrays()[1]
    expected[0, 3:5, 0:3] = 1
    expected[0, 0, 2] = 2  # beyond the annotated boundary
    expected[2, 0:2, 0:2] = 2  # dim
    expected[3, 4, 5] = 2  # too small
    assert (place.labels("case_2") == expected).all()
    labels = place.read("dataset.json")["labels"]
    assert labels == {"background": 0, "node": 1, "ignore": 2}
    assert LabelManager(labels, None).ignore_label == 2
    verify_dataset_integrity(str(place.raw / NEW), num_processes=1)
    shown = capsys.readouterr().out
    assert "[3/3] case_2: 1 annotated, 1 added, 6 voxels ignored\n" in shown
    assert next(line for line in shown.splitlines() if line.startswith("node")).split()[-1] == "18"


def test_an_ignore_label_that_is_there_is_used_and_its_voxels_stay(place, predictor):
    image, label = case_arrays()
    label[0, 3:5, 0] = 2
    place.write_case("case_1", image, label)
    labels = {"background": 0, "node": 1, "ignore": 2}
    place.describe(labels=labels)  # the model may have none
    assert complete(place, "--uncertain", "0.3", "0.7") == 0
    found = place.labels("case_1")
    assert (found[0, 3:5, 0] == 2).all()
    assert (found[0, 3:5, 1:3] == 1).all()
    assert place.read("dataset.json")["labels"] == labels


def test_nothing_to_add_is_said(place, predictor, capsys):
    assert complete(place, "--threshold", "0.97") == 0
    assert "Nothing was added" in capsys.readouterr().out
    assert (place.labels("case_0") == case_arrays()[1]).all()


def test_one_case_of_a_two_dimensional_image(place, predictor):
    shutil.rmtree(place.source)
    for folder in ("imagesTr", "labelsTr"):
        (place.source / folder).mkdir(parents=True)
    image, label = np.zeros((8, 9), np.uint8), np.zeros((8, 9), np.uint8)
    label[0, :2] = 1
    image[4:6, 4:6] = 255
    io.imsave(place.source / "imagesTr" / "a_0000.png", image, check_contrast=False)
    io.imsave(place.source / "labelsTr" / "a.png", label, check_contrast=False)
    (place.model / "plans.json").write_text('{"image_reader_writer": "NaturalImage2DIO", "configurations": {}}')
    place.describe(file_ending=".png", model={"file_ending": ".png"})
    assert complete(place) == 0
    found = io.imread(place.raw / NEW / "labelsTr" / "a.png")
    assert found.dtype == np.uint8
    assert (found == label + (image == 255)).all()


def test_labels_as_whole_floats_and_dense_references_beside(place, predictor):
    image, label = case_arrays()
    place.write_case("case_0", image, label.astype(np.float32))
    for name in ("labelsTr_dense", "instancesTr"):
        (place.source / name).mkdir()
        shutil.copy(place.source / "labelsTr" / "case_1.nii.gz", place.source / name / "case_1.nii.gz")
        (place.source / name).chmod(0o555)  # read-only
    assert complete(place) == 0
    assert complete(place, "--force") == 0
    assert place.labels("case_0").sum() == 9
    for name in ("labelsTr_dense", "instancesTr"):
        copied = place.raw / NEW / name / "case_1.nii.gz"
        assert copied.read_bytes() == (place.source / name / "case_1.nii.gz").read_bytes()
        assert all(path.stat().st_mode & 0o200 for path in (copied, copied.parent)), "it can be replaced"


def test_several_folds_are_an_ensemble(place, predictor):
    assert complete(place, "-f", "0", "1", "--threshold", "0.7") == 0
    # 0.8 and 0.8 * 0.7 have the mean 0.68, 0.95 and 0.95 * 0.7 have 0.81
    assert (place.labels("case_0")[0, 3:5, 0:3] == 0).all()
    assert place.labels("case_0")[3, 4, 5] == 1
    assert place.read("dataset.json")["nnunet_ext"]["model"]["folds"] == [0, 1]


def test_out_of_fold_predicts_each_case_by_the_fold_that_has_not_seen_it(place, predictor, capsys):
    assert complete(place, "-f", "0", "1", "--threshold", "0.7", "--out-of-fold") == 0
    assert (place.labels("case_0")[0, 3:5, 0:3] == 1).all()  # by fold 0: 0.8
    assert (place.labels("case_1")[0, 3:5, 0:3] == 0).all()  # by fold 1: 0.8 * 0.7
    assert place.read("completion.json")["model"]["out_of_fold"] is True
    assert "--out-of-fold avoids" not in capsys.readouterr().out
    assert complete(place, "--force") == 0
    assert "--out-of-fold avoids" in capsys.readouterr().out


def test_interrupted_work_goes_on_with_the_case_that_was_not_finished(place, predictor, capsys):
    predictor.stop_at = "case_1"
    assert complete(place) == 130
    assert not (place.raw / NEW).exists()
    predictor.stop_at = None
    assert complete(place) == 0
    assert predictor.calls == ["case_0", "case_1", "case_2"]
    assert "[1/3] case_0: done before\n" in capsys.readouterr().out
    assert place.read("completion.json")["total"]["node"]["added_instances"] == 6
    assert place.hidden() == [".made_by_nnunet_ext"]


def test_a_case_whose_files_have_changed_is_done_again(place, predictor):
    predictor.stop_at = "case_2"
    assert complete(place) == 130
    predictor.stop_at = None
    place.write_case("case_1", *(array[:, ::-1].copy() for array in case_arrays()))
    assert complete(place) == 0
    assert predictor.calls == ["case_0", "case_1", "case_1", "case_2"]
    assert (place.labels("case_1")[:, ::-1] == place.labels("case_0")).all()


def test_unfinished_work_of_other_arguments_is_kept_unless_forced(place, predictor, capsys):
    predictor.stop_at = "case_2"
    assert complete(place) == 130
    predictor.stop_at = None
    assert complete(place, "--threshold", "0.3") == 2
    message = capsys.readouterr().err
    assert "differ in: threshold. " in message
    assert "--force" in message
    (place.model / "fold_0" / "checkpoint_final.pth").write_text("trained further")
    assert complete(place) == 2
    assert "differ in: states of the checkpoints. " in capsys.readouterr().err
    assert complete(place, "--threshold", "0.3", "--force") == 0
    assert predictor.calls == ["case_0", "case_1", "case_0", "case_1", "case_2"]
    assert place.labels("case_0")[2, 0, 0] == 1


def test_a_failure_before_the_first_case_is_done_leaves_nothing(place, predictor):
    predictor.stop_at = "case_0"
    assert complete(place) == 130
    assert place.hidden() == []
    predictor.stop_at = None
    assert complete(place, "--threshold", "0.3") == 0


def test_a_dataset_that_is_there_is_replaced_only_by_force(place, predictor, capsys):
    assert complete(place) == 0
    before = place.read("completion.json")
    assert complete(place, "--threshold", "0.3") == 2
    assert "add --force" in capsys.readouterr().err
    assert place.read("completion.json") == before
    assert predictor.calls == ["case_0", "case_1", "case_2"]
    assert complete(place, "--threshold", "0.3", "--force") == 0
    assert place.read("completion.json")["threshold"] == 0.3


def write_other_shape(place: Workplace) -> None:
    place.write_case("case_1", np.zeros(SHAPE, np.float32), np.zeros((4, 5, 7), np.uint8))


def write_unknown_value(place: Workplace) -> None:
    place.write_case("case_1", np.zeros(SHAPE, np.float32), np.full(SHAPE, 300, np.uint16))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (write_other_shape, "case_1.nii.gz has 4 x 5 x 7 voxels, but its image has 4 x 5 x 6"),
        (write_unknown_value, "case_1.nii.gz has the value 300, but the labels are 0, 1"),
    ],
)
def test_a_damaged_case_is_named_and_the_others_stay_done(place, predictor, capsys, damage, message):
    damage(place)
    assert complete(place) == 2
    assert message in capsys.readouterr().err
    assert not (place.raw / NEW).exists()
    place.write_case("case_1", *case_arrays())
    assert complete(place) == 0
    assert predictor.calls.count("case_0") == 1


def no_label(place: Workplace) -> None:
    (place.source / "labelsTr" / "case_2.nii.gz").unlink()


def no_images(place: Workplace) -> None:
    shutil.rmtree(place.source / "imagesTr")


def other_reader(place: Workplace) -> None:
    (place.model / "plans.json").write_text('{"image_reader_writer": "NibabelIOWithReorient", "configurations": {}}')


def other_model_label(place: Workplace) -> None:
    place.describe(model={"labels": {"background": 0, "node": 1, "vessel": 2}})


def other_value(place: Workplace) -> None:
    place.describe(model={"labels": {"background": 0, "node": 2, "vessel": 1}})


def gap_in_values(place: Workplace) -> None:
    labels = {"background": 0, "node": 2}
    place.describe(labels=labels, model={"labels": labels})


def regions(place: Workplace) -> None:
    labels = {"background": 0, "whole": [1, 2], "node": 2}
    place.describe(labels=labels, model={"labels": labels})


def channels(place: Workplace) -> None:
    place.describe(model={"channel_names": {"0": "MRI", "1": "CT"}})


def too_few_files(place: Workplace) -> None:
    both = {"channel_names": {"0": "MRI", "1": "CT"}}
    place.describe(**both, model=both)


def other_dataset_of_the_id(place: Workplace) -> None:
    (place.raw / "Dataset706_Other").mkdir()


def made_by_somebody(place: Workplace) -> None:
    (place.raw / NEW / "imagesTr").mkdir(parents=True)


def few_folds(place: Workplace) -> None:
    place.write_splits([(["case_0"], ["case_1"])])


def model_from_elsewhere(place: Workplace) -> None:
    moved = place.results / "Dataset001_Other" / place.model.name
    shutil.copytree(place.model, moved)
    place.model = moved


def nothing(place: Workplace) -> None:
    pass


@pytest.mark.parametrize(
    ("prepare", "arguments", "message"),
    [
        (no_label, [], "case_2.nii.gz of case case_2 of Dataset705_Partial does not exist"),
        (no_images, [], "has no cases in imagesTr"),
        (other_reader, [], "reads images by NibabelIOWithReorient, and Dataset705_Partial is read by SimpleITKIO"),
        (other_model_label, [], "only the model has vessel; only the dataset has none"),
        (other_value, [], "'node' has the value 2 in the model and 1 in Dataset705_Partial"),
        (gap_in_values, [], "have the values 2, not 1, 2, 3"),
        (regions, [], "has regions (whole)"),
        (channels, [], "takes 2 channels (MRI, CT), but Dataset705_Partial has 1"),
        (too_few_files, [], "Case case_0 of Dataset705_Partial has 1 images"),
        (other_dataset_of_the_id, ["--force"], "The id 706 is taken by"),
        (made_by_somebody, ["--force"], "this package did not make it"),
        (few_folds, ["-f", "0", "--out-of-fold"], "has trained on 1 of 3 cases, e.g. on case_0"),
        (few_folds, ["-f", "1", "--out-of-fold"], "has no fold 1; it has 1 fold"),
        (model_from_elsewhere, ["--out-of-fold"], "was trained on Dataset001_Other, and not on Dataset705_Partial"),
        (nothing, ["-f", "3"], "has: fold_0/checkpoint_final.pth, fold_1/checkpoint_final.pth"),
        (nothing, ["-d", "999"], "Dataset 999 is not in"),
        (nothing, ["-o", "Completed"], "'Completed' cannot name a dataset of nnU-Net"),
        (nothing, ["-o", SOURCE], "is the dataset that is to be completed"),
        (nothing, ["--threshold", "1.5"], "threshold is 1.5"),
        (nothing, ["--uncertain", "0.6", "0.9"], "uncertain range is 0.6 to 0.9 with the threshold 0.5"),
    ],
)
def test_what_cannot_be_completed_is_said_before_anything_is_done(
    place, monkeypatch, capsys, prepare, arguments, message
):
    monkeypatch.setattr(teachers, "load_predictor", lambda *_, **__: pytest.fail("the model was loaded"))
    prepare(place)
    before = sorted(place.root.rglob("*"))
    assert complete(place, *arguments) == 2
    assert message in capsys.readouterr().err
    assert sorted(place.root.rglob("*")) == before


def test_a_dataset_that_this_package_made_is_not_completed_into_itself(place, predictor, capsys):
    (place.source / ".made_by_nnunet_ext").write_text("complete")
    assert complete(place, "-o", SOURCE, "--force") == 2
    assert "is the dataset that is to be completed" in capsys.readouterr().err
    assert place.labels("case_0", SOURCE).sum() == 2


@pytest.mark.parametrize("arguments", [["--min-voxels", "0"], ["--uncertain", "0.3"], ["-f", "x"]])
def test_wrong_usage_exits_with_two(place, arguments):
    with pytest.raises(SystemExit) as stop:
        complete(place, *arguments)
    assert stop.value.code == 2


@pytest.fixture(scope="module")
def trained(workspace: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of two folds, of one epoch each."""
    folder = tmp_path_factory.mktemp("results")
    patch = pytest.MonkeyPatch()
    patch.setenv("nnUNet_results", str(folder))
    patch.setenv("nnUNet_n_proc_DA", "0")
    patch.setattr(MetaLogger, "plot_progress_png", lambda self, output_folder: None)
    for fold in (0, 1):
        train("nnUNetTrainerConfigurable", fold=fold)
    patch.undo()
    return folder / dataset_name("labels") / "nnUNetTrainerConfigurable__nnUNetPlans__3d_tiny"


@pytest.fixture
def partial(workspace: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the tiny dataset in which only a corner of the annotation is left."""
    raw = tmp_path / "raw"
    folder = raw / dataset_name("labels")
    shutil.copytree(workspace.raw / dataset_name("labels"), folder)
    for file in (folder / "labelsTr").iterdir():
        image = sitk.ReadImage(str(file))
        labels = sitk.GetArrayFromImage(image)
        labels[8:] = 0
        written = sitk.GetImageFromArray(labels)
        written.CopyInformation(image)
        sitk.WriteImage(written, str(file))
    monkeypatch.setenv("nnUNet_raw", str(raw))
    return folder


@pytest.mark.parametrize("folds", [["0"], ["0", "1"]])
def test_labels_are_those_that_nnunets_own_probabilities_give(trained, partial, tmp_path, capsys, folds):
    call_entry_point(
        predict_entry_point_modelfolder,
        ["-i", str(partial / "imagesTr"), "-o", str(tmp_path / "out"), "-m", str(trained), "-f", *folds]
        + ["-device", "cpu", "--save_probabilities", "-npp", "1", "-nps", "1"],
    )
    capsys.readouterr()
    arguments = ["--threshold", "0.65", "--uncertain", "0.6", "0.7", "--device", "cpu"]
    assert main(["complete", str(trained), "-d", "901", "-o", "Dataset907_C", "-f", *folds, *arguments]) == 0
    assert "Searching" not in capsys.readouterr().out
    values = set()
    for number in range(5):
        name = f"case_{number}"
        probabilities = np.load(tmp_path / "out" / f"{name}.npz")["probabilities"]
        labels = sitk.GetArrayFromImage(sitk.ReadImage(str(partial / "labelsTr" / f"{name}.nii.gz")))
        expected, _ = completed_labels(
            labels, probabilities, foreground=[1, 2], ignore=3, rules=Rules(0.65, (0.6, 0.7))
        )
        found = sitk.GetArrayFromImage(
            sitk.ReadImage(str(partial.parent / "Dataset907_C" / "labelsTr" / f"{name}.nii.gz"))
        )
        assert (found == expected).all()
        values |= set(np.unique(found[labels == 0]).tolist())
    assert len(values) > 1  # something was added or ignored
    verify_dataset_integrity(str(partial.parent / "Dataset907_C"), num_processes=1)


def test_out_of_fold_loads_the_checkpoint_of_the_fold_that_validated_the_case(trained, partial, monkeypatch):
    used: dict[str, Any] = {}

    def noted(self: nnUNetPredictor, images: Any, targets: None, *, save_probabilities: bool) -> Any:
        ((file,),) = images
        (used[Path(file).name.partition("_0000")[0]],) = self.list_of_parameters
        shape = sitk.GetArrayFromImage(sitk.ReadImage(file)).shape
        return [(None, np.full((3, *shape), 1 / 3, np.float32))]

    monkeypatch.setattr(nnUNetPredictor, "predict_from_files_sequential", noted)
    for case in ("case_2", "case_3", "case_4"):  # folds 2 to 4, which are not trained, validate these
        (partial / "imagesTr" / f"{case}_0000.nii.gz").unlink()
    arguments = ["-f", "0", "1", "--out-of-fold", "--device", "cpu"]
    assert main(["complete", str(trained), "-d", "901", "-o", "Dataset907_C", *arguments]) == 0
    for fold, (case, other) in enumerate((("case_0", "case_1"), ("case_1", "case_0"))):
        checkpoint = torch.load(trained / f"fold_{fold}" / "checkpoint_final.pth", weights_only=False)
        weights = checkpoint["network_weights"]
        assert all(torch.equal(used[case][key], weights[key]) for key in weights)
        assert not all(torch.equal(used[other][key], weights[key]) for key in weights)
