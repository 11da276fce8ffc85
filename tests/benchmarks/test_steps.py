import os
import time

import pytest

from benchmarks.provenance import REPOSITORY
from benchmarks.steps import (
    OutOfTime,
    Steps,
    epoch_seconds,
    open_folder,
    recorded_commands,
    resume_option,
    training_commits,
)
from nnunet_ext.demo.run import CommandFailed, CommandRunner
from nnunet_ext.errors import UserError
from nnunet_ext.registration import discovery_folder


def test_training_time_leaves_interruptions_out():
    curves = {"epoch_start_timestamps": [0.0, 1000.0], "epoch_end_timestamps": [10.0, 1012.0]}
    assert epoch_seconds(curves) == [10, 12]


def test_finished_steps_are_not_run_again_and_failed_ones_are(tmp_path):
    calls = []

    class Recording(CommandRunner):
        def run(self, name, command):
            self.shown.append(" ".join(command))
            calls.append(list(command))
            if name == "bad" and len(calls) < 3:
                raise CommandFailed("no")

    def steps():
        return Steps(Recording({}, tmp_path, total=2), tmp_path / "finished.json")

    first = steps()
    first.run("good", ["a", "b"])
    with pytest.raises(CommandFailed):
        first.run("bad", ["c"])
    second = steps()
    second.run("good", ["a", "b"])
    second.run("bad", ["c"], extra=["--c"])
    assert calls == [["a", "b"], ["c"], ["c", "--c"]]
    assert second.runner.shown == ["a b", "c"]
    assert list(second.finished()) == ["good", "bad"]


def test_steps_of_this_process_are_recorded_like_the_others(tmp_path):
    calls = []

    def steps():
        return Steps(CommandRunner({}, tmp_path, total=2), tmp_path / "finished.json")

    def fail():
        raise CommandFailed("no")

    first = steps()
    first.call("good", ["do", "a b"], lambda: calls.append(1))
    with pytest.raises(CommandFailed):
        first.call("bad", ["do", "c"], fail)
    second = steps()
    second.call("good", ["do", "a b"], lambda: calls.append(2))
    second.call("bad", ["do", "c"], lambda: calls.append(3))
    assert calls == [1, 3]
    assert second.runner.shown == ["do 'a b'", "do c"]


def test_no_step_is_begun_after_the_deadline_but_finished_ones_pass(tmp_path):
    calls = []
    steps = Steps(CommandRunner({}, tmp_path, total=2), tmp_path / "finished.json")
    steps.call("before", ["a"], lambda: calls.append("before"))
    steps.deadline = time.monotonic() - 1
    steps.call("before", ["a"], lambda: calls.append("again"))
    with pytest.raises(OutOfTime):
        steps.call("after", ["b"], lambda: calls.append("after"))
    assert calls == ["before"]


def test_only_a_training_with_a_checkpoint_is_continued(tmp_path):
    assert resume_option(tmp_path / "missing") == []
    (tmp_path / "checkpoint_latest.pth").touch()
    assert resume_option(tmp_path) == ["--c"]


def test_folder_is_made_with_its_folders_and_opened_again_for_the_same_request(tmp_path):
    out = tmp_path / "out ü"
    open_folder(out, {"lrs": [0.1]}, folders=["logs"])
    open_folder(out, {"lrs": [0.1]}, folders=["logs"])
    assert sorted(os.listdir(out)) == ["logs", "nnUNet_preprocessed", "nnUNet_raw", "nnUNet_results", "request.json"]
    with pytest.raises(UserError, match="Choose another"):
        open_folder(out, {"lrs": [0.2]}, folders=["logs"])


def test_commit_is_that_of_the_trainings():
    finished = {"plan": "old", "train_a": "first", "train_b": "first", "predict_a": "new"}
    assert training_commits(finished) == "first"
    assert training_commits({**finished, "train_b": "second"}) == "first; second"
    assert training_commits({"plan": "old", "train_a": None}) is None


def test_recorded_commands_name_no_folder_of_this_machine(tmp_path):
    folders = [str(discovery_folder()), "/opt/of the user", str(REPOSITORY / "benchmarks" / "more")]
    environment = {"nnUNet_raw": str(tmp_path / "nnUNet_raw"), "nnUNet_extTrainer": os.pathsep.join(folders)}
    runner = CommandRunner(environment, tmp_path, total=1, shown=[f"nnUNetv2_predict -i {tmp_path}/in"])
    assert recorded_commands(runner, tmp_path) == [
        "export nnUNet_raw=$OUT/nnUNet_raw",
        f"export nnUNet_extTrainer=$(nnunet_ext path){os.pathsep}benchmarks/more",
        "nnUNetv2_predict -i $OUT/in",
    ]
