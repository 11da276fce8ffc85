"""``nnunet_ext pseudo-label``: the dataset it writes, what it refuses, and how interrupted work goes on."""

import csv
import json
import shutil

import numpy as np
import pytest
import SimpleITK as sitk
from nnunetv2.experiment_planning.verify_dataset_integrity import verify_dataset_integrity
from skimage import io

from nnunet_ext.cli import main
from support.labelling import NEW, SOURCE, case_arrays

SCRIBBLES = {"background": 0, "node": 1, "ignore": 2}


@pytest.fixture
def scribbled(place, predictor):
    """The dataset with scribbles: a stroke in the node, one in the background, and the ignore label elsewhere."""
    image, label = case_arrays()
    scribbles = np.full_like(label, 2)
    scribbles[0, 0, 0], scribbles[3, 0] = 1, 0
    for number in range(3):
        place.write_case(f"case_{number}", image, scribbles)
    place.describe(labels=SCRIBBLES)
    return place


def pseudo_label(place, *arguments, source="705", models=1):
    folders = [str(place.model)] * models
    return main(["pseudo-label", *folders, "-d", source, "-o", NEW, "--device", "cpu", *arguments])


def rows(place):
    with open(place.raw / NEW / "pseudo_labels.csv", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def expected_labels(threshold):
    image, _ = case_arrays()
    expected = np.where(image >= threshold, 1, np.where(1 - image >= threshold, 0, 2))
    expected[0, 0, 0], expected[3, 0] = 1, 0
    return expected


def test_open_voxels_are_labelled_where_the_model_is_sure(scribbled, capsys):
    before = {path: path.stat().st_mtime_ns for path in scribbled.root.rglob("*") if path.is_file()}
    assert pseudo_label(scribbled, "--threshold", "0.85") == 0
    for case in ("case_0", "case_1", "case_2"):
        assert (scribbled.labels(case) == expected_labels(0.85)).all()
    assert {path: path.stat().st_mtime_ns for path in before} == before
    verify_dataset_integrity(str(scribbled.raw / NEW), num_processes=1)
    description = scribbled.read("dataset.json")
    assert description["labels"] == SCRIBBLES
    assert description["nnunet_ext"]["labelled_from"] == SOURCE
    assert description["nnunet_ext"]["models"][0]["folds"] == [0]
    (row, *_) = rows(scribbled)
    seen = (case_arrays()[0] > 0.5).sum() - 1  # the first of them is a stroke
    added = (expected_labels(0.85) == 1).sum() - 1
    assert float(row["foreground_share"]) == pytest.approx(added / seen)
    assert int(row["voxels_node"]) == added
    assert scribbled.read("splits_final.json") == json.loads(
        (scribbled.preprocessed / SOURCE / "splits_final.json").read_text()
    )
    shown = capsys.readouterr().out
    assert "Least sure, to be looked at in least_certain: case_0, case_1, case_2" in shown
    assert "nnUNetv2_plan_and_preprocess -d 706" in shown


@pytest.mark.parametrize("one_piece", [[], ["--largest-component", "foreground"]])
def test_islands_are_background_if_the_foreground_is_one_piece(scribbled, one_piece):
    image = np.zeros(case_arrays()[0].shape, np.float32)
    image[:2, :2, :2] = image[3, 4, 4:] = 0.9  # a node of two parts, both with a stroke, and an island without
    image[0, 4, 4:] = 0.9
    scribbles = np.full(image.shape, 2, np.uint8)
    scribbles[0, 0, 0] = scribbles[3, 4, 4] = 1
    scribbled.write_case("case_1", image, scribbles)
    assert pseudo_label(scribbled, *one_piece) == 0
    found = scribbled.labels("case_1")
    assert (found[0, 4, 4:] == (0 if one_piece else 1)).all()
    assert (found[:2, :2, :2] == 1).all()
    assert (found[3, 4, 4:] == 1).all(), "somebody annotated it"
    about = scribbled.read("dataset.json")["nnunet_ext"]
    assert about["largest_component"] == (one_piece[1] if one_piece else None)


def test_islands_of_cases_without_labels_are_background(unlabelled):
    scan = unlabelled.root / "new scans" / "scan_0_0000.nii.gz"
    image = sitk.ReadImage(str(scan))
    array = np.zeros(sitk.GetArrayFromImage(image).shape, np.float32)
    array[:2, :2, :2] = array[3, 4, 4:] = 0.9
    changed = sitk.GetImageFromArray(array)
    changed.CopyInformation(image)
    sitk.WriteImage(changed, str(scan))
    assert pseudo_label(unlabelled, "--largest-component", "foreground", source="707") == 0
    found = unlabelled.labels("scan_0")
    assert (found == np.where(array > 0, np.where(np.indices(array.shape)[0] < 2, 1, 0), 0)).all()


def test_the_least_certain_cases_are_drawn(scribbled):
    image, _ = case_arrays()
    scribbled.write_case("case_1", np.where(image > 0.5, 0.6, 0).astype(np.float32), np.full(image.shape, 2, np.uint8))
    assert pseudo_label(scribbled, "--least-share", "0.2") == 0
    drawn = sorted((scribbled.raw / NEW / "least_certain").iterdir())
    assert [file.name for file in drawn] == ["case_0.png", "case_2.png"]
    picture = io.imread(drawn[0])[..., :3].astype(int)
    assert (np.ptp(picture, axis=-1) > 60).any(), "a label in colour"
    assert (picture == 255).all(axis=-1).any(), "what is ignored in white"


def test_that_every_voxel_is_uncertain_is_said(unlabelled, capsys, predictor):
    for number in range(2):
        scan = unlabelled.root / "new scans" / f"scan_{number}_0000.nii.gz"
        sitk.WriteImage(sitk.ReadImage(str(scan)) * 0 + 0.5, str(scan))
    assert pseudo_label(unlabelled, source="707") == 0
    assert (unlabelled.labels("scan_0") == 2).all()
    assert "No voxel was labelled: nowhere do the models agree with a mean prob" in capsys.readouterr().out


def test_several_models_must_agree(scribbled, predictor, monkeypatch, capsys):
    second, dim = scribbled.model.with_name("nnUNetTrainerY__nnUNetPlans__3d_fullres"), []
    shutil.copytree(scribbled.model, second)
    whole = predictor.predict_from_files_sequential

    def predict(images, targets, *, save_probabilities):
        ((_, found),) = whole(images, targets, save_probabilities=save_probabilities)
        dim.append(None)
        factor = 0.5 if len(dim) % 2 == 0 else 1.0  # the second model sees every node half as bright
        return [(None, np.stack([1 - factor * found[1], factor * found[1]]))]

    monkeypatch.setattr(predictor, "predict_from_files_sequential", predict)
    models = [str(scribbled.model), str(second)]
    arguments = ["-d", "705", "-o", NEW, "--device", "cpu", "--threshold", "0.55"]
    # the first sees .9, .8, .95 as foreground, and the second sees none
    assert main(["pseudo-label", *models, *arguments]) == 0
    assert (scribbled.labels("case_0") == 1).sum() == 1  # the stroke
    assert [float(row["foreground_share"]) for row in rows(scribbled)] == [0, 0, 0]
    assert "No voxel was labelled as foreground" in capsys.readouterr().out


def test_several_folds_must_agree(scribbled, predictor):
    """Foreground is 0.7 times as probable by fold 1: where the image is 0.6 it says 0.42, though their mean is 0.51."""
    image, label = case_arrays()
    image[2, 0:2, 0:2] = 0.6
    scribbles = np.full_like(label, 2)
    scribbles[0, 0, 0] = 1
    scribbled.write_case("case_0", image, scribbles)
    assert pseudo_label(scribbled, "-f", "0", "1", "--threshold", "0.505") == 0
    found = scribbled.labels("case_0")
    assert (found[2, 0:2, 0:2] == 2).all()
    assert (found[0, 3:5, 0:3] == 1).all()  # 0.8 and 0.56
    assert predictor.calls.count("case_0") == 2  # each fold by itself
    share = float(rows(scribbled)[0]["foreground_share"])
    assert share == pytest.approx(9 / 13)  # 3 - 1 + 6 + 1 of them and the four on which the folds disagree


def test_cases_below_a_share_are_left_out(scribbled, capsys):
    image, _ = case_arrays()
    label = np.full(image.shape, 2, np.uint8)
    scribbled.write_case("case_1", np.where(image > 0.5, 0.6, 0).astype(np.float32), label)
    assert pseudo_label(scribbled, "--least-share", "0.2") == 0
    assert [row["left_out"] for row in rows(scribbled)] == ["False", "True", "False"]
    description = scribbled.read("dataset.json")
    assert sorted(description["dataset"]) == ["case_0", "case_2"]
    assert description["numTraining"] == 2
    assert not (scribbled.raw / NEW / "labelsTr" / "case_1.nii.gz").exists()
    assert scribbled.read("splits_final.json")[0] == {"train": ["case_2"], "val": ["case_0"]}
    assert "Left out: case_1" in capsys.readouterr().out


@pytest.fixture
def unlabelled(place, predictor):
    """A dataset without labels beside the annotated one."""
    images = place.root / "new scans"
    images.mkdir()
    image, _ = case_arrays()
    for number in range(2):
        written = sitk.GetImageFromArray(image * np.float32(1 - 0.01 * (number + 1)))
        sitk.WriteImage(written, str(images / f"scan_{number}_0000.nii.gz"))
    assert main(["unlabelled", str(images), "-o", "Dataset707_Unlabelled", "--channels", "MRI"]) == 0
    return place


def test_unlabelled_cases_join_the_training_parts_of_the_annotated_ones(unlabelled):
    assert pseudo_label(unlabelled, "--with", "705", source="707") == 0
    assert sorted(unlabelled.read("dataset.json")["dataset"]) == ["case_0", "case_1", "case_2", "scan_0", "scan_1"]
    assert unlabelled.read("dataset.json")["labels"] == SCRIBBLES
    assert (unlabelled.labels("case_1") == case_arrays()[1]).all()
    image, found = case_arrays()[0], unlabelled.labels("scan_0")
    assert (found[image * 0.99 >= 0.8] == 1).all()
    assert (found[image == 0] == 0).all()
    assert (found[2, 0:2, 0:2] == 2).all()
    first, second = unlabelled.read("splits_final.json")
    assert first == {"train": ["case_1", "case_2", "scan_0", "scan_1"], "val": ["case_0"]}
    assert second["val"] == ["case_1", "case_2"]
    verify_dataset_integrity(str(unlabelled.raw / NEW), num_processes=1)


def test_folds_are_those_that_trainings_read(unlabelled):
    raw = json.dumps([{"train": ["case_0"], "val": ["case_1", "case_2"]}])
    (unlabelled.source / "splits_final.json").write_text(raw)
    unlabelled.write_splits([(["case_0"], ["case_1", "case_2"]), (["case_2"], ["case_0", "case_1"])])  # split --append
    assert pseudo_label(unlabelled, "--with", "705", source="707") == 0
    new = {"train": ["case_2", "scan_0", "scan_1"], "val": ["case_0", "case_1"]}
    assert unlabelled.read("splits_final.json")[1] == new


def test_one_annotated_case_is_for_training_alone(unlabelled, capsys):
    for number in (1, 2):
        for file in (f"imagesTr/case_{number}_0000.nii.gz", f"labelsTr/case_{number}.nii.gz"):
            (unlabelled.source / file).unlink()
    (unlabelled.preprocessed / SOURCE / "splits_final.json").unlink()
    assert pseudo_label(unlabelled, "--with", "705", source="707") == 0
    shown = capsys.readouterr().out
    assert "There are no folds: the one annotated case is for training." in shown
    assert "nnUNetv2_train 706 CONFIGURATION all" in shown
    assert not (unlabelled.raw / NEW / "splits_final.json").exists()


def test_that_no_case_was_kept_beside_the_annotated_ones_is_said(unlabelled, capsys):
    strict = ["--threshold", "0.99", "--least-share", "0.5"]
    assert pseudo_label(unlabelled, *strict, "--with", "705", source="707") == 0
    assert "No case was kept: the largest share is 0.00. Do not train on this." in capsys.readouterr().out
    assert sorted(unlabelled.read("dataset.json")["dataset"]) == ["case_0", "case_1", "case_2"]
    assert [row["left_out"] for row in rows(unlabelled)] == ["True", "True"]


def test_annotated_case_among_the_unlabelled_ones_is_found_by_its_content(unlabelled, capsys):
    scan = unlabelled.root / "new scans" / "scan_1_0000.nii.gz"
    shutil.copyfile(unlabelled.source / "imagesTr" / "case_2_0000.nii.gz", scan)
    assert pseudo_label(unlabelled, "--with", "705", source="707") == 2
    assert "is the image of case_2 in Dataset705_Partial" in capsys.readouterr().err


@pytest.mark.parametrize("by", ["name", "content"])
def test_test_case_of_the_annotated_dataset_among_the_unlabelled_ones_is_refused(unlabelled, predictor, capsys, by):
    test, scan = unlabelled.source / "imagesTs", unlabelled.root / "new scans" / "scan_1_0000.nii.gz"
    test.mkdir()
    if by == "name":
        sitk.WriteImage(sitk.GetImageFromArray(case_arrays()[0]), str(test / "scan_1_0000.nii.gz"))
    else:
        shutil.copyfile(scan, test / "patient_0000.nii.gz")
    assert pseudo_label(unlabelled, "--with", "705", source="707") == 2
    said = {"name": "scan_1: cases of that name are in", "content": "is the image of patient in imagesTs of"}
    assert said[by] in capsys.readouterr().err
    assert predictor.calls == []


def test_dataset_without_an_unlabelled_case_is_refused(scribbled, capsys):
    shutil.rmtree(scribbled.source / "imagesTr")
    assert pseudo_label(scribbled) == 2
    assert "has no cases in imagesTr" in capsys.readouterr().err


def test_models_of_other_channels_are_refused(scribbled, capsys):
    scribbled.describe(model={"channel_names": {"0": "CT"}}, labels=SCRIBBLES)
    assert pseudo_label(scribbled) == 2
    assert "The model takes 1 channel (CT)" in capsys.readouterr().err


def test_interrupted_work_goes_on_with_the_case_that_was_not_finished(scribbled, predictor):
    predictor.stop_at = "case_1"
    assert pseudo_label(scribbled) == 130
    assert not (scribbled.raw / NEW).exists()
    predictor.stop_at = None
    assert pseudo_label(scribbled) == 0
    assert predictor.calls.count("case_0") == 1
    assert len(rows(scribbled)) == 3


def test_work_that_was_begun_before_an_option_was_there_goes_on(scribbled, predictor):
    predictor.stop_at = "case_1"
    assert pseudo_label(scribbled) == 130
    (request,) = scribbled.raw.rglob("*request.json")
    content = json.loads(request.read_text())
    del content["largest_component"]
    request.write_text(json.dumps(content))
    predictor.stop_at = None
    assert pseudo_label(scribbled, "--largest-component", "labels") == 2
    assert pseudo_label(scribbled) == 0
    assert predictor.calls.count("case_0") == 1


def test_what_is_predicted_is_kept_for_another_share(scribbled, predictor, capsys):
    assert pseudo_label(scribbled, "--threshold", "0.85", "--least-share", "0.9") == 2
    assert "lower --least-share" in capsys.readouterr().err
    assert pseudo_label(scribbled, "--threshold", "0.85", "--least-share", "0.3") == 0
    assert len(predictor.calls) == 3
    assert (scribbled.labels("case_1") == expected_labels(0.85)).all()
    assert not list((scribbled.raw / NEW).glob(".progress*"))


def test_case_in_which_no_model_sees_foreground_stays(scribbled):
    image, _ = case_arrays()
    scribbled.write_case("case_1", np.zeros_like(image), np.full(image.shape, 2, np.uint8))
    assert pseudo_label(scribbled, "--least-share", "0.5") == 0
    assert [row["left_out"] for row in rows(scribbled)] == ["False"] * 3
    assert (scribbled.labels("case_1") == 0).all()


def test_folds_that_cannot_be_trained_are_not_kept(scribbled, capsys):
    image, _ = case_arrays()
    scribbled.write_case("case_0", np.where(image > 0.5, 0.6, 0).astype(np.float32), np.full(image.shape, 2, np.uint8))
    assert pseudo_label(scribbled, "--least-share", "0.2") == 0
    assert not (scribbled.raw / NEW / "splits_final.json").exists()
    assert "The folds are not kept" in capsys.readouterr().out


def test_annotated_dataset_is_checked_before_anything_is_predicted(unlabelled, predictor, capsys):
    label = unlabelled.source / "labelsTr" / "case_2.nii.gz"
    label.unlink()
    assert pseudo_label(unlabelled, "--with", "705", source="707") == 2
    assert "case_2.nii.gz does not exist" in capsys.readouterr().err
    unlabelled.write_case("case_2", case_arrays()[0], np.full(case_arrays()[1].shape, 7, np.uint8))
    assert pseudo_label(unlabelled, "--with", "705", source="707") == 2
    assert "has the value 7" in capsys.readouterr().err
    assert predictor.calls == []


ORGANS = {"background": 0, "node": 1, "organ": 2}


@pytest.fixture
def partial(place, predictor, monkeypatch):
    """A dataset of which one case was annotated for all, one for nodes, one for organs, one for nothing.

    The model sees an organ in the upper half of the second slice, and nodes as its stand-in does.
    """
    image, nodes = case_arrays()
    organs = np.zeros_like(nodes)
    organs[1, :2] = 2
    annotated = {"both": nodes + organs, "nodes": nodes, "organs": organs, "nothing": np.zeros_like(nodes)}
    shutil.rmtree(place.source / "imagesTr")
    shutil.rmtree(place.source / "labelsTr")
    for part in ("imagesTr", "labelsTr"):
        (place.source / part).mkdir()
    for name, label in annotated.items():
        place.write_case(name, image, label)
    place.write_splits([(["both", "nodes"], ["organs", "nothing"]), (["organs", "nothing"], ["both", "nodes"])])
    lists = {"nodes": ["node"], "organs": ["organ"], "nothing": []}
    about = {"annotated_labels": lists, "default": ["node", "organ"]}
    place.model = place.model.rename(place.model.with_name("nnUNetTrainerPartialLabels__nnUNetPlans__3d_fullres"))
    place.describe(model={"labels": ORGANS, "nnunet_ext": about}, labels=ORGANS, nnunet_ext=about)
    whole = predictor.predict_from_files_sequential

    def predict(images, targets, *, save_probabilities):
        ((_, (background, node)),) = whole(images, targets, save_probabilities=save_probabilities)
        organ = 0.9 * (organs > 0) * background
        return [(None, np.stack([background - organ, node, organ]))]

    monkeypatch.setattr(predictor, "predict_from_files_sequential", predict)
    place.nodes, place.organs, place.about = nodes, organs, about
    return place


def test_labels_that_are_missing_in_some_cases_are_completed(partial, predictor, capsys):
    assert pseudo_label(partial, "--threshold", "0.85") == 0
    image, nodes, organs = case_arrays()[0], partial.nodes, partial.organs
    assert (partial.labels("both") == nodes + organs).all(), "it was annotated for everything"
    # nodes were looked for: what is bright elsewhere is none, and nothing else is likely there but background
    assert (partial.labels("nodes") == nodes + organs).all()
    seen = np.where(image >= 0.85, 1, np.where(1 - image >= 0.85, 0, 3))
    assert (partial.labels("nothing") == np.where(organs, organs, seen)).all()
    assert (partial.labels("organs") == np.where(organs, organs, seen)).all()
    description = partial.read("dataset.json")
    assert description["labels"] == {**ORGANS, "ignore": 3}
    assert not {"annotated_labels", "default"} & set(description["nnunet_ext"]), "every label is known, or ignored"
    verify_dataset_integrity(str(partial.raw / NEW), num_processes=1)
    kept = {row["case"]: row for row in rows(partial)}
    assert {case: int(row["voxels_organ"]) for case, row in kept.items()} == {
        "both": 0,
        "nodes": 12,
        "organs": 0,
        "nothing": 12,
    }
    assert int(kept["nodes"]["open_voxels"]) == (nodes == 0).sum()
    assert kept["both"]["foreground_share"] == ""
    assert "both: annotated in full" in capsys.readouterr().out
    assert "both" not in predictor.calls


def test_missing_labels_scribbles_and_the_ignore_label_in_one_dataset(partial, predictor):
    labels, about = {**ORGANS, "ignore": 3}, partial.about
    strokes = np.where(partial.nodes > 0, 1, 3)
    strokes[3, 0] = 0
    partial.write_case("nodes", case_arrays()[0], strokes.astype(np.uint8))
    scribbled = {**about, "scribbled": ["nodes"]}
    partial.describe(model={"labels": labels, "nnunet_ext": about}, labels=labels, nnunet_ext=scribbled)
    assert pseudo_label(partial, "--threshold", "0.85") == 0
    image = case_arrays()[0]
    between = np.where(partial.organs, 2, np.where(image >= 0.85, 1, np.where(1 - image >= 0.85, 0, 3)))
    # strokes stay; background that was drawn is no node, and may be an organ; between them all is possible
    assert (partial.labels("nodes") == np.where(strokes == 3, between, strokes)).all()
    assert partial.read("dataset.json")["labels"] == labels
    assert "scribbled" not in partial.read("dataset.json")["nnunet_ext"]


def test_annotated_cases_are_not_left_out(partial):
    """Their labels would be lost; a case that was annotated for nothing has none."""
    image = np.where(case_arrays()[0] > 0.5, 0.6, 0).astype(np.float32)
    for case in ("organs", "nothing"):
        label = partial.organs if case == "organs" else np.zeros_like(partial.organs)
        partial.write_case(case, image, label)
    assert pseudo_label(partial, "--threshold", "0.95", "--least-share", "0.9") == 0
    assert {row["case"]: row["left_out"] for row in rows(partial)} == {
        "both": "False",
        "nodes": "False",
        "nothing": "True",
        "organs": "False",
    }


def test_each_model_is_asked_what_can_be_by_the_annotation(partial):
    second = partial.model.with_name("nnUNetTrainerPartialLabelsMixUp__nnUNetPlans__3d_fullres")
    shutil.copytree(partial.model, second)
    models = [str(partial.model), str(second)]
    assert main(["pseudo-label", *models, "-d", "705", "-o", NEW, "--device", "cpu", "--threshold", "0.85"]) == 0
    assert (partial.labels("nodes") == partial.nodes + partial.organs).all()


def test_truth_of_a_simulated_annotation_and_roles_of_channels_are_kept(partial):
    roles = {"longitudinal": {"current": [0], "prior_image": [1], "prior_labels": []}}
    about = {**partial.about, **roles}
    partial.describe(model={"labels": ORGANS, "nnunet_ext": partial.about}, labels=ORGANS, nnunet_ext=about)
    shutil.copytree(partial.source / "labelsTr", partial.source / "labelsTr_dense")
    (partial.source / "labelsTr_dense" / ".ipynb_checkpoints").mkdir()
    assert pseudo_label(partial) == 0
    assert partial.read("dataset.json")["nnunet_ext"]["longitudinal"] == roles["longitudinal"]
    assert len(list((partial.raw / NEW / "labelsTr_dense").iterdir())) == 4


@pytest.mark.parametrize("command", ["complete", "simulate"])
def test_other_commands_that_copy_the_channels_keep_their_roles(place, predictor, command):
    roles = {"longitudinal": {"current": [0], "prior_image": [1], "prior_labels": []}}
    place.describe(nnunet_ext=roles)
    arguments = {
        "complete": ["complete", str(place.model), "-d", "705", "--device", "cpu"],
        "simulate": ["simulate", "instances", "705", "--keep", "1"],
    }
    assert main([*arguments[command], "-o", NEW]) == 0
    assert place.read("dataset.json")["nnunet_ext"]["longitudinal"] == roles["longitudinal"]


def test_label_that_a_case_was_not_annotated_for_and_has_is_refused_before_anything_is_predicted(
    partial, predictor, capsys
):
    partial.write_case("organs", case_arrays()[0], partial.nodes + partial.organs)
    assert pseudo_label(partial) == 2
    assert "organs.nii.gz has node, which the case was not annotated for" in capsys.readouterr().err
    assert predictor.calls == []


def test_list_of_a_case_that_is_not_there_is_refused(partial, predictor, capsys):
    lists = {"node": ["node"], "organs": ["organ"], "nothing": []}  # the case is called nodes
    about = {"annotated_labels": lists, "default": ["node", "organ"]}
    partial.describe(model={"labels": ORGANS}, labels=ORGANS, nnunet_ext=about)
    assert pseudo_label(partial) == 2
    assert "lists labels of cases that Dataset705_Partial does not have: node." in capsys.readouterr().err
    assert predictor.calls == []


def test_model_that_has_learned_missing_labels_as_background_is_refused(partial, predictor, capsys):
    partial.model = partial.model.rename(partial.model.with_name("nnUNetTrainer__nnUNetPlans__3d_fullres"))
    assert pseudo_label(partial) == 2
    assert "which it takes for background" in capsys.readouterr().err
    for about in (
        {"annotated_labels": {"a": ["node", "organ"]}, "default": ["node"]},  # three cases, and one of them is listed
        {"missing_labels": "background"},  # exported
    ):
        model = {"labels": ORGANS, "nnunet_ext": about}
        partial.describe(model=model, labels=ORGANS, nnunet_ext=partial.about)
        assert pseudo_label(partial) == 2
        assert "which it takes for background" in capsys.readouterr().err
    whole = {"annotated_labels": {name: ["node", "organ"] for name in "abc"}, "default": ["node"]}  # of no case
    for about in (whole, {}):
        model = {"labels": ORGANS, "nnunet_ext": about}
        partial.describe(model=model, labels=ORGANS, nnunet_ext=partial.about)  # of cases with every label
        assert pseudo_label(partial, "--force") == 0


def test_that_no_voxel_was_open_is_said(scribbled, predictor, capsys):
    for number in range(3):
        scribbled.write_case(f"case_{number}", *case_arrays())
    assert pseudo_label(scribbled) == 0
    assert "every voxel of every case has a label already" in capsys.readouterr().out
    assert predictor.calls == []


def test_case_in_no_list_is_refused_before_anything_is_predicted(partial, predictor, capsys):
    partial.describe(model={"labels": ORGANS}, labels=ORGANS, nnunet_ext={"annotated_labels": {"nodes": ["node"]}})
    assert pseudo_label(partial) == 2
    assert "has no list for the case both" in capsys.readouterr().err
    assert predictor.calls == []


def test_case_whose_list_has_changed_is_done_again_when_work_goes_on(partial, predictor):
    predictor.stop_at = "organs"
    assert pseudo_label(partial) == 130
    assert predictor.calls == ["nodes", "nothing"]
    predictor.stop_at = None
    lists = {**partial.about["annotated_labels"], "nothing": ["organ"]}
    about = {"annotated_labels": lists, "default": ["node", "organ"]}
    partial.describe(model={"labels": ORGANS}, labels=ORGANS, nnunet_ext=about)
    assert pseudo_label(partial) == 0
    assert predictor.calls == ["nodes", "nothing", "nothing", "organs"]
    assert not (partial.labels("nothing") == 2).any()


@pytest.mark.parametrize("command", ["complete", "review"])
def test_other_commands_refuse_labels_that_are_missing(partial, predictor, capsys, command):
    output = str(partial.root / "review") if command == "review" else NEW
    assert main([command, str(partial.model), "-d", "705", "-o", output, "--device", "cpu"]) == 2
    assert "is not annotated for every label in every case" in capsys.readouterr().err
    assert predictor.calls == []


def test_labelled_dataset_in_which_labels_are_missing_is_not_added(unlabelled, predictor, capsys):
    unlabelled.describe(nnunet_ext={"annotated_labels": {"case_0": []}, "default": ["node"]})
    assert pseudo_label(unlabelled, "--with", "705", source="707") == 2
    assert "Let `nnunet_ext pseudo-label` complete it first" in capsys.readouterr().err
    assert predictor.calls == []


def test_regions_are_refused(unlabelled, capsys):
    regions = {"background": 0, "whole": [1, 2], "node": 2}
    unlabelled.describe(model={"labels": regions})
    assert pseudo_label(unlabelled, source="707") == 2
    assert "regions (whole)" in capsys.readouterr().err


def test_forced_work_goes_on_unless_another_version_has_begun_it(scribbled, predictor, monkeypatch):
    """By which nnunet_ext self-train goes on after an upgrade."""
    predictor.stop_at = "case_1"
    assert pseudo_label(scribbled) == 130
    assert pseudo_label(scribbled, "--force") == 130
    assert predictor.calls.count("case_0") == 1
    predictor.stop_at = None
    monkeypatch.setattr("nnunet_ext.commands.pseudo_label.__version__", "999")
    assert pseudo_label(scribbled) == 2
    assert pseudo_label(scribbled, "--force") == 0
    assert predictor.calls.count("case_0") == 2


def test_work_is_not_gone_on_with_under_another_threshold(scribbled, predictor, capsys):
    predictor.stop_at = "case_1"
    assert pseudo_label(scribbled) == 130
    predictor.stop_at = None
    assert pseudo_label(scribbled, "--threshold", "0.9") == 2
    assert "they differ in: threshold" in capsys.readouterr().err
    assert pseudo_label(scribbled, "--threshold", "0.9", "--force") == 0
    assert predictor.calls.count("case_0") == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--threshold", "0.85", "--least-share", "0.9"], "Every case would be left out. The largest share is 0.33"),
        (["--with", "705"], "case_0, case_1, case_2: cases of that name are in"),
        (["-o", SOURCE], "is one of the datasets that are read"),
    ],
)
def test_what_cannot_be_labelled_is_said_and_nothing_is_written(scribbled, capsys, arguments, message):
    assert pseudo_label(scribbled, *arguments) == 2
    assert message in capsys.readouterr().err
    assert not (scribbled.raw / NEW).exists()


def test_dataset_whose_voxels_all_have_labels_is_refused(place, predictor, capsys):
    assert pseudo_label(place) == 2
    assert "Every voxel of Dataset705_Partial has a label" in capsys.readouterr().err


def test_models_of_other_labels_are_refused(scribbled, capsys):
    scribbled.describe(model={"labels": {"background": 0, "liver": 1}}, labels=SCRIBBLES)
    assert pseudo_label(scribbled) == 2
    assert "The model and Dataset705_Partial have no label in common" in capsys.readouterr().err
