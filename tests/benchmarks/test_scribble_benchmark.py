"""The experiment with stand-ins for the programs that plan, train and predict; the tiny derived datasets are real."""

import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from benchmarks import scribbles
from benchmarks.acdc import ORIGIN, PILOT_FOLD, Design, Run
from benchmarks.acdc_results import Training, estimates
from benchmarks.in_process import variables
from benchmarks.scribbles import MASKS, check_origin, folds_of, main, write_dense, write_scribbles
from benchmarks.scribbles_grid import (
    DENSE,
    DMPLS,
    FULL,
    METHODS,
    PARTIAL_CE,
    PILOTING,
    PLAIN_TDNET,
    SCRIBBLES,
    STOCK,
    planned_pilots,
    planned_runs,
)
from benchmarks.scribbles_results import MEASURES, Scored, Trained, collected, result_lines
from nnunet_ext import trainers
from nnunet_ext.commands.configure import check_name
from nnunet_ext.errors import UserError
from nnunet_ext.evaluation.case_sets import select_cases
from nnunet_ext.files import read_json, write_json
from nnunet_ext.plans.settings import configured_settings, validated_settings
from nnunet_ext.preprocessing.raw.new_dataset import NAME
from nnunet_ext.preprocessing.raw.raw_dataset import read_raw_dataset
from support.acdc_programs import GROUPS, NETWORK, PAIRS, PATIENTS, Programs, by_label, install, write_origin

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
FRAMES = ("frame01", "frame09")


# ---------------------------------------------------------------------- the grid


def test_primary_runs_come_first_one_seed_after_another():
    runs, primary = planned_runs("full", 3), planned_runs("primary", 3)
    assert runs[: len(primary)] == primary
    assert [run.seed for run in primary] == [seed for seed in range(3) for _ in range(7)]
    assert {STOCK, PARTIAL_CE, DMPLS, PLAIN_TDNET, FULL} < {run.method for run in primary}
    assert "TDNet same dilation" in {run.method.name for run in primary}
    assert not any(run.is_all for run in primary)


def test_full_grid_has_every_run_once():
    runs = planned_runs("full", 3)
    assert len(set(runs)) == len(runs)
    assert Counter((run.method.name, run.is_all) for run in runs) == {
        (method.name, is_all): 3 for method in METHODS for is_all in (False, True)
    }


def test_methods_are_those_of_the_comparison():
    assert {method.name: (method.trainer, method.inputs) for method in METHODS} == {
        "stock, ignore label": ("nnUNetTrainerConfigurable", SCRIBBLES),
        "partial CE": ("nnUNetTrainerPartialCE", SCRIBBLES),
        "partial CE + entropy": ("nnUNetTrainerPartialCE", SCRIBBLES),
        "DMPLS": ("nnUNetTrainerDMPLS", SCRIBBLES),
        "TDNet": ("nnUNetTrainerTDNet", SCRIBBLES),
        "TDNet same dilation": ("nnUNetTrainerTDNet", SCRIBBLES),
        "TDNet without weights": ("nnUNetTrainerTDNet", SCRIBBLES),
        "TDNet without MPCC": ("nnUNetTrainerTDNet", SCRIBBLES),
        "TDNet not detached": ("nnUNetTrainerTDNet", SCRIBBLES),
        "full supervision": ("nnUNetTrainerConfigurable", DENSE),
    }
    assert all(hasattr(trainers, method.trainer) for method in METHODS)


def test_every_family_has_its_pilot_with_every_learning_rate():
    pilots = planned_pilots([1e-3, 3e-3])
    assert {(pilot.method.family, pilot.lr) for pilot in pilots} == {
        (method.family, lr) for method in METHODS for lr in (1e-3, 3e-3)
    }
    assert len(pilots) == 2 * len(PILOTING) == 10
    for method in METHODS:
        assert [one.trainer for one in PILOTING if one.family == method.family] == [method.trainer]


def test_names_are_distinct_and_can_name_configurations_and_datasets():
    names = [one.name for one in [*planned_runs("full", 5), *planned_pilots([1e-3, 3e-3])]]
    assert len(set(names)) == len(names)
    for name in names:
        check_name(name)
        assert re.fullmatch(r"[a-z0-9_.]+", name)
    for inputs in (SCRIBBLES, DENSE):
        assert int(NAME.fullmatch(inputs.name)[1]) == inputs.number


# ---------------------------------------------------------------------- the figures


def scored(distance=2.0, **patients):
    """Scores from the Dice of the cases of each patient, the same for all labels; the volumes of a case are 1."""
    values = [(patient, dice) for patient, cases in patients.items() for dice in cases]
    means = [[[dice, distance if dice else np.nan, 3 * distance if dice else np.nan]] * 3 for _, dice in values]
    volumes = [[[dice, 1.0]] * 3 for _, dice in values]
    names = tuple(f"{patient}_{number}" for number, (patient, _) in enumerate(values))
    return Scored(names, tuple(patient for patient, _ in values), np.array(means), np.array(volumes))


def figures(one):
    return one.scores().values()


def trained_run(one):
    return Trained(one, Training(lr=0.001, parameters=1_352_912, step_seconds=0.25))


def test_scores_are_read_from_an_evaluation():
    volumes = {"reference": 30.0, "predicted": 50.0, "both": 20.0}
    part = {
        "dice": {"a_1": {"RV": 0.5, "MYO": 0.25, "LV": 0.0}},
        "assd": {"a_1": {"RV": 2.0, "MYO": 4.0, "LV": None}},
        "hd95": {"a_1": {"RV": 10.0, "MYO": 20.0, "LV": None}},
        "volumes": {"a_1": dict.fromkeys(("RV", "MYO", "LV"), volumes)},
    }
    found = Scored.of({"datasets": [part]}, {"a_1": "a", "b_1": "b"})
    assert (found.cases, found.case_patients, found.without_distance()) == (("a_1",), ("a",), 1)
    values = figures(found)
    assert set(values) == set(MEASURES)
    assert (values["Dice"], values["Dice RV"], values["Dice MYO"], values["Dice LV"]) == (0.25, 0.5, 0.25, 0)
    assert (values["ASSD"], values["HD95"], values["HD95 MYO"]) == (3, 15, 20)  # of the labels that have one
    assert values["ASSD LV"] is None
    assert values["DSCagg"] == values["DSCagg LV"] == 0.5


def test_figures_are_means_over_cases_and_aggregated_dice_is_of_sums():
    one = scored(a=(0.9, 0.6), b=(0.3,))
    weighty = Scored(one.cases, one.case_patients, one.means, one.volumes * np.array([1.0, 1.0, 10.0])[:, None, None])
    assert figures(weighty)["Dice"] == pytest.approx(0.6)
    assert figures(weighty)["DSCagg"] == pytest.approx((0.9 + 0.6 + 3) / 12)


def test_cases_of_one_patient_are_drawn_together():
    values = np.random.default_rng(0).random(20)
    twice = {f"p{number}": (value, value) for number, value in enumerate(values)}
    once = {patient: cases[:1] for patient, cases in twice.items()}
    found = [estimates({Run(STOCK, 0): scored(**one)})["Dice"] for one in (once, twice)]
    assert found[1] == pytest.approx(found[0])
    assert found[0]["high"] - found[0]["low"] > 0.1


def test_differences_are_paired_and_those_of_distances_where_both_have_one():
    values = np.random.default_rng(1).random(20) / 2 + 0.01
    plain = {f"p{number}": (value, value) for number, value in enumerate(values)}
    better = {patient: tuple(dice + 0.1 for dice in cases) for patient, cases in plain.items()}
    first, second = {Run(STOCK, 0): scored(2.0, **plain)}, {Run(DMPLS, 0): scored(1.5, **better)}
    found = estimates(second, first)
    for name, difference in (("Dice", 0.1), ("Dice LV", 0.1), ("DSCagg", 0.1), ("ASSD RV", -0.5), ("HD95", -1.5)):
        assert found[name] == pytest.approx({"value": difference, "low": difference, "high": difference})
    one, other = scored(a=(0.5,), b=(0.5,)), scored(a=(0.5,), b=(0.0,))
    far = Scored(one.cases, one.case_patients, one.means + np.array([0.0, 7.0, 0.0]) * [[[0]], [[1]]], one.volumes)
    found = far.minus(other).values()
    assert found["ASSD"] == 0  # b, where the other predicted nothing, is left out
    assert found["Dice"] == pytest.approx(0.25)


def test_runs_of_other_cases_are_not_compared():
    with pytest.raises(ValueError, match="same cases"):
        estimates({Run(DMPLS, 0): scored(a=(0.5,))}, {Run(STOCK, 0): scored(b=(0.5,))})


def result_text(runs, pilots=None):
    content = {**collected(runs, planned_runs("full", 3), pilots or {}), "network": NETWORK}
    return content, "\n".join(result_lines(content, REQUEST))


def test_only_seeds_that_both_have_are_compared():
    runs = {
        Run(STOCK, 0): trained_run(scored(a=(0.2,))),
        Run(PARTIAL_CE, 0): trained_run(scored(a=(0.7,))),
        Run(PARTIAL_CE, 1): trained_run(scored(b=(0.5,))),
        Run(PARTIAL_CE, 0, is_all=True): trained_run(scored(a=(0.9,))),
    }
    rows = {(row["method"], row["all_patients"]): row for row in result_text(runs)[0]["rows"]}
    few = rows["partial CE", False]
    assert few["seeds"] == [0, 1]
    assert few["measures"]["Dice"]["value"] == pytest.approx(0.6)
    assert list(few["minus"]) == ["stock, ignore label"]
    assert few["minus"]["stock, ignore label"]["seeds"] == [0]
    assert few["minus"]["stock, ignore label"]["Dice"]["value"] == pytest.approx(0.5)
    assert rows["partial CE", True]["minus"] == {}
    assert rows["stock, ignore label", False]["minus"]["partial CE"]["Dice"]["value"] == pytest.approx(-0.5)


def test_result_says_what_was_not_run_and_where_nothing_was_predicted():
    runs = {
        run: trained_run(scored(a=(0.4, 0.0 if run.method == DMPLS else 0.4)))
        for run in planned_runs("primary", 3)
        if (run.method, run.seed) != (PLAIN_TDNET, 2)
    }
    content, text = result_text(runs, {"TDNet": {0.001: 0.5}})
    assert len(content["finished_runs"]) + len(content["missing_runs"]) == 60
    few, everyone = content["missing"]
    assert few == (
        "few training patients: TDNet (seed 2), TDNet without MPCC (seed 0, 1, 2), TDNet without weights (seed 0, 1, "
        "2), TDNet not detached (seed 0, 1, 2)"
    )
    assert everyone == "all training patients: everything"
    assert "Finished: 20 of 60 trainings" in text
    assert f"- {everyone}" in text
    assert "## Trained on 16 patients" in text
    assert "## Trained on all patients" not in text
    assert re.search(
        r"\| partial CE +\| 0\.400 \[0\.400, 0\.400\] .* 1,352,912 \| 0\.25 s \| 0\.001 \| 0, 1, 2 \|", text
    )
    assert re.search(r"\| DMPLS +\| 2\.00 \[2\.00, 2\.00\] .* 6\.00 \[6\.00, 6\.00\] \| +9 \|", text)
    assert text.count("\nMinus `stock, ignore label`:") == text.count("\nMinus `partial CE`:") == 1
    assert re.search(r"\| DMPLS +\| -0\.200 \[-0\.200, -0\.200\]", text)


# ---------------------------------------------------------------------- the datasets


@pytest.fixture(scope="module")
def origin(tmp_path_factory):
    folder = tmp_path_factory.mktemp("données du cœur") / ORIGIN
    write_origin(folder)
    return folder


@pytest.fixture(scope="module")
def derived(origin, tmp_path_factory):
    raw = tmp_path_factory.mktemp("œuvre") / "nnUNet_raw"
    raw.mkdir()
    with variables({"nnUNet_raw": str(origin.parent)}):
        original = read_raw_dataset(ORIGIN)
    with variables({f"nnUNet_{part}": str(raw.with_name(f"nnUNet_{part}")) for part in ("raw", "preprocessed")}):
        write_scribbles(original, raw / SCRIBBLES.name)
        write_dense(original, raw / DENSE.name)
        return {inputs: read_raw_dataset(inputs.name) for inputs in (SCRIBBLES, DENSE)}


def values(file):
    return sitk.GetArrayFromImage(sitk.ReadImage(str(file)))


def test_datasets_share_images_and_differ_in_their_labels(derived, origin):
    for inputs, folder, found in ((SCRIBBLES, "labelsTr", {0, 1, 2, 3, 4}), (DENSE, MASKS, {0, 1, 2, 3})):
        dataset = derived[inputs]
        assert list(dataset.cases) == sorted(f"{patient}_{frame}" for patient in PATIENTS for frame in FRAMES)
        for name in ("p00_frame01", "p43_frame09"):
            case = dataset.cases[name]
            assert [image.resolve() for image in case.images] == [origin / "imagesTr" / f"{name}_0000.nii.gz"]
            assert case.label.parent == dataset.folder / "labelsTr"
            np.testing.assert_array_equal(values(case.label), values(origin / folder / f"{name}.nii.gz"))
            assert set(np.unique(values(case.label))) == found
    assert derived[SCRIBBLES].ignore_label == 4
    assert derived[DENSE].ignore_label is None
    assert derived[DENSE].foreground_values() == derived[SCRIBBLES].foreground_values()


def test_models_are_scored_against_full_masks(derived, tmp_path, monkeypatch):
    folder = tmp_path / SCRIBBLES.name
    folder.mkdir()
    write_json(folder / "splits_final.json", [{"train": [], "val": ["p00_frame01"]}])
    monkeypatch.setenv("nnUNet_raw", str(derived[SCRIBBLES].folder.parent))
    monkeypatch.setenv("nnUNet_preprocessed", str(tmp_path))
    found = select_cases(str(SCRIBBLES.number), "val", folds=[0], references=MASKS)
    assert list(found.cases) == ["p00_frame01"]
    assert set(np.unique(values(found.cases["p00_frame01"].label))) == {0, 1, 2, 3}


def test_derived_datasets_that_are_there_stay_as_they_are(derived, origin, monkeypatch):
    monkeypatch.setenv("nnUNet_raw", str(origin.parent))
    original = read_raw_dataset(ORIGIN)
    for inputs, write in ((SCRIBBLES, write_scribbles), (DENSE, write_dense)):
        file = derived[inputs].folder / "dataset.json"
        before = file.stat().st_mtime_ns
        write(original, derived[inputs].folder)
        assert file.stat().st_mtime_ns == before


def test_folds_have_both_cases_of_every_patient(origin):
    design = Design(3, 2, 3)
    folds, by_patient = folds_of(origin, design), design.folds(GROUPS)
    assert len(folds) == len(by_patient)
    for found, patients in zip(folds, by_patient):
        for part in ("train", "val"):
            assert found[part] == [f"{patient}_{frame}" for patient in patients[part] for frame in FRAMES]


def test_original_without_scribbles_or_masks_is_refused(tmp_path):
    folder = tmp_path / ORIGIN
    (folder / MASKS).mkdir(parents=True)
    write_json(folder / "two_phase_pairs.json", PAIRS[:2])
    write_json(folder / "dataset.json", {"labels": {"background": 0, "RV": 1}})
    with pytest.raises(UserError, match="no label `ignore`"):
        check_origin(folder)
    write_json(folder / "dataset.json", {"labels": {"background": 0, "RV": 1, "ignore": 2}})
    for case in ("p00_frame01", "p00_frame09", "p01_frame09"):
        (folder / MASKS / f"{case}.nii.gz").touch()
    with pytest.raises(UserError, match=r"full mask for 1 cases, e\.g\. p01_frame01"):
        check_origin(folder)
    (folder / MASKS / "p01_frame01.nii.gz").touch()
    check_origin(folder)


# ---------------------------------------------------------------------- the whole of it, with stand-ins


class ScribblePrograms(Programs):
    """The stand-ins, with distances, in whose world the higher learning rate is the better one but for TDNet."""

    def dice(self, model, dataset):
        value = 0.5 + 0.1 * ("TDNet" in model) + 0.1 * ("0.003" in model) - 0.2 * ("tdnet_lr0.003" in model)
        return value + 0.3 * ("full" in model)

    def scores(self, model, dataset, cases):
        distances = {name: by_label(cases, length) for name, length in (("assd", 2.0), ("hd95", 6.0))}
        return {**super().scores(model, dataset, cases), **distances}


@pytest.fixture
def programs(origin, monkeypatch):
    monkeypatch.setenv("nnUNet_raw", str(origin.parent))
    stand_in = ScribblePrograms()
    install(stand_in, monkeypatch)
    return stand_in


def arguments(tmp_path, *more):
    size = ["--patients", "3", "--test-patients", "2"]
    return ["--out", str(tmp_path / "out"), "--device", "cpu", "--until", "primary", *size, *more]


def results(tmp_path, configuration="3d_fullres"):
    return read_json(tmp_path / "out" / f"scribbles_{configuration}.json")


def test_one_command_does_everything_and_a_second_one_nothing(tmp_path, programs):
    assert main(arguments(tmp_path)) == 0
    primary, pilots = planned_runs("primary", 3), planned_pilots([1e-3, 3e-3])
    assert programs.names("train_") == [f"train_{one.name}" for one in [*pilots, *primary]]
    assert programs.names("evaluate_") == [f"evaluate_{one.name}" for one in [*pilots, *primary]]
    content = results(tmp_path)
    assert content["finished_runs"] == [run.name for run in primary]
    assert content["commit"] == "abc"
    rows = {row["method"]: row for row in content["rows"]}
    assert list(rows) == [method.name for method in METHODS if method.is_primary]
    assert rows["TDNet"]["minus"]["stock, ignore label"]["Dice"]["value"] == pytest.approx(0.1)
    assert rows["full supervision"]["measures"]["Dice"]["value"] == pytest.approx(0.8)
    assert rows["TDNet"]["parameters"] == 7
    assert rows["TDNet"]["median_step_seconds"] == pytest.approx(4 / 20)
    programs.ran.clear()
    assert main(arguments(tmp_path)) == 0
    assert programs.ran == []
    assert results(tmp_path)["rows"] == content["rows"]


def test_every_command_that_is_counted_beforehand_is_run(tmp_path, programs, capsys):
    main(arguments(tmp_path))
    counts = [re.match(r"\[(\d+)/(\d+)\]", line) for line in capsys.readouterr().out.splitlines()]
    last = [match for match in counts if match][-1]
    assert last[1] == last[2] == str(4 + 3 * (10 + 21))


def test_one_learning_rate_needs_no_pilot(tmp_path, programs):
    assert main(arguments(tmp_path, "--lrs", "0.01")) == 0
    primary = planned_runs("primary", 3)
    assert programs.names("train_") == [f"train_{one.name}" for one in primary]
    plans = tmp_path / "out" / "nnUNet_preprocessed" / primary[0].method.inputs.name / "nnUNetPlans.json"
    assert configured_settings(read_json(plans), primary[0].name)["initial_lr"] == 0.01
    assert results(tmp_path)["pilot"] == {}
    text = (tmp_path / "out" / "scribbles_3d_fullres.md").read_text()
    assert "None: `--lrs` names one for all trainings." in text


def test_runs_get_their_settings_fold_labels_and_learning_rate(tmp_path, programs):
    given = arguments(tmp_path, "--epochs", "6", "--steps", "7", "--configuration", "2d", "--seeds", "1")
    main([one if one != "primary" else "full" for one in given])
    out = tmp_path / "out"
    methods = {method.name: method for method in METHODS}

    def settings(name):
        run = Run(methods[name], 0)
        file = out / "nnUNet_preprocessed" / run.method.inputs.name / "nnUNetPlans.json"
        found = configured_settings(read_json(file), run.name)
        assert (found["num_epochs"], found["num_iterations_per_epoch"], found["seed"]) == (6, 7, 0)
        return found, validated_settings(found, where="this test")

    for name, lr in (("stock, ignore label", 0.003), ("partial CE + entropy", 0.003), ("DMPLS", 0.003)):
        assert settings(name)[0]["initial_lr"] == lr
    assert settings("full supervision")[0]["initial_lr"] == 0.003
    assert settings("partial CE + entropy")[1].partial_ce.entropy_weight == 0.1
    changes = {
        "TDNet": {},
        "TDNet same dilation": {"dilations": [1, 1, 1]},
        "TDNet without weights": {"uncertainty_weights": False},
        "TDNet without MPCC": {"mpcc_weight": 0.0},
        "TDNet not detached": {"detach_target": False},
    }
    for name, change in changes.items():
        found, checked = settings(name)
        assert found["initial_lr"] == 0.001
        assert found["weight_decay"] == 3e-5
        assert found.get("tdnet", {}) == change
        assert checked.tdnet.ramp_epochs is None
    commands = dict(programs.ran)
    same = Run(methods["TDNet same dilation"], 0)
    assert commands[f"train_{same.name}"] == (
        f"nnUNetv2_train 851 {same.name} 1 -tr nnUNetTrainerTDNet -p nnUNetPlans -device cpu".split()
    )
    assert commands[f"train_{Run(FULL, 0).name}"][1] == "852"
    assert commands["train_pilot_dmpls_lr0.001"][3] == str(PILOT_FOLD)
    assert commands[f"plan_{DENSE.name}"][1:5] == ["-d", "852", "-c", "2d"]


def test_all_models_are_scored_on_the_same_cases_against_full_masks(tmp_path, programs):
    main(arguments(tmp_path))
    commands = dict(programs.ran)
    folds = read_json(tmp_path / "out" / "nnUNet_preprocessed" / SCRIBBLES.name / "splits_final.json")
    cases = results(tmp_path)["cases"]
    for run in planned_runs("primary", 3):
        options = commands[f"evaluate_{run.name}"]
        assert options[3:10] == ["--on", "851:val", "--labels", MASKS, "--metrics", "dice", "surface"]
        patients = read_json(Path(options[options.index("--patients") + 1]))
        tested = folds[run.fold]["val"]
        assert list(cases[run.name]) == tested
        assert len(tested) == 4
        assert not {patients[case] for case in tested} & {patients[case] for case in folds[run.fold]["train"]}


def test_full_grid_adds_ablations_and_all_patients(tmp_path, programs):
    given = [one if one != "primary" else "full" for one in arguments(tmp_path, "--seeds", "1")]
    assert main(given) == 0
    assert results(tmp_path)["missing"] == []
    assert len(results(tmp_path)["finished_runs"]) == 2 * len(METHODS)


def test_results_of_one_configuration_do_not_replace_those_of_another(tmp_path, programs):
    for configuration in ("2d", "3d_fullres"):
        given = arguments(tmp_path, "--configuration", configuration, "--results", str(tmp_path / "results"))
        given[1] = str(tmp_path / configuration)
        assert main(given) == 0
    assert sorted(file.name for file in (tmp_path / "results").iterdir()) == [
        "scribbles_2d.json",
        "scribbles_2d.md",
        "scribbles_3d_fullres.json",
        "scribbles_3d_fullres.md",
    ]


def test_failed_command_leaves_the_results_of_what_is_there_and_is_repeated(tmp_path, programs, capsys):
    programs.fail_at = f"train_{planned_runs('primary', 3)[2].name}"
    assert main(arguments(tmp_path)) == 1
    assert "failed" in capsys.readouterr().err
    assert results(tmp_path)["finished_runs"] == [run.name for run in planned_runs("primary", 3)[:2]]
    failed, programs.fail_at = programs.fail_at, None
    programs.ran.clear()
    assert main(arguments(tmp_path)) == 0
    assert programs.ran[0][0] == failed


def test_interruption_leaves_the_results_of_what_is_there(tmp_path, programs, capsys):
    programs.fail_at = f"train_{planned_runs('primary', 3)[1].name}"
    programs.failure = KeyboardInterrupt()
    assert main(arguments(tmp_path)) == 130
    assert "goes on from here" in capsys.readouterr().err
    assert len(results(tmp_path)["finished_runs"]) == 1


def test_interrupted_preparation_goes_on(tmp_path, programs):
    programs.fail_at = f"plan_{DENSE.name}"
    assert main(arguments(tmp_path)) == 1
    programs.fail_at = None
    programs.ran.clear()
    assert main(arguments(tmp_path)) == 0
    assert programs.ran[0][0] == f"plan_{DENSE.name}"


def test_over_time_nothing_is_begun_and_results_are_written(tmp_path, programs, capsys):
    assert main(arguments(tmp_path, "--max-minutes", "0")) == 0
    assert programs.ran == []
    assert "Nothing is scored yet" in capsys.readouterr().out
    programs.fail_at = f"train_{planned_runs('primary', 3)[1].name}"
    main(arguments(tmp_path))
    (tmp_path / "out" / "scribbles_3d_fullres.json").unlink()
    programs.ran.clear()
    assert main(arguments(tmp_path, "--max-minutes", "0")) == 0
    assert programs.ran == []
    assert "goes on from here" in capsys.readouterr().out
    assert results(tmp_path)["finished_runs"] == [planned_runs("primary", 3)[0].name]


def test_other_request_in_the_same_folder_is_refused(tmp_path, programs, capsys):
    main(arguments(tmp_path, "--max-minutes", "0"))
    assert main(arguments(tmp_path, "--configuration", "2d")) == 2
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
    for name in ("scribbles_3d_fullres.json", "scribbles_3d_fullres.md"):
        text = (tmp_path / "results" / name).read_text(encoding="utf-8")
        for folder in (tmp_path, origin.parent, Path(scribbles.__file__).parent):
            assert str(folder) not in text
        assert "--patients '$OUT/patients.json'" in text or "--patients $OUT/patients.json" in text


def test_results_have_a_table_of_the_pilot(tmp_path, programs):
    main(arguments(tmp_path))
    text = (tmp_path / "out" / "scribbles_3d_fullres.md").read_text(encoding="utf-8")
    assert re.search(r"\| stock, ignore label +\| +0\.500 \| +0\.600 \| +0\.003 \|", text)
    assert re.search(r"\| TDNet +\| +0\.600 \| +0\.500 \| +0\.001 \|", text)
    assert "patches of 8 x 96 x 112, batch 2" in text
