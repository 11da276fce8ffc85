import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from nnunet_ext.errors import UserError
from nnunet_ext.preprocessing.raw.raw_dataset import read_raw_dataset
from nnunet_ext.preprocessing.simulate.scribble_annotation import ScribbleAnnotation, chosen_axis, simulate_scribbles
from nnunet_ext.preprocessing.simulate.scribbles import Strokes
from support.raw_datasets import read_array, write_array, write_raw

FILE = Path("a.nii.gz")
NAMES = {"background": 0, "organ": 1, "tumour": 2}


@pytest.fixture
def raw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("nnUNet_raw", str(tmp_path))
    monkeypatch.delenv("nnUNet_preprocessed", raising=False)
    return tmp_path


def ball() -> np.ndarray:
    labels = np.zeros((6, 24, 24), np.uint8)
    labels[1:5, 4:20, 4:20] = 1
    labels[2, 10:12, 10] = 2
    return labels


def simulate(source: str, name: str, *, axis: str | None = None, seed: int = 0, **strokes) -> ScribbleAnnotation:
    return simulate_scribbles(read_raw_dataset(source), name, Strokes(**strokes), axis=axis, seed=seed, force=False)


def test_a_case_is_drawn_the_same_whatever_the_others_are(raw):
    write_raw(raw / "Dataset005_Three", {"a": ball(), "b": ball(), "c": ball()}, names=NAMES)
    write_raw(raw / "Dataset006_One", {"b": ball()}, names=NAMES)
    simulate("5", "Dataset007_Three")
    simulate("6", "Dataset008_One")
    simulate("6", "Dataset009_Seed", seed=1)
    three = [read_array(raw / "Dataset007_Three" / "labelsTr" / f"{case}.nii.gz") for case in "abc"]
    one, seeded = (read_array(raw / name / "labelsTr" / "b.nii.gz") for name in ("Dataset008_One", "Dataset009_Seed"))
    assert (three[1] == one).all()
    assert (three[0] != three[1]).any()
    assert (three[2] != three[1]).any()
    assert (seeded != one).any()


def test_ignore_of_the_source_stays_and_keeps_its_value(raw):
    labels = ball()
    labels[:, :3] = 3
    write_raw(raw / "Dataset005_Ignore", {"a": labels}, names={**NAMES, "ignore": 3})
    assert simulate("5", "Dataset006_S", noise=3.0).ignore == 3
    scribbles = read_array(raw / "Dataset006_S" / "labelsTr" / "a.nii.gz")
    assert (scribbles[:, :3] == 3).all()
    assert set(np.unique(scribbles)) == {0, 1, 2, 3}
    assert json.loads((raw / "Dataset006_S" / "dataset.json").read_text())["labels"] == {**NAMES, "ignore": 3}
    record = json.loads((raw / "Dataset006_S" / "scribbles.json").read_text())["cases"]["a"]
    assert record["whole"]["voxels"] == (labels != 3).sum()


def test_one_labelled_case_without_ignore_is_not_taken_for_one_with_it(raw):
    labels = ball()
    labels[0, 0, 0] = 3  # the value that the ignore label will have
    write_raw(raw / "Dataset005_Unlisted", {"a": labels}, names=NAMES)
    with pytest.raises(UserError, match="a.nii.gz has the value 3, but the labels are 0, 1, 2"):
        simulate("5", "Dataset006_S")


def test_labels_that_leave_no_value_for_ignore_are_refused(raw):
    write_raw(raw / "Dataset005_Large", {"a": ball()}, names={"background": 0, "organ": 1, "tumour": 65535})
    with pytest.raises(UserError, match="would be 65536, but 65535 is the largest"):
        simulate("5", "Dataset006_S")


def test_labels_above_255_are_taken(raw):
    labels = ball().astype(np.uint16) * 300
    write_raw(raw / "Dataset005_Large", {"a": labels}, names={"background": 0, "organ": 300, "tumour": 600})
    assert simulate("5", "Dataset006_S").ignore == 601
    scribbles = read_array(raw / "Dataset006_S" / "labelsTr" / "a.nii.gz")
    assert set(np.unique(scribbles)) == {0, 300, 600, 601}


def test_each_case_is_sliced_across_its_own_thickest_axis(raw):
    folder = write_raw(raw / "Dataset005_Mixed", {"a": ball(), "b": ball()}, names=NAMES)
    for file in ("imagesTr/b_0000.nii.gz", "labelsTr/b.nii.gz"):
        write_array(ball(), folder / file, spacing=(1.0, 5.0, 3.0))
    simulate("5", "Dataset006_S")
    simulate("5", "Dataset007_X", axis="x")
    axes = [
        {case: row["axis"] for case, row in json.loads((raw / name / "scribbles.json").read_text())["cases"].items()}
        for name in ("Dataset006_S", "Dataset007_X")
    ]
    assert axes == [{"a": "z", "b": "y"}, {"a": "x", "b": "x"}]


def test_slices_of_the_record_are_those_of_the_file(raw):
    write_raw(raw / "Dataset005_D", {"a": ball()}, names=NAMES)
    simulate("5", "Dataset006_S", axis="y", slices=0.25)
    scribbles = read_array(raw / "Dataset006_S" / "labelsTr" / "a.nii.gz")
    record = json.loads((raw / "Dataset006_S" / "scribbles.json").read_text())["cases"]["a"]
    assert record["slices"] == np.flatnonzero((scribbles != 3).any(axis=(0, 2))).tolist()
    # a quarter of 24, and maybe one more for the tumour
    assert 6 <= len(record["slices"]) <= 7


@pytest.mark.parametrize("reader", ["SimpleITKIO", "SimpleITKIOWithReorient", "NibabelIO", "NibabelIOWithReorient"])
def test_the_axis_and_the_slices_are_those_of_the_file_whatever_the_reader_turns(raw, reader):
    folder = write_raw(raw / "Dataset005_D", {"a": ball()}, names=NAMES, overwrite_image_reader_writer=reader)
    for file in (folder / "imagesTr" / "a_0000.nii.gz", folder / "labelsTr" / "a.nii.gz"):
        image = sitk.ReadImage(str(file))
        image.SetDirection((0, 0, 1, -1, 0, 0, 0, -1, 0))
        sitk.WriteImage(image, str(file))
    for axis, others in (("x", (0, 1)), ("y", (0, 2)), ("z", (1, 2))):
        simulate("5", f"Dataset00{6 + others[1] + others[0]}_{axis}", axis=axis, num_slices=2, noise=0.0)
        (made,) = raw.glob(f"Dataset*_{axis}")
        scribbles = read_array(made / "labelsTr" / "a.nii.gz")
        record = json.loads((made / "scribbles.json").read_text())["cases"]["a"]
        assert record["axis"] == axis
        assert record["slices"] == np.flatnonzero((scribbles != 3).any(axis=others)).tolist()
        assert len(record["slices"]) <= 3


def of_spacing(*spacing: float) -> dict[str, object]:
    return {"spacing": spacing}


def test_axis_of_a_flat_image_is_its_one():
    assert chosen_axis(None, (1, 9, 9), of_spacing(999, 1, 1), file=FILE) == 0
    assert chosen_axis("z", (1, 9, 9), of_spacing(999, 1, 1), file=FILE) == 0
    assert chosen_axis("x", (2, 9, 9), of_spacing(9, 1, 1), file=FILE) == 2
    with pytest.raises(UserError, match=r"a.nii.gz has one slice, so that slices across x would be lines"):
        chosen_axis("x", (1, 9, 9), of_spacing(999, 1, 1), file=FILE)
