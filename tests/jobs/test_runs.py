"""What is taken of a sweep; what is done with it is tested in test_local.py and test_slurm.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from nnunet_ext.jobs.claims import Claim, holder
from nnunet_ext.jobs.runs import describe_status, take
from nnunet_ext.jobs.sweep import FAILED, RUNNING, WAITING, Means, Record, Request, Sweep


@pytest.fixture
def sweep(tmp_path: Path) -> Sweep:
    folders = {"nnUNet_results": str(tmp_path / "results")}
    request = Request("Dataset004_Phantoms", "2d", "nnUNetPlans", "nnUNetPlans", ["A"], [0, 1], None, folders)
    made = Sweep(tmp_path / "sweep", request, Means("cpu", local=2))
    made.write()
    for training in made.trainings:
        made.remember(training, Record(WAITING))
    return made


def test_what_another_job_holds_or_what_has_failed_is_passed_over(sweep: Sweep) -> None:
    first, second = sweep.trainings
    with Claim(sweep.claim_file(first)) as other:
        assert other.take({})
        taken = take(sweep, sweep.trainings, patience_s=0.1)
        assert taken is not None
        assert taken[0] == second
        taken[1].release()
    sweep.remember(first, Record(FAILED, 1))
    sweep.remember(second, Record(RUNNING, 1))  # as left by a job that was killed
    taken = take(sweep, sweep.trainings, patience_s=0.1)
    assert taken is not None
    assert taken[0] == second
    taken[1].release()


def test_what_is_finished_between_the_look_and_the_claim_is_let_go(
    sweep: Sweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    take_claim = Claim.take

    def finish_then_take(self, content, **options):
        for training in sweep.trainings:
            validation = sweep.fold_folder(training) / "validation"
            validation.mkdir(parents=True, exist_ok=True)
            (validation / "summary.json").touch()
            (validation.parent / "checkpoint_final.pth").touch()
        return take_claim(self, content, **options)

    monkeypatch.setattr(Claim, "take", finish_then_take)
    assert take(sweep, sweep.trainings, patience_s=0.1) is None
    assert holder(sweep.claim_file(sweep.trainings[0])) is None


def test_a_status_is_told_in_words() -> None:
    assert describe_status(1) == "exit status 1"
    assert describe_status(-9) == "ended by SIGKILL"
