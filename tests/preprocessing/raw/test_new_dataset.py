"""Work on the cases of a dataset that goes on after an interruption."""

from nnunet_ext.preprocessing.raw.new_dataset import CaseProgress


def test_a_case_is_done_only_with_the_same_state(tmp_path):
    progress = CaseProgress(tmp_path)
    assert progress.result("a", [1, 2]) is None
    progress.keep("a", (1, 2), {"voxels": 3})
    again = CaseProgress(tmp_path)
    assert again.result("a", [1, 2]) == {"voxels": 3}
    assert again.result("a", [1, 3]) is None
    assert again.result("b", [1, 2]) is None


def test_nothing_is_left_when_all_is_done(tmp_path):
    progress = CaseProgress(tmp_path)
    progress.keep("a", 0, 1)
    progress.close()
    assert list(tmp_path.iterdir()) == []
