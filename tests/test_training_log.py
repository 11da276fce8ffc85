"""What nnU-Net's output says about a training."""

import pytest

from nnunet_ext.training_log import Progress, planned_epochs, read_progress

LOG = """
[2026-01-01T00:00:00, attempt 1] $ nnUNetv2_train 4 2d 0
2026-01-01 00:00:00.000000: Epoch 0 
2026-01-01 00:00:01.000000: Pseudo dice [np.float32(0.5), np.float32(0.7)] 
2026-01-01 00:00:01.000000: Yayy! New best EMA pseudo Dice: 0.6 
2026-01-01 00:00:01.000000: Epoch 1 
2026-01-01 00:00:02.000000: Pseudo dice [np.float32(0.4), np.float32(nan)] 
2026-01-01 00:00:02.000000: Epoch 2 
"""  # noqa: W291  nnU-Net's own lines end with a blank


def test_a_log_tells_epoch_and_dice(tmp_path):
    log = tmp_path / "log"
    log.write_text(LOG)
    progress = read_progress(log)
    assert (progress.epoch, progress.has_trained) == (3, False)
    assert progress.last_dice == pytest.approx(0.4), "a label that no patch had is left out"
    assert progress.best_dice == pytest.approx(0.6)
    assert progress.last_line.endswith("Epoch 2")


def test_validation_is_told_apart_and_a_later_attempt_counts(tmp_path):
    log = tmp_path / "log"
    log.write_text(LOG + "00: Training done. \npredicting case_1\n 10%|#   |\r 20%|##  |")
    assert read_progress(log).has_trained
    assert read_progress(log).last_line == "20%|##  |"
    log.write_text(LOG + "00: Training done. \n00: Epoch 0 \n")
    assert not read_progress(log).has_trained
    assert read_progress(log).epoch == 1


def test_nothing_is_known_before_the_start(tmp_path):
    assert read_progress(tmp_path / "log") == Progress()
    assert planned_epochs(tmp_path) is None


def test_the_length_is_nnunets_own(tmp_path):
    (tmp_path / "debug.json").write_text('{"num_epochs": "250"}')
    assert planned_epochs(tmp_path) == 250
    (tmp_path / "debug.json").write_text('{"num_ep')
    assert planned_epochs(tmp_path) is None
