"""Each kind of results is found out and read; what is missing is said."""

from __future__ import annotations

import json
import shutil

import pytest

from nnunet_ext.errors import UserError
from nnunet_ext.evaluation.bootstrap import paired_differences
from nnunet_ext.evaluation.metrics import DICE
from nnunet_ext.evaluation.scores_table import NUMBERS, labels_with, seed_scores
from nnunet_ext.report.runs import as_runs, boards
from nnunet_ext.report.sources import read_results_folder
from support.made_results import (
    DATASET,
    DATASET_JSON,
    evaluated_set,
    write_checkpoint,
    write_evaluation,
    write_model,
    write_predictions,
    write_raw,
)


@pytest.fixture(autouse=True)
def raw(tmp_path):
    return write_raw(tmp_path, [f"case_{number}" for number in range(6)])


def parts(outcome, label, case, metric="dice"):
    """Numerator and denominator of a score."""
    return tuple(outcome.scores.set_index(["label", "case", "metric"]).loc[(label, case, metric), list(NUMBERS)])


def test_model_folder_is_a_cross_validation_of_all_its_folds(tmp_path):
    folds = {0: {"case_0": 0, "case_1": 1}, 1: {"case_2": 2}, 10: {"case_3": 1}}
    source = read_results_folder(write_model(tmp_path, folds))
    (outcome,) = source.outcomes
    assert outcome.cases_of == f"{DATASET}_val"
    assert list(outcome.files) == ["case_0", "case_1", "case_2", "case_3"]
    assert parts(outcome, "lesion", "case_2") == (pytest.approx(1 / 3), 1)
    assert [label.values for label in outcome.labels] == [(1,), (2,)]
    assert list(source.trainings) == ["fold 0", "fold 1", "fold 10"]
    assert source.name == "Example, 3d_short"
    assert source.remarks == ()


def test_scores_of_labels_that_were_not_annotated_are_told(tmp_path):
    model = write_model(tmp_path, {0: {"case_1": 0, "case_2": 1}})
    for lists, told in (({"case_2": ["liver"]}, 1), ({"case_1": ["liver", "lesion"]}, 0)):
        block = {"annotated_labels": lists, "default": ["liver", "lesion"]}
        (model / "dataset.json").write_text(json.dumps(DATASET_JSON | {"nnunet_ext": block}))
        remarks = read_results_folder(model).remarks
        assert len(remarks) == told
        assert all(one.startswith("1 case with labels that nobody annotated: ") for one in remarks)


def test_labels_that_were_not_annotated_are_in_no_comparison(tmp_path):
    """There nnU-Net's trainer has 0 if it finds the organ, and ours no score: against a rule, that is a gain of 1."""
    models = [write_model(tmp_path, {0: {"case_1": 0, "case_2": 1}}, trainer=f"nnUNetTrainer{n}") for n in "AB"]
    block = {"annotated_labels": {"case_1": ["liver", "lesion"], "case_2": ["liver"]}}
    sources = []
    for model, of_missing in zip(models, (None, 0.0)):
        (model / "dataset.json").write_text(json.dumps(DATASET_JSON | {"nnunet_ext": block}))
        file = model / "fold_0" / "validation" / "summary.json"
        summary = json.loads(file.read_text())
        summary["metric_per_case"][1]["metrics"]["2"]["Dice"] = of_missing
        file.write_text(json.dumps(summary))
        sources.append(read_results_folder(model))
    (board,) = boards(as_runs([(None, source) for source in sources]))
    ours, theirs = (
        [seed_scores(one.scores, DICE, list(one.files), labels_with(one.scores, DICE)) for one in column.seeds]
        for column in board.columns
    )
    assert paired_differences(ours, theirs) == {"case_1": 0.0, "case_2": 0.0}
    predictions = models[1] / "fold_0" / "validation"
    for file in (models[1] / "dataset.json", predictions / "summary.json"):
        shutil.copy(file, tmp_path / file.name)
    raw = tmp_path / "nnUNet_raw" / DATASET / "dataset.json"
    raw.write_text(json.dumps(DATASET_JSON | {"nnunet_ext": block}))
    (outcome,) = read_results_folder(tmp_path).outcomes
    assert len(outcome.scores) == 3


@pytest.mark.parametrize(
    ("references", "kept"),
    [
        ("labelsTr", 4),  # case_1 is listed without the lesion, and case_2 is not listed
        ("gt_segmentations", 4),
        ("labelsTs", 5),  # the default is about cases for training
        ("labelsTr_dense", 6),
    ],
)
def test_scores_are_left_out_by_the_rule_of_evaluate(tmp_path, raw, references, kept):
    predictions = tmp_path / "predictions"
    write_predictions(predictions, raw, dict.fromkeys(("case_1", "case_2", "case_3"), 1))
    summary = predictions / "summary.json"
    summary.write_text(summary.read_text().replace("/labelsTr/", f"/{references}/"))
    (predictions / "dataset.json").write_text(json.dumps(DATASET_JSON))
    block = {"annotated_labels": {"case_1": ["liver"], "case_3": ["liver", "lesion"]}, "default": ["liver"]}
    (raw / "dataset.json").write_text(json.dumps(DATASET_JSON | {"nnunet_ext": block}))
    source = read_results_folder(predictions)
    assert len(source.outcomes[0].scores) == kept
    assert len(source.remarks) == (1 if kept == 6 else 2)


def test_fold_folder_is_its_own_cases_alone(tmp_path):
    model = write_model(tmp_path, {0: {"case_0": 0}, 1: {"case_1": 0}})
    for path in (model / "fold_1", model / "fold_1" / "validation", model / "fold_1" / "validation" / "summary.json"):
        source = read_results_folder(path)
        assert list(source.outcomes[0].files) == ["case_1"]
        assert list(source.trainings) == ["fold 1"]
        assert source.name == "Example, 3d_short, fold 1"


def test_files_of_cases_are_found_beside_the_results(tmp_path, raw):
    (outcome,) = read_results_folder(write_model(tmp_path, {0: {"case_1": 1}})).outcomes
    files = outcome.files["case_1"]
    assert files.image == raw / "imagesTr" / "case_1_0000.nii.gz"
    assert files.reference == raw / "labelsTr" / "case_1.nii.gz"
    assert files.prediction.is_file()


def test_files_are_found_by_the_environment_variable(tmp_path, raw, monkeypatch):
    model = write_model(tmp_path, {0: {"case_1": 1}})
    elsewhere = tmp_path / "else where"
    elsewhere.mkdir()
    shutil.move(raw, elsewhere / DATASET)
    assert read_results_folder(model).outcomes[0].files["case_1"].image is None
    monkeypatch.setenv("nnUNet_raw", str(elsewhere))
    files = read_results_folder(model).outcomes[0].files["case_1"]
    assert files.image == elsewhere / DATASET / "imagesTr" / "case_1_0000.nii.gz"
    assert files.reference == elsewhere / DATASET / "labelsTr" / "case_1.nii.gz"


def test_files_that_dataset_json_lists_are_found(tmp_path, raw):
    (raw / "scan.nii.gz").write_bytes((raw / "imagesTr" / "case_1_0000.nii.gz").read_bytes())
    listed = {"case_1": {"images": ["scan.nii.gz"], "label": "labelsTr/case_1.nii.gz"}}
    (raw / "dataset.json").write_text(json.dumps({**DATASET_JSON, "dataset": listed}))
    files = read_results_folder(write_model(tmp_path, {0: {"case_1": 1}})).outcomes[0].files["case_1"]
    assert files.image.resolve() == (raw / "scan.nii.gz").resolve()


def test_results_that_were_moved_find_their_predictions(tmp_path):
    model = write_model(tmp_path, {0: {"case_1": 1}})
    moved = tmp_path / "backup" / DATASET / model.name
    moved.parent.mkdir(parents=True)
    shutil.move(model, moved)
    (outcome,) = read_results_folder(moved).outcomes
    assert outcome.files["case_1"].prediction == moved / "fold_0" / "validation" / "case_1.nii.gz"


def test_evaluation_has_an_outcome_for_each_data_set_with_all_its_metrics(tmp_path, raw):
    model = write_model(tmp_path, {0: {"case_0": 0}})
    values = {"case_0": {"liver": 0.8, "lesion": None}, "case_1": {"liver": 0.4, "lesion": 0.5}}
    sets = [evaluated_set(values), evaluated_set(values, dataset="Dataset001_Other")]
    source = read_results_folder(write_evaluation(tmp_path / "out", sets, model=model))
    first, second = source.outcomes
    assert (first.cases_of, second.cases_of) == (f"{DATASET}_val", "Dataset001_Other_val")
    assert parts(first, "liver", "case_1") == (0.4, 1)
    assert parts(first, "lesion", "case_0") == (0, 0)
    assert parts(first, "liver", "case_0", "aggregated_dice") == (160, 200)
    assert parts(first, "liver", "case_0", "lesions_precision") == (1, 4)
    assert first.files["case_0"].prediction == tmp_path / "out" / f"{DATASET}_val" / "case_0.nii.gz"
    assert first.files["case_0"].reference == raw / "labelsTr" / "case_0.nii.gz"
    assert second.files["case_0"].image is None
    assert list(source.trainings) == ["fold 0"]
    assert source.commands[0].startswith(
        f"nnunet_ext evaluate {model} --on {DATASET}:val --on Dataset001_Other:val -f 0"
    )
    assert "--metrics dice nsd surface lesions --tolerance liver=1 lesion=1 --disable-tta" in source.commands[0]


def test_an_evaluation_of_a_part_of_the_cases_is_told_and_repeated_as_such(tmp_path):
    model = write_model(tmp_path, {0: {"case_0": 0}})
    out = write_evaluation(tmp_path / "out", [evaluated_set({"case_0": {"liver": 0.8}})], model=model)
    whole = read_results_folder(out)
    assert "--partial" not in whole.commands[0]
    content = json.loads((out / "evaluation.json").read_text())
    (out / "evaluation.json").write_text(json.dumps({**content, "partial": True}))
    source = read_results_folder(out)
    assert " --partial" in source.commands[0]
    assert set(source.remarks) - set(whole.remarks) == {"Cases that lack a label or a prediction were left out."}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"labels": {"liver": None}}, r"labels\.liver: must be an object"),
        ({"labels": {"liver": {"cases_not_annotated": None}}}, "cases_not_annotated: must be a whole number"),
        ({"labels": {"liver": {"cases_not_annotated": 1}}, "number_of_cases": None}, "number_of_cases is missing"),
        ({"overlap": "half"}, "overlap"),
        ({"overlap": "0.1", "references": None, "instances": None}, None),  # as good as the number, or left out
    ],
)
def test_what_is_wrong_in_an_evaluation_is_named(tmp_path, change, told):
    entry = evaluated_set({"case_0": {"liver": 0.8}})
    out = write_evaluation(tmp_path / "out", [entry])
    content = json.loads((out / "evaluation.json").read_text())
    content["datasets"] = [{**content["datasets"][0], **change}]
    (out / "evaluation.json").write_text(json.dumps(content))
    if told is None:
        assert read_results_folder(out).commands
        return
    with pytest.raises(UserError, match=rf"(?s)evaluation\.json.*{told}"):
        read_results_folder(out)


def test_evaluation_without_its_model_still_has_scores(tmp_path):
    source = read_results_folder(write_evaluation(tmp_path / "out", [evaluated_set({"case_0": {"liver": 0.8}})]))
    assert source.trainings == {}
    assert "checkpoint of fold 0" in source.remarks[0]


def test_evaluation_of_an_earlier_version_is_refused_with_what_to_do(tmp_path):
    folder = write_evaluation(tmp_path / "out", [evaluated_set({"case_0": {"liver": 0.8}})])
    (folder / "scores.csv").write_text("dataset,cases,case,label,dice\nD,val,case_0,liver,0.8\n")
    with pytest.raises(UserError, match="scores.csv is no scores table.* nnunet_ext evaluate"):
        read_results_folder(folder)


def test_evaluation_whose_table_is_of_other_cases_is_refused(tmp_path):
    folder = write_evaluation(tmp_path / "out", [evaluated_set({"case_0": {"liver": 0.8}})])
    (folder / "scores.csv").write_text((folder / "scores.csv").read_text().replace("_val", "_test"))
    with pytest.raises(UserError, match=f"no scores of {DATASET}_val, which evaluation.json names"):
        read_results_folder(folder)


def test_scored_predictions_are_results_without_a_training(tmp_path, raw):
    folder = tmp_path / "predictions"
    write_predictions(folder, raw, {"case_2": 1})
    (folder / "dataset.json").write_text(json.dumps(DATASET_JSON))
    source = read_results_folder(folder)
    assert source.outcomes[0].cases_of == f"{DATASET}_labelsTr"
    assert source.outcomes[0].files["case_2"].image == raw / "imagesTr" / "case_2_0000.nii.gz"
    assert "training behind predictions is not known" in source.remarks[0]


def test_fold_without_summary_is_left_out_and_named(tmp_path):
    model = write_model(tmp_path, {0: {"case_0": 0}})
    write_checkpoint(model / "fold_1", name="checkpoint_latest.pth")
    source = read_results_folder(model)
    assert list(source.trainings) == ["fold 0", "fold 1"]
    assert any("fold_1 has no validation/summary.json" in remark for remark in source.remarks)
    assert any("curves are those of checkpoint_latest.pth" in remark for remark in source.remarks)


def test_fold_without_checkpoint_has_scores_and_is_named(tmp_path):
    model = write_model(tmp_path, {0: {"case_0": 0}})
    (model / "fold_0" / "checkpoint_final.pth").unlink()
    source = read_results_folder(model)
    assert list(source.outcomes[0].files) == ["case_0"]
    assert source.trainings == {}
    assert "fold_0 has no checkpoint" in source.remarks[0]


def test_fold_all_is_no_part_of_a_cross_validation_and_alone_is_warned_of(tmp_path):
    model = write_model(tmp_path, {0: {"case_0": 0}, "all": {"case_0": 0, "case_1": 0}})
    assert list(read_results_folder(model).outcomes[0].files) == ["case_0"]
    assert "trained on" in read_results_folder(model / "fold_all").remarks[0]


def test_folds_that_share_cases_are_refused(tmp_path):
    model = write_model(tmp_path, {0: {"case_0": 0}, 1: {"case_0": 0}})
    with pytest.raises(UserError, match="case_0 is a validation case of fold_0 and of fold_1"):
        read_results_folder(model)


def test_training_without_validation_is_refused_with_the_commands_that_help(tmp_path):
    model = write_model(tmp_path, {0: {"case_0": 0}})
    (model / "fold_0" / "validation" / "summary.json").unlink()
    for path in (model, model / "fold_0"):
        with pytest.raises(UserError) as caught:
            read_results_folder(path)
        assert f"nnUNetv2_train {DATASET} 3d_short 0 -tr nnUNetTrainerExample -p nnUNetPlans --val" in str(caught.value)
        assert "nnunet_ext evaluate" in str(caught.value)


def test_a_folder_above_the_models_names_them(tmp_path):
    model = write_model(tmp_path, {0: {"case_0": 0}})
    with pytest.raises(UserError, match=model.name):
        read_results_folder(model.parent)


@pytest.mark.parametrize("name", ["nothing", "empty"])
def test_what_holds_no_results_is_refused(tmp_path, name):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="Name a "):
        read_results_folder(tmp_path / name)


def test_summary_without_cases_is_refused(tmp_path):
    model = write_model(tmp_path, {0: {"case_0": 0}})
    (model / "fold_0" / "validation" / "summary.json").write_text('{"metric_per_case": []}')
    with pytest.raises(UserError, match="holds no evaluated case"):
        read_results_folder(model)


@pytest.mark.parametrize("twice", ["case", "label"])
def test_a_summary_with_a_case_or_a_label_twice_is_refused(tmp_path, twice):
    model = write_model(tmp_path, {0: {"case_0": 0}})
    file = model / "fold_0" / "validation" / "summary.json"
    summary = json.loads(file.read_text())
    (case,) = summary["metric_per_case"]
    if twice == "case":
        summary["metric_per_case"].append(case)
    else:
        key = next(iter(case["metrics"]))
        case["metrics"][f"({key},)"] = case["metrics"][key]
    file.write_text(json.dumps(summary))
    with pytest.raises(UserError, match=r"summary\.json has the case case_0, or a label of it, twice"):
        read_results_folder(model)


def test_the_same_name_makes_seeds_and_other_names_runs(tmp_path):
    models = [write_model(tmp_path, {0: {"case_0": n}}, trainer=f"nnUNetTrainer{n}") for n in range(3)]
    runs = as_runs(list(zip(["a", "b", "a"], map(read_results_folder, models))))
    assert [(run.name, len(run.sources)) for run in runs] == [("a", 2), ("b", 1)]
    (board,) = boards(runs)
    assert [len(column.seeds) for column in board.columns] == [2, 1]
    assert len(runs[0].trainings) == 2


def test_two_results_of_one_name_are_refused_unless_the_user_gave_it(tmp_path):
    for part in ("a", "b"):
        write_raw(tmp_path / part, ["case_0"])
    sources = [read_results_folder(write_model(tmp_path / part, {0: {"case_0": 0}})) for part in ("a", "b")]
    with pytest.raises(UserError, match="NAME="):
        as_runs([(None, source) for source in sources])
    with pytest.raises(UserError, match="given twice"):
        as_runs([("x", sources[0]), ("y", sources[0])])


def test_evaluations_on_several_data_sets_stand_side_by_side_by_data_set(tmp_path):
    both = [evaluated_set({"x": {"liver": 0.5}}, dataset=name) for name in ("Dataset001_A", "Dataset002_B")]
    sources = [
        read_results_folder(write_evaluation(tmp_path / "one", both)),
        read_results_folder(write_evaluation(tmp_path / "two", both[1:])),
    ]
    first, second = boards(as_runs([(None, source) for source in sources]))
    assert [column.run for column in first.columns] == ["one"]
    assert [column.run for column in second.columns] == ["one", "two"]
