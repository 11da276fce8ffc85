"""The experiment with stand-ins for the programs that plan, train and predict; the tiny datasets of pairs are real."""

import csv
import re
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from benchmarks import longitudinal
from benchmarks.acdc import ORIGIN, PILOT_FOLD, TEST_FOLDS, Design, Run
from benchmarks.acdc_results import Training, estimates
from benchmarks.in_process import run_command, variables
from benchmarks.longitudinal import cases_to_score, main, write_table, write_withheld
from benchmarks.longitudinal_grid import (
    CURRENT,
    EARLY,
    GATED,
    IMAGE,
    LABELS,
    METHODS,
    NO_PRIOR,
    WITHHELD,
    is_withheld_later,
    planned_pilots,
    planned_runs,
)
from benchmarks.longitudinal_results import MEASURES, Scored, Trained, collected, result_lines
from nnunet_ext import trainers
from nnunet_ext.commands.configure import check_name
from nnunet_ext.evaluation.case_sets import select_cases
from nnunet_ext.files import read_json, write_json
from nnunet_ext.plans.channel_roles import roles_of_dataset
from nnunet_ext.plans.settings import configured_settings, validated_settings
from nnunet_ext.preprocessing.raw.new_dataset import NAME
from nnunet_ext.preprocessing.raw.raw_dataset import read_raw_dataset
from support.acdc_programs import GROUPS, NETWORK, PAIRS, PATIENTS, Programs, install, write_origin

REQUEST = {
    "configuration": "3d_fullres",
    "epochs": 10,
    "iterations": 20,
    "lrs": [0.001, 0.003],
    "patients": 16,
    "test_patients": 16,
    "seeds": 3,
    "device": "cpu",
}


# ---------------------------------------------------------------------- the grid


def test_primary_runs_come_first_one_seed_after_another():
    runs, primary = planned_runs("full", 3), planned_runs("primary", 3)
    assert runs[: len(primary)] == primary
    assert len(primary) == 30
    assert [run.seed for run in primary] == [seed for seed in range(3) for _ in range(10)]
    assert not any(run.is_all for run in primary)


def test_full_grid_has_every_run_once():
    runs = planned_runs("full", 3)
    assert len(set(runs)) == len(runs)
    assert Counter((run.method.name, run.is_all) for run in runs) == {
        (method.name, is_all): 3 for method in METHODS for is_all in (False, True)
    }


def test_methods_are_those_of_the_comparison():
    dual = {
        (one.settings["dual_encoder.fusion"], one.settings["dual_encoder.context_width"]) for one in dual_encoders()
    }
    assert dual == {(fusion, width) for fusion in ("gated", "add", "concat") for width in (1.0, 0.5)}
    seen = {method.name: (method.trainer, method.inputs) for method in METHODS}
    assert seen["no prior"] == ("nnUNetTrainerConfigurable", CURRENT)
    assert seen["early concatenation"] == ("nnUNetTrainerConfigurable", LABELS)
    assert seen["early concatenation without labels"] == ("nnUNetTrainerConfigurable", IMAGE)
    assert seen["dual encoder gated without labels"] == ("nnUNetTrainerDualEncoder", IMAGE)
    assert seen["dual encoder gated + MixUp"] == ("nnUNetTrainerDualEncoderMixUp", LABELS)
    assert seen["early concatenation + MixUp"] == ("nnUNetTrainerMixUp", LABELS)
    for method in METHODS:
        settings: dict = {}
        for key, value in method.settings.items():
            section, _, name = key.partition(".")
            settings.setdefault(section, {})[name] = value
        validated_settings(settings, where="this test")


def test_trainers_exist():
    assert all(hasattr(trainers, method.trainer) for method in METHODS)


def dual_encoders():
    return [method for method in METHODS if method.trainer == "nnUNetTrainerDualEncoder"]


def test_every_family_has_its_pilot_with_every_learning_rate():
    pilots = planned_pilots([1e-3, 3e-3])
    assert {(pilot.method.family, pilot.lr) for pilot in pilots} == {
        (method.family, lr) for method in METHODS for lr in (1e-3, 3e-3)
    }
    assert len(pilots) == 6
    assert {pilot.fold for pilot in pilots} == {PILOT_FOLD}


def test_names_are_distinct_and_can_name_configurations_and_datasets():
    trainings = [*planned_runs("full", 5), *planned_pilots([1e-3, 3e-3])]
    names = [one.name for one in trainings]
    assert len(set(names)) == len(names)
    for name in names:
        check_name(name)
        assert re.fullmatch(r"[a-z0-9_.]+", name)
    for inputs in (CURRENT, IMAGE, LABELS, WITHHELD):
        assert int(NAME.fullmatch(inputs.name)[1]) == inputs.number
    assert len({inputs.number for inputs in (CURRENT, IMAGE, LABELS, WITHHELD)}) == 4


# ---------------------------------------------------------------------- the figures


def scored(**patients):
    """Scores from (2|A∩B|, |A| + |B|) of each patient, the same for all labels."""
    rows = []
    for twice, total in patients.values():
        dice = twice / total if total else 0.0
        rows.append([[twice, total, dice, float(total > 0)]] * 3)
    return Scored(tuple(patients), np.array(rows))


def pooled(one):
    return one.scores().values()


def trained_run(one, withheld=None):
    return Trained(one, withheld, Training(lr=0.001, parameters=1_352_912, step_seconds=0.25))


def test_scores_are_read_from_an_evaluation():
    volumes = {"reference": 30.0, "predicted": 50.0, "both": 20.0}
    nothing = {"reference": 0.0, "predicted": 0.0, "both": 0.0}
    part = {
        "dice": {"a": {"RV": 0.5, "MYO": 0.5, "LV": None}},
        "volumes": {"a": {"RV": volumes, "MYO": volumes, "LV": nothing}},
    }
    found = Scored.of({"datasets": [part]})
    assert found.patients == ("a",)
    assert found.table.tolist() == [[[40, 80, 0.5, 1], [40, 80, 0.5, 1], [0, 0, 0, 0]]]
    assert pooled(found)["DSCagg"] == pooled(found)["Dice"] == 0.5  # of the labels that are there
    assert pooled(found)["Dice LV"] is None


def test_aggregated_dice_sums_volumes_where_dice_averages_patients():
    found = pooled(scored(a=(90, 100), b=(0, 10)))
    assert found["DSCagg"] == pytest.approx(90 / 110)
    assert found["DSCagg MYO"] == pytest.approx(90 / 110)
    assert found["Dice"] == pytest.approx(0.45)


def test_mean_is_over_the_labels():
    table = np.array([[[1, 2, 0.5, 1], [1, 4, 0.25, 1], [3, 4, 0.75, 1]]], dtype=float)
    found = pooled(Scored(("a",), table))
    assert found["DSCagg"] == found["Dice"] == pytest.approx(0.5)
    assert (found["Dice RV"], found["Dice MYO"], found["Dice LV"]) == (0.5, 0.25, 0.75)


def test_every_seed_counts_alike_however_many_patients_it_has():
    runs = {Run(EARLY, 0): scored(a=(2, 10), b=(2, 10), c=(2, 10)), Run(EARLY, 1): scored(d=(6, 10))}
    found = estimates(runs)
    assert found["DSCagg"]["value"] == found["Dice"]["value"] == pytest.approx(0.4)
    # two seeds: a resample has both, or one of them twice
    assert (found["Dice"]["low"], found["Dice"]["high"]) == pytest.approx((0.2, 0.6))


def test_interval_of_one_seed_comes_from_its_patients():
    dice = np.random.default_rng(1).random(20)
    run = scored(**{f"p{n}": (value, 1) for n, value in enumerate(dice)})
    found = estimates({Run(EARLY, 0): run})
    deviation = dice.std() / np.sqrt(20)
    for name in ("Dice", "DSCagg"):
        assert found[name]["value"] == pytest.approx(dice.mean())
        assert found[name]["low"] == pytest.approx(dice.mean() - 1.96 * deviation, abs=0.15 * deviation)
        assert found[name]["high"] == pytest.approx(dice.mean() + 1.96 * deviation, abs=0.15 * deviation)
    # seeds that test the same patients draw them together: equal scores add nothing
    assert estimates({Run(EARLY, 0): run, Run(EARLY, 3): run})["Dice"]["high"] == pytest.approx(
        found["Dice"]["high"], abs=0.1 * deviation
    )


def test_differences_are_paired_by_seed_and_patient():
    dice = np.random.default_rng(1).random(20) / 2
    one = {Run(EARLY, 0): scored(**{f"p{n}": (value, 1) for n, value in enumerate(dice)})}
    better = {Run(GATED, 0): scored(**{f"p{n}": (value + 0.1, 1) for n, value in enumerate(dice)})}
    for name in MEASURES:
        assert estimates(better, one)[name] == pytest.approx({"value": 0.1, "low": 0.1, "high": 0.1})


def test_runs_of_other_patients_are_not_compared():
    with pytest.raises(ValueError, match="same patients"):
        estimates({Run(GATED, 0): scored(a=(1, 2))}, {Run(EARLY, 0): scored(b=(1, 2))})


def test_only_seeds_that_both_have_are_compared():
    runs = {
        Run(NO_PRIOR, 0): trained_run(scored(a=(2, 10))),
        Run(EARLY, 0): trained_run(scored(a=(7, 10)), scored(a=(1, 10))),
        Run(EARLY, 1): trained_run(scored(b=(5, 10))),
        Run(EARLY, 0, is_all=True): trained_run(scored(a=(9, 10))),
    }
    content = collected(runs, planned_runs("full", 3), {})
    rows = {(row["method"], row["all_patients"]): row for row in content["rows"]}
    few = rows["early concatenation", False]
    assert few["seeds"] == [0, 1]
    assert few["minus"]["no prior"]["seeds"] == [0]
    assert few["minus"]["no prior"]["DSCagg"]["value"] == pytest.approx(0.5)
    assert "early concatenation" not in few["minus"]
    assert few["withheld"]["seeds"] == [0]
    assert few["withheld"]["minus_with_prior"]["Dice"]["value"] == pytest.approx(-0.6)
    assert few["withheld"]["minus_no_prior"]["Dice"]["value"] == pytest.approx(-0.1)
    assert rows["early concatenation", True]["minus"] == {}
    assert "withheld" not in rows["no prior", False]


def result_text(runs, pilots=None):
    content = {**collected(runs, planned_runs("full", 3), pilots or {}), "network": NETWORK}
    return content, "\n".join(result_lines(content, REQUEST))


def test_result_says_what_was_not_run():
    runs = {
        run: trained_run(scored(a=(2, 10)), scored(a=(1, 10)) if is_withheld_later(run) and run.seed else None)
        for run in planned_runs("primary", 3)
        if (run.method, run.seed) != (GATED, 2)
    }
    content, text = result_text(runs, {"dual encoder": {0.001: 0.5}})
    assert len(content["finished_runs"]) + len(content["missing_runs"]) == 72
    few, everyone, withheld = content["missing"]
    assert few == (
        "few training patients: dual encoder gated (seed 2), dual encoder add width 0.5 (seed 0, 1, 2), dual encoder "
        "concat width 0.5 (seed 0, 1, 2)"
    )
    assert everyone == "all training patients: everything"
    assert withheld.startswith("scores without the prior: early concatenation (seed 0), dual encoder gated (seed 0)")
    assert "Finished: 29 of 72 trainings" in text
    assert "- all training patients: everything" in text
    assert "## Trained on 16 patients" in text
    assert "## Trained on all patients" not in text
    assert re.search(
        r"\| dual encoder add +\| 0\.200 \[0\.200, 0\.200\] .* 1,352,912 \| 0\.25 s \| 0\.001 \| 0, 1, 2 \|", text
    )
    assert text.count("\nMinus `no prior`:") == text.count("\nMinus `early concatenation`:") == 1
    assert re.search(r"\| dual encoder add +\| -0\.100 \[-0\.100, -0\.100\]", text)  # withheld minus with the prior


def test_complete_grid_has_nothing_missing():
    runs = {
        run: trained_run(scored(a=(2, 10)), scored(a=(1, 10)) if is_withheld_later(run) else None)
        for run in planned_runs("full", 3)
    }
    content, text = result_text(runs)
    assert content["missing"] == content["missing_runs"] == []
    assert "Not run:" not in text
    assert "## Trained on all patients" in text


# ---------------------------------------------------------------------- the datasets


@pytest.fixture(scope="module")
def origin(tmp_path_factory):
    folder = tmp_path_factory.mktemp("données du cœur") / ORIGIN
    write_origin(folder)
    return folder


@pytest.fixture(scope="module")
def paired(origin, tmp_path_factory):
    """nnUNet_raw with the datasets that `nnunet_ext pair` makes."""
    root = tmp_path_factory.mktemp("paired")
    table = root / "pairs.csv"
    write_table(origin, PAIRS, table)
    environment = {f"nnUNet_{part}": str(root / part) for part in ("raw", "preprocessed", "results")}
    for inputs, options in ((LABELS, []), (IMAGE, ["--no-prior-labels"])):
        command = ["nnunet_ext", "pair", "-o", inputs.name, "--table", str(table), "--modality", "cineMRI"]
        command += ["--labels", "RV=1", "MYO=2", "LV=3", "--registration", "none", *options]
        run_command(command, environment=environment, log=root / f"{inputs.name}.log")
    return root / "raw"


def values(file):
    return sitk.GetArrayFromImage(sitk.ReadImage(str(file)))


def test_table_has_a_line_for_each_patient_with_dense_labels(origin, tmp_path):
    write_table(origin, PAIRS, tmp_path / "pairs.csv")
    with (tmp_path / "pairs.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["patient"] for row in rows] == PATIENTS
    first = {key: Path(value) for key, value in rows[0].items()}
    assert all(file.is_file() for key, file in first.items() if key != "patient")
    assert first["current_image"].name == "p00_frame09_0000.nii.gz"
    assert first["prior_image"].name == "p00_frame01_0000.nii.gz"
    assert (first["current_label"].parent.name, first["current_label"].name) == ("labelsTr_dense", "p00_frame09.nii.gz")
    assert (first["prior_label"].parent.name, first["prior_label"].name) == ("labelsTr_dense", "p00_frame01.nii.gz")


@pytest.fixture(scope="module")
def derived(paired, tmp_path_factory):
    """A copy of these datasets with the two that the experiment derives from them."""
    raw = tmp_path_factory.mktemp("œuvre") / "nnUNet_raw"
    shutil.copytree(paired, raw)
    with variables(
        {f"nnUNet_{part}": str(raw.with_name(f"nnUNet_{part}")) for part in ("raw", "preprocessed", "results")}
    ):
        with_prior = read_raw_dataset(LABELS.name)
        longitudinal.write_current(with_prior, raw / CURRENT.name)
        write_withheld(with_prior, raw / WITHHELD.name, ["p00", "p11"])
        others = {inputs: read_raw_dataset(inputs.name) for inputs in (IMAGE, CURRENT, WITHHELD)}
        return {LABELS: with_prior, **others}


def test_datasets_have_the_same_current_scans_and_labels(derived):
    assert {inputs: len(dataset.cases["p00"].images) for inputs, dataset in derived.items()} == {
        LABELS: 5,
        IMAGE: 2,
        CURRENT: 1,
        WITHHELD: 5,
    }
    for case in ("p00", "p11"):
        images = [values(dataset.cases[case].images[0]) for dataset in derived.values()]
        labels = [values(dataset.cases[case].label) for dataset in derived.values()]
        for image, label in zip(images, labels):
            np.testing.assert_array_equal(image, images[0])
            np.testing.assert_array_equal(label, labels[0])
        assert set(np.unique(labels[0])) == {0, 1, 2, 3}
    assert list(derived[CURRENT].cases) == list(derived[LABELS].cases) == PATIENTS


def test_without_prior_no_file_but_the_labels_is_written_anew(derived):
    folder = derived[CURRENT].folder
    assert derived[CURRENT].description["channel_names"] == {"0": "cineMRI"}
    assert sorted(path.name for path in folder.iterdir() if not path.name.startswith(".")) == [
        "dataset.json",
        "labelsTr",
    ]
    assert derived[CURRENT].cases["p00"].images[0].resolve() == derived[LABELS].cases["p00"].images[0].resolve()


def test_withheld_prior_is_zero_in_its_channels_and_only_there(derived):
    assert list(derived[WITHHELD].cases) == ["p00", "p11"]
    roles = roles_of_dataset(derived[WITHHELD].description)
    assert roles == roles_of_dataset(derived[LABELS].description)
    assert (roles.current, roles.prior) == ([0], [1, 2, 3, 4])
    for name, case in derived[WITHHELD].cases.items():
        original = derived[LABELS].cases[name]
        for channel, (image, before) in enumerate(zip(case.images, original.images)):
            assert values(image).any() == (channel not in roles.prior)
            assert values(before).any()
            for one in ("GetSize", "GetSpacing", "GetOrigin", "GetDirection"):
                ours, theirs = (getattr(sitk.ReadImage(str(file)), one)() for file in (image, before))
                assert ours == theirs


def test_derived_datasets_that_are_there_stay_as_they_are(derived, monkeypatch):
    monkeypatch.setenv("nnUNet_raw", str(derived[LABELS].folder.parent))
    before = {inputs: (derived[inputs].folder / "dataset.json").stat().st_mtime_ns for inputs in (CURRENT, WITHHELD)}
    longitudinal.write_current(derived[LABELS], derived[CURRENT].folder)
    write_withheld(derived[LABELS], derived[WITHHELD].folder, ["p00"])
    for inputs, time in before.items():
        assert (derived[inputs].folder / "dataset.json").stat().st_mtime_ns == time


def test_evaluation_finds_the_test_patients_of_a_fold_with_their_prior_withheld(derived, tmp_path, monkeypatch):
    folds = [{"train": ["p22"], "val": ["p33"]}, {"train": ["p11"], "val": ["p00"]}]
    folder = tmp_path / "preprocessed" / WITHHELD.name
    folder.mkdir(parents=True)
    write_json(folder / "splits_final.json", folds)
    monkeypatch.setenv("nnUNet_preprocessed", str(folder.parent))
    monkeypatch.setenv("nnUNet_raw", str(derived[LABELS].folder.parent))
    found = select_cases(str(WITHHELD.number), "val", folds=[1])
    assert list(found.cases) == ["p00"]
    assert not values(found.cases["p00"].images[1]).any()


def test_cases_of_the_pilot_are_not_among_the_tested():
    folds = Design(3, 4, 3).folds(GROUPS)
    assert cases_to_score(folds) == sorted(patient for group in GROUPS[:TEST_FOLDS] for patient in group)


# ---------------------------------------------------------------------- the whole of it, with stand-ins


class PairPrograms(Programs):
    """The stand-ins, with datasets of pairs that were made beforehand."""

    def __init__(self, paired):
        super().__init__()
        self.paired = paired

    def make_dataset(self, command, raw):
        assert command[1] == "pair"
        assert Path(command[5]).is_file()
        shutil.copytree(self.paired / command[3], raw / command[3])

    def dice(self, model, dataset):
        # in the stand-in's world the higher learning rate is the better one for all but the dual encoder
        value = 0.5 + 0.2 * ("DualEncoder" in model) + 0.1 * ("0.003" in model)
        return value - 0.4 * (dataset == str(WITHHELD.number)) - 0.3 * ("dual_encoder_gated_lr0.003" in model)


@pytest.fixture
def programs(origin, paired, monkeypatch):
    monkeypatch.setenv("nnUNet_raw", str(origin.parent))
    stand_in = PairPrograms(paired)
    install(stand_in, monkeypatch)
    return stand_in


def arguments(tmp_path, *more):
    size = ["--patients", "3", "--test-patients", "2"]
    return ["--out", str(tmp_path / "out"), "--device", "cpu", "--until", "primary", *size, *more]


def test_one_command_does_everything_and_a_second_one_nothing(tmp_path, programs):
    assert main(arguments(tmp_path)) == 0
    primary, pilots = planned_runs("primary", 3), planned_pilots([1e-3, 3e-3])
    assert programs.names("train_") == [f"train_{one.name}" for one in [*pilots, *primary]]
    withheld = [f"evaluate_withheld_{run.name}" for run in primary if run.method.inputs == LABELS]
    assert programs.names("evaluate_") == [*(f"evaluate_{one.name}" for one in [*pilots, *primary]), *withheld]
    content = read_json(tmp_path / "out" / "longitudinal.json")
    assert content["finished_runs"] == [run.name for run in primary]
    assert content["commit"] == "abc"
    rows = {row["method"]: row for row in content["rows"]}
    assert list(rows) == [method.name for method in METHODS if method.is_primary]
    gated = rows["dual encoder gated"]
    assert gated["minus"]["no prior"]["DSCagg"]["value"] == pytest.approx(0.2)
    assert gated["withheld"]["minus_with_prior"]["DSCagg"]["value"] == pytest.approx(-0.4)
    assert gated["parameters"] == 7
    assert gated["median_step_seconds"] == pytest.approx(4 / 20)
    programs.ran.clear()
    assert main(arguments(tmp_path)) == 0
    assert programs.ran == []
    assert read_json(tmp_path / "out" / "longitudinal.json")["rows"] == content["rows"]


def test_every_command_that_is_counted_beforehand_is_run(tmp_path, programs, capsys):
    main(arguments(tmp_path))
    counts = [re.match(r"\[(\d+)/(\d+)\]", line) for line in capsys.readouterr().out.splitlines()]
    last = [match for match in counts if match][-1]
    runs = planned_runs("primary", 3)
    assert int(last[2]) == 8 + 3 * (6 + len(runs)) + sum(is_withheld_later(run) for run in runs)
    assert last[1] == last[2]


def test_runs_get_their_settings_fold_inputs_and_learning_rate(tmp_path, programs):
    main(arguments(tmp_path, "--epochs", "6", "--steps", "7", "--configuration", "2d"))
    out = tmp_path / "out"

    def settings(run):
        file = out / "nnUNet_preprocessed" / run.method.inputs.name / "nnUNetPlans.json"
        return configured_settings(read_json(file), run.name)

    methods = {method.name: method for method in METHODS}
    half = Run(methods["dual encoder gated width 0.5"], 2)
    found = settings(half)
    assert (found["num_epochs"], found["num_iterations_per_epoch"], found["seed"]) == (6, 7, 2)
    assert found["dual_encoder"] == {"fusion": "gated", "context_width": 0.5}
    assert found["initial_lr"] == settings(Run(methods["dual encoder gated + MixUp"], 0))["initial_lr"] == 0.001
    assert settings(Run(NO_PRIOR, 1))["initial_lr"] == settings(Run(EARLY, 1))["initial_lr"] == 0.003
    assert "dual_encoder" not in settings(Run(EARLY, 1))
    commands = dict(programs.ran)
    assert commands[f"train_{half.name}"] == (
        f"nnUNetv2_train 841 {half.name} 5 -tr nnUNetTrainerDualEncoder -p nnUNetPlans -device cpu".split()
    )
    assert commands[f"train_{Run(NO_PRIOR, 0).name}"][1:4] == ["843", "no_prior_s0", "1"]
    assert commands["train_pilot_early_concatenation_lr0.001"][1:4] == [
        "841",
        "pilot_early_concatenation_lr0.001",
        str(PILOT_FOLD),
    ]
    assert commands[f"pair_{IMAGE.name}"] == [
        *f"nnunet_ext pair -o {IMAGE.name} --table {out / 'pairs.csv'} --modality cineMRI".split(),
        *["--labels", "RV=1", "MYO=2", "LV=3", "--registration", "none", "--no-prior-labels"],
    ]
    assert "--no-prior-labels" not in commands[f"pair_{LABELS.name}"]
    assert commands[f"plan_{CURRENT.name}"][1:5] == ["-d", "843", "-c", "2d"]
    assert commands[f"evaluate_{half.name}"][3:5] == ["--on", "841:val"]
    assert commands[f"evaluate_withheld_{half.name}"][2:5] == [commands[f"evaluate_{half.name}"][2], "--on", "844:val"]


def test_models_are_scored_on_the_test_patients_of_their_seed_with_and_without_prior(tmp_path, programs):
    main(arguments(tmp_path))
    cases = read_json(tmp_path / "out" / "longitudinal.json")["cases"]
    folds = read_json(tmp_path / "out" / "nnUNet_preprocessed" / LABELS.name / "splits_final.json")
    for run in planned_runs("primary", 3):
        tested = folds[run.fold]["val"]
        assert len(tested) == 2
        assert not set(tested) & set(folds[run.fold]["train"])
        assert {part: list(found) for part, found in cases[run.name].items()} == {
            "with_prior_channels": tested,
            **({"withheld": tested} if run.method.inputs == LABELS else {}),
        }


def test_full_grid_adds_all_patients(tmp_path, programs):
    given = [one if one != "primary" else "full" for one in arguments(tmp_path, "--seeds", "1")]
    assert main(given) == 0
    content = read_json(tmp_path / "out" / "longitudinal.json")
    assert content["missing"] == []
    assert len(content["finished_runs"]) == 2 * len(METHODS)


def test_failed_command_leaves_the_results_of_what_is_there_and_is_repeated(tmp_path, programs, capsys):
    programs.fail_at = f"train_{planned_runs('primary', 3)[2].name}"
    assert main(arguments(tmp_path)) == 1
    assert "failed" in capsys.readouterr().err
    content = read_json(tmp_path / "out" / "longitudinal.json")
    assert content["finished_runs"] == [run.name for run in planned_runs("primary", 3)[:2]]
    failed, programs.fail_at = programs.fail_at, None
    programs.ran.clear()
    assert main(arguments(tmp_path)) == 0
    assert programs.ran[0][0] == failed


def test_interruption_leaves_the_results_of_what_is_there(tmp_path, programs, capsys):
    programs.fail_at = f"train_{planned_runs('primary', 3)[1].name}"
    programs.failure = KeyboardInterrupt()
    assert main(arguments(tmp_path)) == 130
    assert "goes on from here" in capsys.readouterr().err
    assert len(read_json(tmp_path / "out" / "longitudinal.json")["finished_runs"]) == 1


def test_interrupted_preparation_goes_on(tmp_path, programs):
    programs.fail_at = f"pair_{IMAGE.name}"
    assert main(arguments(tmp_path)) == 1
    programs.fail_at = f"plan_{CURRENT.name}"
    programs.ran.clear()
    assert main(arguments(tmp_path)) == 1
    assert programs.names("pair_") == [f"pair_{IMAGE.name}"]
    programs.fail_at = None
    programs.ran.clear()
    assert main(arguments(tmp_path)) == 0
    assert programs.ran[0][0] == f"plan_{CURRENT.name}"


def test_interrupted_training_goes_on_from_its_checkpoint(tmp_path, programs):
    run = planned_runs("primary", 3)[0]
    programs.fail_at = f"train_{run.name}"
    main(arguments(tmp_path))
    model = f"{run.method.trainer}__nnUNetPlans__{run.name}"
    fold = tmp_path / "out" / "nnUNet_results" / run.method.inputs.name / model / f"fold_{run.fold}"
    fold.mkdir(parents=True)
    (fold / "checkpoint_best.pth").touch()
    programs.fail_at = f"evaluate_{run.name}"
    programs.ran.clear()
    main(arguments(tmp_path))
    assert programs.ran[0][1][-1] == "--c"
    assert "--c" not in programs.ran[1][1]


def test_over_time_nothing_is_begun_and_results_are_written(tmp_path, programs, capsys):
    programs.fail_at = f"train_{planned_runs('primary', 3)[1].name}"
    main(arguments(tmp_path))
    (tmp_path / "out" / "longitudinal.json").unlink()
    programs.ran.clear()
    assert main(arguments(tmp_path, "--max-minutes", "0")) == 0
    assert programs.ran == []
    assert "goes on from here" in capsys.readouterr().out
    content = read_json(tmp_path / "out" / "longitudinal.json")
    assert content["finished_runs"] == [planned_runs("primary", 3)[0].name]


def test_before_anything_is_scored_there_are_no_results(tmp_path, programs, capsys):
    assert main(arguments(tmp_path, "--max-minutes", "0")) == 0
    assert "Nothing is scored yet" in capsys.readouterr().out
    assert not (tmp_path / "out" / "longitudinal.json").exists()


def test_other_request_in_the_same_folder_is_refused(tmp_path, programs, capsys):
    main(arguments(tmp_path, "--max-minutes", "0"))
    assert main(arguments(tmp_path, "--seeds", "5")) == 2
    assert "Choose another folder" in capsys.readouterr().err


def test_too_many_patients_are_refused_before_anything_is_written(tmp_path, programs, capsys):
    assert main(arguments(tmp_path, "--patients", "17")) == 2
    assert "--patients 17" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_missing_dataset_is_wrong_usage_that_leaves_no_folder(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("nnUNet_raw", str(tmp_path))
    assert main(arguments(tmp_path)) == 2
    assert ORIGIN in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_results_name_no_folder_of_this_machine(tmp_path, programs, origin):
    main(arguments(tmp_path, "--results", str(tmp_path / "results")))
    for name in ("longitudinal.json", "longitudinal.md"):
        text = (tmp_path / "results" / name).read_text(encoding="utf-8")
        for folder in (tmp_path, origin.parent, longitudinal.__file__):
            assert str(folder) not in text
        assert "--table '$OUT/pairs.csv'" in text or "--table $OUT/pairs.csv" in text


def test_results_have_a_table_of_the_pilot(tmp_path, programs):
    main(arguments(tmp_path))
    text = (tmp_path / "out" / "longitudinal.md").read_text(encoding="utf-8")
    assert re.search(r"\| early concatenation +\| +0\.500 \| +0\.600 \| +0\.003 \|", text)
    assert re.search(r"\| dual encoder +\| +0\.700 \| +0\.500 \| +0\.001 \|", text)
    assert "patches of 8 x 96 x 112, batch 2" in text
