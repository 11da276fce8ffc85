"""New datasets list images where they are; work on their cases goes on after an interruption."""

import json

from nnunet_ext.preprocessing.raw.new_dataset import CaseProgress, write_description
from nnunet_ext.preprocessing.raw.raw_dataset import Case


def test_an_image_that_is_a_link_is_listed_by_its_own_name(tmp_path, monkeypatch):
    """Beside which lies the spacing of a TIFF; what it leads to may have no ending, as in a cache."""
    folder = tmp_path / "raw" / "Dataset001_Origin" / "imagesTr"
    folder.mkdir(parents=True)
    (tmp_path / "cache").touch()
    (folder / "a_0000.tif").symlink_to(tmp_path / "cache")
    monkeypatch.setenv("nnUNet_raw", str(tmp_path / "raw"))
    cases = {"a": Case((folder / "a_0000.tif",), folder / "a.tif")}
    write_description(tmp_path, "Dataset002_New", cases, {"file_ending": ".tif"}, about={})
    listed = json.loads((tmp_path / "dataset.json").read_text())["dataset"]
    assert listed["a"]["images"] == ["../Dataset001_Origin/imagesTr/a_0000.tif"]


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
