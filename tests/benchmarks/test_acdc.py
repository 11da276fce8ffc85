import pytest

from benchmarks.acdc import (
    PILOT_FOLD,
    PILOT_TEST_FOLD,
    PILOT_TRAINING_FOLD,
    TEST_FOLDS,
    Design,
    Run,
    patient_groups,
)
from benchmarks.longitudinal_grid import EARLY, NO_PRIOR, planned_runs
from nnunet_ext.errors import UserError
from support.acdc_programs import GROUPS, PAIRS, PATIENTS


@pytest.mark.parametrize("patients", [1, 3, 16])
@pytest.mark.parametrize("seeds", [1, 3, 5])
def test_no_patient_is_in_training_and_test(patients, seeds):
    folds = Design(patients, 3, seeds).folds(GROUPS)
    for one in folds:
        assert one["train"]
        assert not set(one["train"]) & set(one["val"])
        assert len(one["val"]) == 3


def test_patients_of_the_pilot_are_tested_in_no_run_and_tested_ones_are_not_in_the_pilot():
    folds = Design(3, 4, 3).folds(GROUPS)
    tested = {patient for run in planned_runs("full", 3) for patient in folds[run.fold]["val"]}
    assert tested == {patient for group in GROUPS[:TEST_FOLDS] for patient in group}
    assert not tested & {*folds[PILOT_FOLD]["train"], *folds[PILOT_FOLD]["val"]}
    assert set(folds[PILOT_FOLD]["train"]) <= set(GROUPS[PILOT_TRAINING_FOLD])
    assert set(folds[PILOT_FOLD]["val"]) == set(GROUPS[PILOT_TEST_FOLD])


def test_seeds_have_their_own_patients_and_their_methods_share_them():
    folds = Design(3, 4, 5).folds(GROUPS)
    for seed in range(5):
        runs = [run for run in planned_runs("full", 5) if run.seed == seed]
        assert len({run.fold for run in runs if not run.is_all}) == 1
        assert len({run.fold for run in runs if run.is_all}) == 1
        few, everyone = (folds[Run(NO_PRIOR, seed, is_all).fold] for is_all in (False, True))
        assert few["val"] == everyone["val"] == GROUPS[seed % TEST_FOLDS]
        assert len(few["train"]) == 3
        assert sorted([*everyone["train"], *everyone["val"]]) == PATIENTS
    assert folds[Run(EARLY, 0).fold]["train"] != folds[Run(EARLY, 3).fold]["train"]


def test_fewer_training_patients_are_among_more_and_test_the_same():
    few, more = Design(2, 2, 3).folds(GROUPS), Design(7, 2, 3).folds(GROUPS)
    for seed in range(3):
        number = Run(EARLY, seed).fold
        assert set(few[number]["train"]) < set(more[number]["train"])
        assert few[number]["val"] == more[number]["val"]


def test_more_training_patients_than_there_are_is_refused():
    with pytest.raises(UserError, match="--patients 17: there are 16"):
        Design(17, 2, 3).folds(GROUPS)


def test_original_folds_are_taken_by_patient_and_refused_where_one_leaks():
    patient_of = {pair[phase]: pair["patient"] for pair in PAIRS for phase in ("prior", "current")}
    splits = [{"val": [f"{one}_{frame}" for one in group for frame in ("frame01", "frame09")]} for group in GROUPS]
    assert patient_groups(splits, patient_of) == GROUPS
    splits[2]["val"].append("p00_frame09")
    with pytest.raises(UserError, match="p00 in the validation sets of the folds 0 and 2"):
        patient_groups(splits, patient_of)
    with pytest.raises(UserError, match="has 4 folds"):
        patient_groups(splits[:4], patient_of)
