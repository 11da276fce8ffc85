"""The demonstration on stand-ins for nnU-Net's programs: what is shown is what runs, and failures are explained."""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from nnunet_ext.claims import only_run
from nnunet_ext.cli import main
from nnunet_ext.commands.demo import TECHNIQUES
from nnunet_ext.demo import run as demo
from nnunet_ext.demo.datasets import write_follow_up_dataset, write_phantom_dataset
from nnunet_ext.demo.run import WITH_PRIOR
from nnunet_ext.errors import UserError
from nnunet_ext.plans.channel_roles import roles_of_dataset
from nnunet_ext.programs import child_environment, find_executable
from nnunet_ext.registry import TRAINERS
from nnunet_ext.training_log import last_lines

PYTHON = sys.executable
PROGRAMS = (
    "nnUNetv2_plan_and_preprocess",
    "nnunet_ext",
    "nnUNetv2_train",
    "nnUNetv2_predict",
    "nnUNetv2_evaluate_folder",
)

# Does what nnU-Net's program of the same name leaves behind, without doing its work, and notes how it was called.
STAND_IN = """
import json, os, shutil, sys
from pathlib import Path

here = Path(__file__).parent
name, args = Path(sys.argv[0]).name, sys.argv[1:]
options = dict(zip(args, args[1:]))
with open(here / "calls.jsonl", "a") as file:
    environment = {key: value for key, value in os.environ.items() if key.startswith("nnUNet_")}
    file.write(json.dumps({"command": [name, *args], "environment": environment}) + "\\n")
print("output of", name)
if (here / f"{name} fails").exists():
    sys.exit("the reason of the failure")
if [name, *args[:1]] == ["nnunet_ext", "pair"]:
    from nnunet_ext.cli import main  # which is quick enough to be there itself
    sys.exit(main(args))
if name == "nnUNetv2_evaluate_folder":
    labels = json.loads(Path(options["-djfile"]).read_text())["labels"].values()
    cases = [
        {
            "reference_file": str(path),
            "prediction_file": str(Path(args[1]) / path.name),
            "metrics": {str(label): {"Dice": 1.0} for label in labels if label},
        }
        for path in sorted(Path(args[0]).iterdir())
    ]
    (Path(args[1]) / "summary.json").write_text(json.dumps({"metric_per_case": cases}))
    sys.exit()
number = int(options.get("-d", args[0]))
raw, = Path(os.environ["nnUNet_raw"]).glob(f"Dataset{number:03d}_*")
preprocessed = Path(os.environ["nnUNet_preprocessed"]) / raw.name
if name == "nnUNetv2_plan_and_preprocess":
    preprocessed.mkdir()
elif name == "nnunet_ext":
    (preprocessed / "nnUNetPlans.json").write_text('{"configurations": {"2d": {}, "3d_fullres_quick": {}}}')
elif name == "nnUNetv2_train":
    cases = sorted(path.name.removesuffix(".nii.gz") for path in (raw / "labelsTr").iterdir())
    (preprocessed / "splits_final.json").write_text(json.dumps([{"train": cases[:-1], "val": cases[-1:]}]))
    model = Path(os.environ["nnUNet_results"]) / raw.name / f"{options['-tr']}__nnUNetPlans__{args[1]}"
    (model / "fold_0").mkdir(parents=True)
    shutil.copy(here / "checkpoint_final.pth", model / "fold_0")
    shutil.copy(raw / "dataset.json", model)
    (model / "plans.json").write_text("{}")
elif name == "nnUNetv2_predict":
    out = Path(options["-o"])
    out.mkdir(parents=True)
    shutil.copy(raw / "dataset.json", out)
    for image in Path(options["-i"]).glob("*_0000.nii.gz"):
        label = image.name.replace("_0000", "")
        shutil.copy(next(raw.parent.glob(f"*/labelsT?/{label}")), out / label)
"""


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with an interpreter and stand-ins beside it, as in a virtual environment."""
    folder = tmp_path / "environment with spaces" / "bin"
    folder.mkdir(parents=True)
    for name in PROGRAMS:
        # as pip writes it where a path has spaces: a line of the shell that is a string to Python
        (folder / name).write_text(f"#!/bin/sh\n'''exec' \"{PYTHON}\" \"$0\" \"$@\"\n' '''\n{STAND_IN}")
        (folder / name).chmod(0o755)
    checkpoint = {
        "network_weights": {"weight": torch.zeros(2)},
        "trainer_name": "nnUNetTrainerExample",
        "init_args": {
            "plans": {"configurations": {"3d_fullres_quick": {"architecture": {}}}},
            "configuration": "3d_fullres_quick",
            "fold": 0,
        },
        "logging": {"train_losses": [1.0, 0.5], "val_losses": [1.0, 0.6], "loss/mixup": [np.nan, 0.3]},
    }
    torch.save(checkpoint, folder / "checkpoint_final.pth")
    monkeypatch.setattr(sys, "executable", str(folder / "python"))
    monkeypatch.setattr(demo, "available_cores", lambda: 2)
    monkeypatch.setattr(demo, "write_phantom_dataset", lambda raw: write_phantom_dataset(raw, cases=2, test_cases=1))
    monkeypatch.setattr(
        demo,
        "write_follow_up_dataset",
        lambda raw: write_follow_up_dataset(raw, cases=2, test_cases=1, without_prior=1),
    )
    for name in [name for name in os.environ if name.startswith("nnUNet_")]:
        monkeypatch.delenv(name)
    return folder


def calls(programs: Path) -> list[dict]:
    return [json.loads(line) for line in (programs / "calls.jsonl").read_text().splitlines()]


def read(file: Path) -> np.ndarray:
    return sitk.GetArrayFromImage(sitk.ReadImage(str(file)))


def program(programs: Path, name: str, text: str) -> None:
    (programs / name).write_text(f"#!/bin/sh\n{textwrap.dedent(text)}")
    (programs / name).chmod(0o755)


def is_running(pid: int) -> bool:
    """Whether a process runs; one that has ended and that nobody has waited for does not."""
    if Path("/proc/self/stat").exists():
        stat = Path(f"/proc/{pid}/stat")
        return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z"
    state = subprocess.run(["ps", "-o", "state=", "-p", str(pid)], capture_output=True, text=True, check=False).stdout
    return bool(state.strip()) and not state.startswith("Z")


def test_commands_shown_are_the_commands_run(
    tmp_path: Path, programs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out with spaces"
    assert main(["demo", "--out", str(out), "--device", "cpu", "--epochs", "2"]) == 0
    printed = capsys.readouterr().out
    lines = [line.split("$ ", 1)[1] for line in printed.splitlines() if "$ " in line]
    exports = dict(shlex.split(line)[1].split("=", 1) for line in lines if line.startswith("export "))
    commands = [shlex.split(line) for line in lines if not line.startswith("export ")]
    run = calls(programs)
    assert [call["command"] for call in run] == commands
    assert [command[0] for command in commands] == [*PROGRAMS[:3], "nnUNetv2_train", *PROGRAMS[3:], *PROGRAMS[3:]]
    assert all(call["environment"] == exports for call in run)
    assert exports["nnUNet_raw"] == str(out / "nnUNet_raw")
    trained = [call["command"][5] for call in run if call["command"][0] == "nnUNetv2_train"]
    assert trained == ["nnUNetTrainerConfigurable", "nnUNetTrainerMixUp"]
    assert run[1]["command"][-2:] == ["--epochs", "2"]


def test_demo_writes_report_with_commands_and_numbered_logs(tmp_path: Path, programs: Path) -> None:
    out = tmp_path / "out"
    demo.run_demo(out, trainer="nnUNetTrainerMixUp", device="cpu")
    page = (out / "report.html").read_text()
    assert "nnUNetv2_train 900 3d_fullres_quick 0 -tr nnUNetTrainerMixUp -device cpu" in page
    assert "loss/mixup" in page
    assert "phantom_test_000" in page
    logs = sorted(path.name for path in (out / "logs").iterdir())
    assert len(logs) == 8
    assert logs[0] == "01_plan_and_preprocess.log"
    assert "output of nnUNetv2_train" in (out / "logs" / "04_train_nnUNetTrainerMixUp.log").read_text()


def test_environment_of_this_process_stays(tmp_path: Path, programs: Path) -> None:
    before = dict(os.environ)
    demo.run_demo(tmp_path / "out", trainer="nnUNetTrainerMixUp", device="cpu")
    assert dict(os.environ) == before


def test_with_a_prior_stock_sees_the_current_scans_alone_and_the_technique_both(
    tmp_path: Path, programs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out with spaces"
    assert main(["demo", "--technique", "dual-encoder", "--out", str(out), "--device", "cpu"]) == 0
    printed = capsys.readouterr().out
    commands = [shlex.split(line.split("$ ", 1)[1]) for line in printed.splitlines() if re.match(r"\[\d+/15\] ", line)]
    run = [call["command"] for call in calls(programs)]
    assert run == commands
    assert len(run) == 15
    assert [(command[1], command[5]) for command in run if command[0] == "nnUNetv2_train"] == [
        ("901", "nnUNetTrainerConfigurable"),
        ("902", "nnUNetTrainerDualEncoder"),
    ]
    raw = out / "nnUNet_raw"
    alone, both = (
        json.loads((raw / name / "dataset.json").read_text()) for name in ("Dataset901_FollowUp", WITH_PRIOR)
    )
    assert list(alone["channel_names"].values()) == ["MRI"]
    assert list(both["channel_names"].values()) == ["MRI", "prior MRI", "noNorm"]
    assert roles_of_dataset(both).prior == [1, 2]
    assert alone["labels"] == both["labels"] == {"background": 0, "lesion": 1}
    for part in ("imagesTr/patient_000_0000.nii.gz", "labelsTr/patient_000.nii.gz"):
        first, second = (read(raw / name / part) for name in ("Dataset901_FollowUp", WITH_PRIOR))
        np.testing.assert_array_equal(first, second)

    # the same patients are predicted with their prior scans, and as if there were none
    predicted = [dict(zip(call["command"], call["command"][1:])) for call in calls(programs)]
    folders = [Path(options["-i"]) for options in predicted if "-i" in options]
    names = [{path.name for path in folder.glob("*_0000.nii.gz")} for folder in folders]
    assert names == [{"patient_test_000_0000.nii.gz"}] * 3
    current = read(folders[0] / "patient_test_000_0000.nii.gz")
    for folder in folders[1:]:
        np.testing.assert_array_equal(read(folder / "patient_test_000_0000.nii.gz"), current)
    for channel in ("0001", "0002"):
        with_prior, withheld = (read(folder / f"patient_test_000_{channel}.nii.gz") for folder in folders[1:])
        assert with_prior.any()
        assert not withheld.any()
    page = (out / "report.html").read_text()
    for name in ("stock nnU-Net, current scan", "DualEncoder", "DualEncoder, prior withheld"):
        assert name in page
    assert "1 test patients of Dataset901_FollowUp" in page


def test_own_data_without_a_prior_is_refused_before_anything_runs(
    tmp_path: Path, programs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_phantom_dataset(tmp_path, dataset_id=12, name="Own", cases=2, test_cases=0)
    out = tmp_path / "out"
    assert main(["demo", "--technique", "dual-encoder", "--data", str(data), "--out", str(out)]) == 2
    assert "no prior scan" in capsys.readouterr().err
    assert not out.exists()
    assert not (programs / "calls.jsonl").exists()


def test_own_data_with_a_prior_is_given_to_both(tmp_path: Path, programs: Path) -> None:
    data = write_phantom_dataset(tmp_path / "mine", dataset_id=12, name="Own", cases=5, test_cases=1)
    description = json.loads((data / "dataset.json").read_text())
    description["channel_names"]["1"] = "prior"
    (data / "dataset.json").write_text(json.dumps(description))
    for image in list(data.glob("imagesT?/*_0000.nii.gz")):
        shutil.copy(image, image.with_name(image.name.replace("_0000", "_0001")))
    arguments = ["demo", "--technique", "dual-encoder", "--data", str(data), "--out", str(tmp_path / "out")]
    assert main([*arguments, "--device", "cpu"]) == 0
    trained = [call["command"] for call in calls(programs) if call["command"][0] == "nnUNetv2_train"]
    assert [(command[1], command[5]) for command in trained] == [
        ("12", "nnUNetTrainerConfigurable"),
        ("12", "nnUNetTrainerDualEncoder"),
    ]


def test_fewer_cases_than_folds_are_refused_before_anything_is_planned(tmp_path: Path, programs: Path) -> None:
    data = write_phantom_dataset(tmp_path / "mine", dataset_id=12, name="Own", cases=4, test_cases=1)
    with pytest.raises(UserError, match=r"has 4 cases, and nnU-Net draws 5 folds.*splits_final\.json"):
        demo.run_demo(tmp_path / "out", trainer="nnUNetTrainerMixUp", data=data, device="cpu")
    assert not (tmp_path / "out").exists()


def test_own_data_without_test_labels_is_evaluated_on_the_validation_cases(tmp_path: Path, programs: Path) -> None:
    data = write_phantom_dataset(tmp_path / "mine", dataset_id=12, name="Own", cases=3, test_cases=0)
    # few cases need folds of their own; the stand-in for planning writes those of this test
    (data / "splits_final.json").write_text("[]")
    before = {path: path.read_bytes() for path in data.rglob("*") if path.is_file()}
    out = tmp_path / "out"
    demo.run_demo(out, trainer="nnUNetTrainerMixUp", data=data, device="cpu")
    assert [path.name for path in (out / "held_out" / "images").iterdir()] == ["phantom_002_0000.nii.gz"]
    assert "validation cases of fold 0" in (out / "report.html").read_text()
    assert calls(programs)[0]["command"][1:3] == ["-d", "12"]
    assert {path: path.read_bytes() for path in data.rglob("*") if path.is_file()} == before


def test_failure_names_command_log_and_reason_and_exits_1(
    tmp_path: Path, programs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (programs / "nnUNetv2_train fails").touch()
    assert main(["demo", "--out", str(tmp_path / "out"), "--device", "cpu"]) == 1
    message = capsys.readouterr().err
    assert "nnUNetv2_train 900 3d_fullres_quick 0 -tr nnUNetTrainerConfigurable" in message
    assert "the reason of the failure" in message
    assert str(tmp_path / "out" / "logs" / "03_train_nnUNetTrainerConfigurable.log") in message
    assert "Traceback" not in message


def test_output_folder_with_content_is_refused_without_force(
    tmp_path: Path, programs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("precious")
    assert main(["demo", "--out", str(tmp_path / "out"), "--device", "cpu"]) == 2
    assert "not empty" in capsys.readouterr().err
    assert not (programs / "calls.jsonl").exists()


@pytest.mark.skipif(os.name == "nt", reason="Windows has other locks")
def test_a_folder_that_another_demo_is_writing_is_refused(
    tmp_path: Path, programs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with only_run(tmp_path / "out"):
        assert main(["demo", "--out", str(tmp_path / "out"), "--device", "cpu"]) == 2
    assert "Another run" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "missing", "message"),
    [
        ("Own", None, "DatasetXXX_Name"),
        ("Dataset012_Own", "dataset.json", "no dataset.json"),
        ("Dataset012_Own", "labelsTr", "no labelsTr"),
    ],
)
def test_data_that_is_no_raw_dataset_is_refused(tmp_path: Path, name: str, missing: str | None, message: str) -> None:
    data = tmp_path / name
    for part in {"imagesTr", "labelsTr"} - {missing}:
        (data / part).mkdir(parents=True)
    if missing != "dataset.json":
        (data / "dataset.json").write_text("{}")
    with pytest.raises(UserError, match=message):
        demo.check_data(data, tmp_path / "out")


def test_data_whose_images_are_elsewhere_is_refused_with_that_reason(tmp_path: Path) -> None:
    data = tmp_path / "Dataset012_Simulated"
    (data / "labelsTr").mkdir(parents=True)
    (data / "dataset.json").write_text('{"dataset": {"a": {"images": ["../Dataset001_A/a.nii.gz"], "label": "b"}}}')
    with pytest.raises(UserError, match="lists its images in dataset.json, as they are in other folders"):
        demo.check_data(data, tmp_path / "out")


@pytest.mark.parametrize("out", [".", "Dataset001_A", "Dataset001_A/out"])
def test_output_that_holds_the_data_or_lies_in_it_is_refused(tmp_path: Path, out: str) -> None:
    data = write_phantom_dataset(tmp_path, dataset_id=1, name="A", cases=1, test_cases=0)
    with pytest.raises(UserError, match="The output .* the input"):
        demo.run_demo(tmp_path / out, trainer="nnUNetTrainerMixUp", data=data, device="cpu", force=True)
    assert (data / "dataset.json").exists()


def test_cores_decide_worker_processes_unless_the_user_did(tmp_path: Path) -> None:
    assert child_environment(tmp_path, {}, cores=2)["nnUNet_n_proc_DA"] == "1"
    assert "nnUNet_n_proc_DA" not in child_environment(tmp_path, {}, cores=16)
    chosen = {"nnUNet_n_proc_DA": "3", "nnUNet_def_n_proc": "5"}
    assert not chosen.keys() & child_environment(tmp_path, chosen, cores=2).keys()
    assert child_environment(tmp_path, {"nnUNet_n_proc_DA": "0"}, cores=2)["nnUNet_n_proc_DA"] == "1"


def test_trainer_folders_of_the_user_are_kept(tmp_path: Path) -> None:
    value = child_environment(tmp_path, {"nnUNet_extTrainer": "/my/trainers"}, cores=2)["nnUNet_extTrainer"]
    assert value.split(os.pathsep)[0] == "/my/trainers"
    assert value.split(os.pathsep)[1].endswith("discovery")


def test_programs_beside_the_interpreter_win_over_path(
    tmp_path: Path, programs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    for name in ("nnUNetv2_train", "only_on_path"):
        program(other, name, "exit 0")
    monkeypatch.setenv("PATH", str(other))
    assert find_executable("nnUNetv2_train") == programs / "nnUNetv2_train"
    assert find_executable("only_on_path") == other / "only_on_path"
    with pytest.raises(UserError, match="no_such_program"):
        find_executable("no_such_program")


def test_training_status_reads_the_last_epoch_and_its_scores(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text(
        "2026-01-01 00:00:00.0: Epoch 0\n"
        "2026-01-01 00:00:00.0: Pseudo dice [np.float32(0.1), np.float32(0.2)]\n"
        "2026-01-01 00:00:00.0: Epoch 1\n"
        "2026-01-01 00:00:00.0: Pseudo dice [np.float32(0.9123), np.float32(nan), np.float32(3e-04)]\n"
        "2026-01-01 00:00:00.0: Epoch time: 3.1 s\n"
    )
    assert demo.training_status(log) == "epoch 2, pseudo Dice 0.91 nan 0.00"
    log.write_text("0: Epoch 4\n0: Pseudo dice [0.5, nan]\n0: Training done.\npredicting case_a\n")  # NumPy 1's repr
    assert demo.training_status(log) == "validating after epoch 5, pseudo Dice 0.50 nan"
    log.write_text("  0%|    | 0/3\r 33%|###  | 1/3\r")
    assert demo.training_status(log) == ""
    assert last_lines(log, 1) == [" 33%|###  | 1/3"]


def test_interrupt_ends_the_command_and_what_it_started(tmp_path: Path, programs: Path) -> None:
    pids = tmp_path / "pids"
    program(programs, "endless", f"sleep 60 &\necho $$ $! > '{pids}.new'; mv '{pids}.new' '{pids}'\nwait\n")
    script = textwrap.dedent(
        f"""
        import sys
        from pathlib import Path
        from nnunet_ext import stopping
        from nnunet_ext.demo import run as demo
        sys.executable = {str(programs / "python")!r}
        with stopping.stopping_signals_interrupt():
            demo.CommandRunner({{}}, Path({str(tmp_path)!r}), total=1).run("endless", ["endless"])
        """
    )
    with subprocess.Popen([PYTHON, "-c", script], stderr=subprocess.PIPE) as process:
        deadline = time.monotonic() + 120
        while not pids.exists() and time.monotonic() < deadline:
            time.sleep(0.1)
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=120)
    assert b"KeyboardInterrupt" in errors
    for pid in map(int, pids.read_text().split()):
        assert not is_running(pid)


def test_every_technique_has_a_registered_trainer() -> None:
    assert set(TECHNIQUES.values()) <= {entry.name for entry in TRAINERS}
