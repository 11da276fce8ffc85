"""Few-shot folds: draws are nested, disjoint, repeatable and by patient."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nnunetv2.utilities.crossval_split import generate_crossval_split

from nnunet_ext.errors import UserError
from nnunet_ext.formats.splits import read_splits
from nnunet_ext.preprocessing.raw.patients import groups_of_cases
from nnunet_ext.preprocessing.raw.splits import (
    appended,
    check_known,
    cross_validation,
    divide,
    draw_fold,
    find_dataset,
    folds_that_have_not_seen,
    group_cases,
    joined,
    refused_by_planning,
)
from support.raw_datasets import DATASET_JSON

CASES = [f"patient{patient:03d}_{phase}" for patient in range(20) for phase in ("ED", "ES")]
PATIENTS = group_cases(CASES, "patient[0-9]+")


@given(
    seed=st.integers(0, 2**32),
    fold=st.integers(0, 50),
    shots=st.lists(st.integers(1, 12), min_size=2, max_size=2),
    validation=st.integers(1, 8),
)
def test_fewer_shots_are_among_more_with_the_same_validation(seed, fold, shots, validation):
    few, many = (
        draw_fold(PATIENTS, shots=number, seed=seed, fold=fold, validation=validation) for number in sorted(shots)
    )
    assert set(few["train"]) <= set(many["train"])
    assert few["val"] == many["val"]
    assert len(many["train"]) == 2 * max(shots)
    assert len(many["val"]) == 2 * validation


@given(seed=st.integers(0, 1000), shots=st.integers(1, 19), data=st.data())
def test_training_and_validation_share_no_patient(seed, shots, data):
    validation = data.draw(st.none() | st.integers(1, 20 - shots))
    drawn = draw_fold(PATIENTS, shots=shots, seed=seed, fold=0, validation=validation)
    patients = {part: {case.split("_")[0] for case in cases} for part, cases in drawn.items()}
    assert not patients["train"] & patients["val"]
    assert all(drawn[part] == sorted(drawn[part]) for part in drawn)


def test_without_a_number_validation_is_all_the_rest():
    drawn = draw_fold(PATIENTS, shots=3, seed=0, fold=0)
    assert sorted(drawn["train"] + drawn["val"]) == CASES


def test_smaller_validation_is_among_larger():
    few, many = (draw_fold(PATIENTS, shots=2, seed=0, fold=0, validation=number) for number in (3, 10))
    assert set(few["val"]) < set(many["val"])


def test_a_draw_depends_on_seed_and_fold_alone():
    def trained(seed, fold, cases=PATIENTS):
        return draw_fold(cases, shots=5, seed=seed, fold=fold)["train"]

    assert trained(0, 1) == trained(0, 1)
    assert trained(0, 1, dict(reversed(PATIENTS.items()))) == trained(0, 1)
    draws = {tuple(trained(seed, fold)) for seed in range(4) for fold in range(4)}
    assert len(draws) == 16


def test_a_published_draw_stays_what_it_was():
    """Seed and fold are what a paper gives; a change of the generator must not pass unseen."""
    cases = {letter: [letter] for letter in "abcdefgh"}
    assert draw_fold(cases, shots=2, seed=0, fold=0, validation=2) == PINNED


PINNED = {"train": ["c", "e"], "val": ["b", "h"]}


@pytest.mark.parametrize(
    ("shots", "validation", "message"),
    [
        (15, 10, "15 shots and 10 for validation need 25, but the dataset has 20"),
        (21, None, "21 shots need 21, but the dataset has 20"),
        (20, None, "20 shots are the whole dataset"),
        (20, 1, "need 21"),
    ],
)
def test_too_few_patients_are_an_error_with_both_numbers(shots, validation, message):
    with pytest.raises(UserError, match=message):
        draw_fold(PATIENTS, shots=shots, seed=0, fold=0, validation=validation)


@pytest.mark.parametrize("pattern", [r"(\d+)_", r"\d+", r"^patient(\d+)"])
def test_patient_is_the_first_group_or_the_whole_match(pattern):
    groups = group_cases(CASES, pattern)
    assert len(groups) == 20
    assert groups["007"] == ["patient007_ED", "patient007_ES"]


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("(", "no regular expression"),
        ("subject", "in the names of 40 of 40 cases: patient000_ED, patient000_ES, patient001_ED and 37 more"),
        ("(.+)_ED", "in the names of 20 of 40 cases: patient000_ES"),
        ("patient000_E(D)?", "in the names of 39 of 40 cases: patient000_ES"),
    ],
)
def test_a_pattern_that_leaves_cases_without_patient_is_an_error_with_examples(pattern, message):
    with pytest.raises(UserError) as error:
        group_cases(CASES, pattern)
    assert message in str(error.value)


def test_appending_keeps_what_is_there_and_adds_nothing_twice():
    existing = [{"train": ["b", "a"], "val": ["c"]}, {"train": ["c"], "val": ["a"]}]
    folds, numbers = appended(existing, [{"train": ["a", "b"], "val": ["c"]}, {"train": ["a"], "val": ["b"]}])
    assert folds == [*existing, {"train": ["a"], "val": ["b"]}]
    assert numbers == [0, 2]


def test_unknown_cases_are_named(tmp_path):
    with pytest.raises(UserError, match=r"names 1 cases that are not in the dataset: gone"):
        check_known([{"train": ["a"], "val": ["gone"]}], ["a"], file=tmp_path / "splits_final.json")


@pytest.mark.parametrize("content", ["{}", '[{"train": ["a"]}]', '[{"train": "a", "val": []}]', "[[1], [2]]"])
def test_a_file_that_is_no_split_is_refused(tmp_path, content):
    file = tmp_path / "splits_final.json"
    file.write_text(content)
    with pytest.raises(UserError, match="is no split of nnU-Net"):
        read_splits(file)


def make_raw(root, name, cases, **more):
    folder = root / "nnUNet_raw" / name
    (folder / "imagesTr").mkdir(parents=True)
    (folder / "dataset.json").write_text(json.dumps({**DATASET_JSON, **more}))
    for case in cases:
        for channel in range(2):
            (folder / "imagesTr" / f"{case}_{channel:04d}.nii.gz").touch()
    return folder


@pytest.fixture
def roots(tmp_path, monkeypatch):
    for part in ("raw", "preprocessed"):
        (tmp_path / f"nnUNet_{part}").mkdir()
        monkeypatch.setenv(f"nnUNet_{part}", str(tmp_path / f"nnUNet_{part}"))
    return tmp_path


def test_cases_of_a_dataset_that_is_not_preprocessed_are_those_of_the_raw_one(roots):
    make_raw(roots, "Dataset005_New", ["b", "a"])
    assert find_dataset("5") == (roots / "nnUNet_preprocessed" / "Dataset005_New", ["a", "b"])


def test_cases_listed_in_dataset_json_are_found(roots):
    make_raw(
        roots, "Dataset005_New", [], dataset={case: {"images": ["i.nii.gz"], "label": "l.nii.gz"} for case in "yx"}
    )
    assert find_dataset("Dataset005_New")[1] == ["x", "y"]


def test_preprocessed_cases_win(roots):
    make_raw(roots, "Dataset005_New", ["a", "b", "c"])
    folder = roots / "nnUNet_preprocessed" / "Dataset005_New"
    (folder / "gt_segmentations").mkdir(parents=True)
    (folder / "dataset.json").write_text(json.dumps(DATASET_JSON))
    for case in ("a", "b", "._a"):  # the last is a hidden file of macOS
        (folder / "gt_segmentations" / f"{case}.nii.gz").touch()
    assert find_dataset("5") == (folder, ["a", "b"])


def test_a_dataset_that_is_nowhere_or_empty_is_an_error(roots):
    make_raw(roots, "Dataset006_Empty", [])
    with pytest.raises(UserError, match="Dataset 5 is not in .*There is: Dataset006_Empty"):
        find_dataset("5")
    with pytest.raises(UserError, match="has no training case"):
        find_dataset("6")


def test_folds_that_planning_would_refuse_are_known(roots):
    folder = make_raw(roots, "Dataset005_New", ["a", "b", "c"])
    first, second = {"train": ["a"], "val": ["b"]}, {"train": ["b"], "val": ["c"]}
    assert refused_by_planning(folder.name, [second]) is None
    file = folder / "splits_final.json"
    file.write_text(json.dumps([first]))
    assert refused_by_planning(folder.name, [first, second]) is None
    assert refused_by_planning(folder.name, [second, first]) == file
    assert refused_by_planning(folder.name, []) == file


def test_folds_of_single_cases_are_those_of_nnunet():
    cases = [f"case_{number:02d}" for number in range(13)]
    assert cross_validation({case: [case] for case in cases}) == generate_crossval_split(cases)


def test_patients_stay_together_in_cross_validation():
    groups = {f"p{number}": [f"p{number}_a", f"p{number}_b"] for number in range(7)}
    folds = cross_validation(groups)
    assert len(folds) == 5
    assert sorted(case for fold in folds for case in fold["val"]) == sorted(sum(groups.values(), []))
    for fold in folds:
        assert {case[:2] for case in fold["train"]}.isdisjoint({case[:2] for case in fold["val"]})
        assert len(fold["train"]) + len(fold["val"]) == 14


@pytest.mark.parametrize(("patients", "folds"), [(3, 3), (2, 2), (1, 0)])
def test_few_patients_have_fewer_folds(patients, folds):
    assert len(cross_validation({str(number): [f"case_{number}"] for number in range(patients)})) == folds


@pytest.mark.parametrize("folds", [2, 3, 7])
@pytest.mark.parametrize("seed", [0, 1])
def test_a_dataset_is_divided_into_folds_of_whole_patients_by_a_seed(folds, seed):
    drawn = divide(PATIENTS, folds=folds, seed=seed)
    assert drawn == divide(dict(reversed(PATIENTS.items())), folds=folds, seed=seed)
    assert sorted(case for fold in drawn for case in fold["val"]) == CASES
    for fold in drawn:
        assert sorted(fold["train"] + fold["val"]) == CASES
        assert {case.split("_")[0] for case in fold["train"]}.isdisjoint(case.split("_")[0] for case in fold["val"])
    assert max(len(fold["val"]) for fold in drawn) - min(len(fold["val"]) for fold in drawn) <= 2  # a patient's cases


def test_the_seed_decides_who_is_validated_together_and_by_default_it_is_that_of_nnunet():
    assert divide(PATIENTS, seed=0) != divide(PATIENTS, seed=1)
    assert divide(PATIENTS) == cross_validation(PATIENTS)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"folds": 21}, "21 folds need 21 patients, but the dataset has 20. Take fewer"),
        ({"folds": 1}, "at least 2 folds"),
        ({"seed": 2**32}, "at most 4294967295. Take a smaller one"),
    ],
)
def test_a_division_that_cannot_be_is_an_error(options, message):
    with pytest.raises(UserError, match=message):
        divide(PATIENTS, **options)


def test_joined_folds_train_on_the_whole_of_a_source_that_has_no_more():
    first = [{"train": ["b"], "val": ["a"]}, {"train": ["a"], "val": ["b"]}]
    second = [{"train": ["y"], "val": ["x"]}]
    assert joined([(first, ["a", "b"]), (second, ["x", "y"]), ([], ["z"])]) == [
        {"train": ["b", "y", "z"], "val": ["a", "x"]},
        {"train": ["a", "x", "y", "z"], "val": ["b"]},
    ]
    assert joined([([], ["z"])]) == []


# ---------------------------------------------------------------------- the folds of a model

FILE = Path("splits_final.json")
SPLITS = [{"train": ["b", "c"], "val": ["a"]}, {"train": ["a", "c"], "val": ["b"]}, {"train": ["a"], "val": ["b"]}]


def test_each_case_gets_the_folds_that_did_not_train_on_it_also_one_of_no_fold():
    found = folds_that_have_not_seen(["a", "b", "d"], SPLITS, [0, 1, 2], file=FILE)
    assert found == {"a": [0], "b": [1, 2], "d": [0, 1, 2]}
    assert folds_that_have_not_seen(["b", "c"], SPLITS, [2, 0], file=FILE)["c"] == [2]


@pytest.mark.parametrize(
    ("folds", "message"),
    [
        ([0, 1], r"folds 0 1 has trained on 1 of 3 cases, e\.g\. on c\. Give the folds"),
        ([0, 3], "has no fold 3; it has 3 folds, numbered from 0. What it has trained on"),
        (["all"], "has no fold all"),
    ],
)
def test_a_case_that_every_fold_has_seen_and_an_unknown_fold_are_refused(folds, message):
    with pytest.raises(UserError, match=message):
        folds_that_have_not_seen(["a", "b", "c"], SPLITS, folds, file=FILE)


COMPOSED, DECOMPOSED = "Zo\u00eb", "Zoe\u0308"


@pytest.mark.parametrize("pattern", ["^[^_]+", f"^{COMPOSED}", f"^{DECOMPOSED}", None])
def test_a_patient_in_two_forms_of_unicode_is_one(pattern):
    cases = [f"{COMPOSED}_1", f"{DECOMPOSED}_1"]
    assert [sorted(of_one) for of_one in group_cases(cases, pattern).values()] == [sorted(cases)]


def test_recorded_patients_are_found_whatever_the_form_of_unicode(tmp_path):
    cases = {f"{COMPOSED} 1": {"patient": COMPOSED}, f"{COMPOSED} 2": {"patient": DECOMPOSED}}
    (tmp_path / "pairs.json").write_text(json.dumps({"made_by": "pair", "cases": cases}))
    of_files = [f"{DECOMPOSED} 1", f"{DECOMPOSED} 2"]  # as macOS may list them
    assert groups_of_cases(of_files, None, tmp_path) == {COMPOSED: of_files}
