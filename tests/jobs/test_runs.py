"""One training of a sweep: who runs it, and how it ends."""

from __future__ import annotations

from pathlib import Path

import pytest

from nnunet_ext.claims import Claim, holder
from nnunet_ext.jobs.runs import run_training
from nnunet_ext.jobs.sweep import FAILED, FINISHED, WAITING, Record, Resources, Sweep, SweepRequest


@pytest.fixture
def sweep(tmp_path: Path) -> Sweep:
    folders = {"nnUNet_results": str(tmp_path / "results")}
    request = SweepRequest("Dataset004_Phantoms", "2d", "nnUNetPlans", "nnUNetPlans", ["A"], [0, 1], None, folders)
    made = Sweep(tmp_path / "sweep", request, Resources("cpu", local=2))
    made.write()
    for training in made.trainings:
        made.remember(training, Record(WAITING))
    return made


def never() -> bool:
    return False


def run(sweep: Sweep, program: str, number: int = 0) -> Record | None:
    return run_training(sweep, sweep.trainings[number], program, never, patience_s=0.1)


def test_what_another_process_is_at_work_on_is_left_to_it(sweep: Sweep) -> None:
    with Claim(sweep.claim_file(sweep.trainings[0])) as other:
        assert other.take({})
        assert run(sweep, "false") is None
    record = run(sweep, "true")
    assert record is not None
    assert record.state == FINISHED


def test_what_is_finished_between_the_look_and_the_claim_is_let_go(
    sweep: Sweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    take = Claim.take

    def finish_then_take(self, content, **options):
        for training in sweep.trainings:
            validation = sweep.fold_folder(training) / "validation"
            validation.mkdir(parents=True, exist_ok=True)
            (validation / "summary.json").write_text("{}")
            (validation.parent / "checkpoint_final.pth").touch()
        return take(self, content, **options)

    monkeypatch.setattr(Claim, "take", finish_then_take)
    assert run(sweep, "false") is None
    assert holder(sweep.claim_file(sweep.trainings[0])) is None


def test_a_status_is_told_in_words(sweep: Sweep, tmp_path: Path) -> None:
    killed = tmp_path / "killed"
    killed.write_text("#!/bin/sh\nkill -9 $$\n")
    killed.chmod(0o755)
    assert run(sweep, "false") == Record(FAILED, 1, "exit status 1")
    assert run(sweep, str(killed)) == Record(FAILED, 2, "ended by SIGKILL")
    assert sweep.record(sweep.trainings[0]) == Record(FAILED, 2, "ended by SIGKILL")
