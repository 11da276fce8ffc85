"""What a sweep trains, and by which command."""

import re
import shlex

import pytest

from nnunet_ext.arguments import parse_settings
from nnunet_ext.errors import UserError
from nnunet_ext.files import read_json, write_json
from nnunet_ext.jobs.control import open_sweep
from nnunet_ext.jobs.sweep import CHECKPOINTS, FAILED, FINISHED, Record, Resources, Sweep, SweepRequest


def sweep_in(root, **changes):
    content = {
        "dataset": "Dataset004_Phantoms",
        "configuration": "2d",
        "plans": "MyPlans",
        "plans_name": "nnUNetPlans",
        "trainers": ["A", "B"],
        "folds": [0, "all"],
        "seeds": None,
        "folders": {
            name: str(root / name.removeprefix("nnUNet_")) for name in ("nnUNet_preprocessed", "nnUNet_results")
        },
    }
    return Sweep(root / "sweep", SweepRequest(**{**content, **changes}), Resources("cpu", local=1))


def test_a_sweep_is_every_combination_trainers_side_by_side(tmp_path):
    names = [training.name for training in sweep_in(tmp_path).trainings]
    assert names == ["A__2d__fold_0", "B__2d__fold_0", "A__2d__fold_all", "B__2d__fold_all"]
    seeded = sweep_in(tmp_path, trainers=["A"], seeds=[0, 3]).trainings
    assert [(one.configuration, one.fold, one.seed) for one in seeded] == [
        ("2d_s0", 0, 0),
        ("2d_s0", "all", 0),
        ("2d_s3", 0, 3),
        ("2d_s3", "all", 3),
    ]


@pytest.mark.parametrize("checkpoint", CHECKPOINTS)
def test_the_command_continues_from_any_checkpoint_that_nnunet_takes(tmp_path, checkpoint):
    sweep = sweep_in(tmp_path)
    training = sweep.trainings[0]
    command = ["nnUNetv2_train", "Dataset004_Phantoms", "2d", "0", "-tr", "A", "-p", "MyPlans", "-device", "cpu"]
    assert sweep.command(training) == command
    folder = tmp_path / "results" / "Dataset004_Phantoms" / "A__nnUNetPlans__2d" / "fold_0"
    folder.mkdir(parents=True)
    (folder / checkpoint).touch()
    assert sweep.command(training) == [*command, "--c"]
    assert "--c" not in sweep.command(sweep.trainings[1])


def test_finished_is_a_final_checkpoint_with_its_validation_or_a_command_that_succeeded(tmp_path):
    sweep = sweep_in(tmp_path)
    sweep.write()
    training = sweep.trainings[0]
    folder = sweep.fold_folder(training)
    (folder / "validation").mkdir(parents=True)
    (folder / "checkpoint_final.pth").touch()
    assert not sweep.is_finished(training)
    sweep.remember(training, Record(FAILED, 1))
    assert not sweep.is_finished(training)
    sweep.remember(training, Record(FINISHED, 1))
    assert sweep.is_finished(training)
    (folder / "checkpoint_final.pth").unlink()
    assert not sweep.is_finished(training), "the model was deleted"
    (folder / "checkpoint_final.pth").touch()
    sweep.remember(training, Record())
    (folder / "validation" / "summary.json").write_text('{"mean": {')  # the disk was full
    assert not sweep.is_finished(training)
    (folder / "validation" / "summary.json").write_text("{}")
    assert sweep.is_finished(training)


def test_a_sweep_is_read_as_it_was_written(tmp_path):
    sweep = sweep_in(tmp_path, seeds=[1])
    sweep.write()
    assert Sweep.read(sweep.folder) == sweep


def test_resources_are_shown_as_options():
    assert Resources("cuda", local=2).options() == "--device cuda --local 2"
    slurm = {"time": 60, "partition": "gpu", "setup": ["module load x"], "exclusive": True}
    shown = shlex.split(Resources("cuda", slurm=slurm).options())
    assert shown[:3] == ["--device", "cuda", "--slurm"]
    assert parse_settings(shown[3:]) == slurm


@pytest.mark.parametrize(
    "changes", [{"configuration": "../2d"}, {"plans_name": "a\nb"}, {"trainers": ["A", "x" * 300]}]
)
def test_names_that_no_folder_can_have_are_refused_before_anything_is_written(tmp_path, changes):
    sweep = sweep_in(tmp_path, **changes)
    with pytest.raises(UserError, match=r"The sweep .*sweep: .* cannot be the name of a folder: .* Rename it"):
        open_sweep(sweep.folder, sweep.request, sweep.resources)
    assert not sweep.folder.exists()


def test_a_folder_without_a_sweep_is_refused(tmp_path):
    with pytest.raises(UserError, match="holds no sweep"):
        Sweep.read(tmp_path)
    (tmp_path / "sweep.json").write_text('{"request": {"datasets": 1}, "resources": {}}')
    with pytest.raises(UserError, match="is not as nnunet_ext jobs writes it"):
        Sweep.read(tmp_path)


def test_a_wrong_value_in_a_sweeps_files_is_named(tmp_path):
    sweep = sweep_in(tmp_path)
    sweep.write()
    record = tmp_path / "sweep" / "trainings" / f"{sweep.trainings[0].name}.json"
    record.write_text('{"state": "failed", "attempts": "often"}')
    with pytest.raises(UserError, match=r"fold_0\.json is not as .*:\n  - attempts: .*valid integer"):
        sweep.record(sweep.trainings[0])
    record.write_text('{"status": "failed"}')
    with pytest.raises(UserError, match="status: Unexpected keyword argument"):
        sweep.record(sweep.trainings[0])
    content = read_json(tmp_path / "sweep" / "sweep.json")
    write_json(tmp_path / "sweep" / "sweep.json", {**content, "resources": {"device": None}})
    with pytest.raises(UserError, match=r"sweep\.json is not as .*:\n  - resources\.device: "):
        Sweep.read(tmp_path / "sweep")


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"folders": {"nnUNet_raw": "/raw", "nnUNet_preprocessed": "/pre"}}, "'nnUNet_results' is missing"),
        ({"folders": {"nnUNet_results": "/results"}}, "'nnUNet_preprocessed' is missing"),
        ({"more": {"PYTHONPATH": "/evil"}}, "'PYTHONPATH' is none of nnU-Net's folders"),
        ({"more": {"nnUNet_extTrainer": "/evil"}}, "'nnUNet_extTrainer' is none of nnU-Net's folders"),
        ({"more": {"nnUNet_results": "results"}}, "'nnUNet_results' must be an absolute path; 'results' was found"),
        ({"plans": "../../other"}, "'../../other' cannot be the name"),
    ],
)
def test_a_sweep_hands_on_nnunets_folders_alone(tmp_path, changes, told):
    sweep = sweep_in(tmp_path)
    sweep.write()
    content = read_json(tmp_path / "sweep" / "sweep.json")
    more = changes.pop("more", {})
    request = {**content["request"], **changes}
    request["folders"] = {**request["folders"], **more}
    write_json(tmp_path / "sweep" / "sweep.json", {**content, "request": request})
    with pytest.raises(UserError, match=re.escape(told)):
        Sweep.read(tmp_path / "sweep")


def test_a_sweep_of_a_self_training_names_the_raw_data_too(tmp_path):
    names = ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")
    sweep = sweep_in(tmp_path, folders={name: str(tmp_path / name) for name in names})
    sweep.write()
    assert Sweep.read(sweep.folder) == sweep
