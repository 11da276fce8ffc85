"""``nnunet_ext simulate instances``: what it writes, keeps and refuses."""

import json
from pathlib import Path

import numpy as np
import pytest

from nnunet_ext.cli import main
from support.raw_datasets import read_array, write_array, write_raw

NAMES = {"background": 0, "lesion": 1, "node": 2, "ignore": 3}


def with_boxes(*boxes: tuple[int, slice, slice]) -> np.ndarray:
    labels = np.zeros((4, 12, 12), np.uint16)
    for value, rows, columns in boxes:
        labels[1:3, rows, columns] = value
    return labels


# lesions of 8, 18 and 2 voxels and a node of 4 beside a slab of the ignore label
FIRST = with_boxes(
    (1, slice(0, 2), slice(0, 2)),
    (1, slice(0, 3), slice(6, 9)),
    (1, slice(8, 9), slice(0, 1)),
    (2, slice(8, 10), slice(8, 9)),
)
FIRST[0] = 3
SECOND = with_boxes((1, slice(5, 7), slice(5, 7)))
EMPTY = with_boxes()


@pytest.fixture
def source(raw: Path) -> Path:
    """A dataset of three cases, one of them without foreground, with folds."""
    folder = write_raw(raw / "Dataset005_Dense", {"a": FIRST, "b": SECOND, "c": EMPTY}, names=NAMES)
    (folder / "splits_final.json").write_text(json.dumps([{"train": ["a", "b"], "val": ["c"]}]))
    return folder


def simulate(*options: str, keep: str = "0.5", name: str = "Dataset006_Partial") -> int:
    return main(["simulate", "instances", "5", "-o", name, "--keep", keep, *options])


def refusal(capsys: pytest.CaptureFixture[str], raw: Path, *options: str, keep: str = "0.5") -> str:
    """What it says when it leaves nothing."""
    before = sorted(raw.iterdir())
    assert simulate(*options, keep=keep) == 2
    assert sorted(raw.iterdir()) == before
    return capsys.readouterr().err


def test_largest_instances_stay_and_the_dense_labels_are_kept(source, raw, capsys):
    assert simulate("--order", "largest") == 0
    new = raw / "Dataset006_Partial"
    expected = FIRST.copy()
    expected[1:3, 8:10] = 0  # the two smallest of four
    assert (read_array(new / "labelsTr" / "a.nii.gz") == expected).all()
    assert (read_array(new / "labelsTr" / "b.nii.gz") == SECOND).all()
    assert (read_array(new / "labelsTr" / "c.nii.gz") == 0).all()
    for case, labels in (("a", FIRST), ("b", SECOND), ("c", EMPTY)):
        assert (read_array(new / "labelsTr_dense" / f"{case}.nii.gz") == labels).all()
        instances = read_array(new / "instancesTr" / f"{case}.nii.gz")
        assert ((instances > 0) == np.isin(labels, [1, 2])).all()


def test_new_dataset_is_one_of_nnunet_with_a_record(source, raw):
    assert simulate("--seed", "4", "--scope", "dataset") == 0
    new = raw / "Dataset006_Partial"
    description = json.loads((new / "dataset.json").read_text())
    assert description["labels"] == NAMES
    assert description["numTraining"] == 3
    assert not (new / "imagesTr").exists()
    assert description["dataset"]["a"] == {
        "images": ["../Dataset005_Dense/imagesTr/a_0000.nii.gz"],
        "label": "labelsTr/a.nii.gz",
    }
    about = description["nnunet_ext"]
    assert {key: about[key] for key in ("source", "keep", "scope", "order", "seed", "instances")} == {
        "source": "Dataset005_Dense",
        "keep": 0.5,
        "scope": "dataset",
        "order": "random",
        "seed": 4,
        "instances": "components",
    }
    assert "version" in about
    assert json.loads((new / "splits_final.json").read_text()) == [{"train": ["a", "b"], "val": ["c"]}]


def test_record_agrees_with_the_files(source, raw):
    assert simulate() == 0
    new = raw / "Dataset006_Partial"
    cases = json.loads((new / "instances.json").read_text())["cases"]
    for case, labels in (("a", FIRST), ("b", SECOND), ("c", EMPTY)):
        partial = read_array(new / "labelsTr" / f"{case}.nii.gz")
        instances = read_array(new / "instancesTr" / f"{case}.nii.gz")
        annotated = np.isin(partial, [1, 2])
        row = cases[case]
        assert row["kept"] == sorted(set(instances[annotated].tolist()))
        assert row["kept_voxels"] == annotated.sum()
        assert row["voxels"] == np.isin(labels, [1, 2]).sum()
        assert row["kept_instances"] == len(row["kept"])
        assert row["instances"] == instances.max()
    assert [cases[case]["kept_instances"] for case in "abc"] == [2, 1, 0]


def test_a_share_of_nothing_keeps_one_instance_of_each_case_that_has_any(source, raw):
    assert simulate(keep="0") == 0
    cases = json.loads((raw / "Dataset006_Partial" / "instances.json").read_text())["cases"]
    assert [cases[case]["kept_instances"] for case in "abc"] == [1, 1, 0]


def test_table_and_next_commands_are_printed(source, capsys):
    assert simulate("--order", "smallest", keep="0.25") == 0
    shown = capsys.readouterr().out
    rows = {
        line.split()[0]: line.split()[1:] for line in shown.splitlines() if line.startswith(("lesion", "node", "all"))
    }
    assert rows == {
        "lesion": ["2", "2", "4", "10", "36"],
        "node": ["1", "0", "1", "0", "4"],
        "all": ["2", "2", "5", "10", "40"],
    }
    assert "1 of 3 cases have no instance at all" in shown
    assert "nnunet_ext check -d 6 --trainer nnUNetTrainerDBDMP" in shown
    assert "nnUNetv2_train 6 3d_fullres 0 -tr nnUNetTrainerDBDMP" in shown


def test_a_seed_always_draws_the_same(source, raw):
    for number, seed in ((6, "1"), (7, "1"), (8, "2"), (9, "3"), (10, "4")):
        assert simulate("--seed", seed, name=f"Dataset{number:03d}_S") == 0
    kept = [
        json.loads((raw / f"Dataset{number:03d}_S" / "instances.json").read_text())["cases"] for number in range(6, 11)
    ]
    assert kept[0] == kept[1]
    assert any(other != kept[0] for other in kept[2:])


def test_touching_instances_stay_apart_only_by_a_map(raw):
    labels = with_boxes((1, slice(0, 2), slice(0, 4)))
    apart = with_boxes((7, slice(0, 2), slice(0, 2)), (300, slice(0, 2), slice(2, 4)))
    folder = write_raw(raw / "Dataset005_Touching", {"a": labels})
    write_array(apart, folder / "instancesTr" / "a.nii.gz")
    assert simulate() == 0
    assert simulate("--instances", "components", name="Dataset007_Merged") == 0
    assert (read_array(raw / "Dataset006_Partial" / "labelsTr" / "a.nii.gz") == 1).sum() == 8
    assert (read_array(raw / "Dataset006_Partial" / "instancesTr" / "a.nii.gz") == apart).all()
    assert (read_array(raw / "Dataset007_Merged" / "labelsTr" / "a.nii.gz") == 1).sum() == 16


def test_numbers_too_large_for_the_files_are_given_anew_in_order(raw):
    labels = with_boxes((1, slice(0, 2), slice(0, 2)), (1, slice(6, 8), slice(6, 8)))
    numbers = np.zeros(labels.shape, np.uint32)
    numbers[1:3, 0:2, 0:2], numbers[1:3, 6:8, 6:8] = 70000, 500
    folder = write_raw(raw / "Dataset005_Large", {"a": labels})
    write_array(numbers, folder / "lesion_ids" / "a.nii.gz")
    assert simulate("--instances", "lesion_ids", keep="1") == 0
    written = read_array(raw / "Dataset006_Partial" / "instancesTr" / "a.nii.gz")
    assert (written[1, 0, 0], written[1, 6, 6], written.max()) == (2, 1, 2)
    assert (read_array(raw / "Dataset006_Partial" / "labelsTr" / "a.nii.gz") == labels).all()


def test_foreground_of_no_instance_and_ignore_within_one_stay(raw, capsys):
    labels = FIRST.copy()
    numbers = np.zeros(labels.shape, np.uint8)
    numbers[0:3, 0:2, 0:2] = 1  # reaches into the slab of the ignore label
    numbers[1:3, 0:3, 6:9] = 2
    folder = write_raw(raw / "Dataset005_Some", {"a": labels}, names=NAMES)
    write_array(numbers, folder / "instancesTr" / "a.nii.gz")
    assert simulate("--order", "largest") == 0
    partial = read_array(raw / "Dataset006_Partial" / "labelsTr" / "a.nii.gz")
    expected = labels.copy()
    expected[1:3, 0:2, 0:2] = 0
    assert (partial == expected).all()
    assert "In 1 of 1 cases some foreground belongs to no instance" in capsys.readouterr().out


def test_one_flat_case_of_png(raw, capsys):
    labels = np.zeros((16, 16), np.uint8)
    labels[0:3, 0:3] = labels[10:12, 10:12] = 1
    write_raw(raw / "Dataset005_Flat", {"a": labels}, ending=".png")
    assert simulate("--order", "largest") == 0
    partial = read_array(raw / "Dataset006_Partial" / "labelsTr" / "a.png")
    assert partial.shape == (16, 16)
    assert partial.sum() == 9
    assert partial[:3, :3].all()
    assert "nnUNetv2_train 6 2d all" in capsys.readouterr().out


def test_flat_nifti_stays_flat(raw):
    labels = np.zeros((16, 16), np.uint8)
    labels[0:3, 0:3] = 1
    write_raw(raw / "Dataset005_Flat", {"a": labels})
    assert simulate() == 0
    assert (read_array(raw / "Dataset006_Partial" / "labelsTr" / "a.nii.gz") == labels).all()


def test_whole_numbers_stored_as_float_are_taken(raw):
    write_raw(raw / "Dataset005_Float", {"a": FIRST.astype(np.float32)}, names=NAMES)
    assert simulate(keep="1") == 0
    assert (read_array(raw / "Dataset006_Partial" / "labelsTr" / "a.nii.gz") == FIRST).all()


def test_labels_above_255_are_taken(raw):
    labels = with_boxes((1, slice(0, 2), slice(0, 2)), (300, slice(8, 10), slice(8, 10)))
    write_raw(raw / "Dataset005_Large", {"a": labels}, names={"background": 0, "lesion": 1, "other": 300})
    assert simulate(keep="1") == 0
    assert (read_array(raw / "Dataset006_Partial" / "labelsTr" / "a.nii.gz") == labels).all()


def test_fractional_labels_are_refused(raw, capsys):
    write_raw(raw / "Dataset005_Soft", {"a": FIRST * np.float32(0.5)}, names=NAMES)
    assert "0.5" in (message := refusal(capsys, raw))
    assert "a.nii.gz" in message


def test_labels_that_dataset_json_does_not_list_are_refused(raw, capsys):
    write_raw(raw / "Dataset005_Unlisted", {"a": FIRST})
    assert "a.nii.gz has the values 2, 3" in refusal(capsys, raw)


def test_regions_are_refused(raw, capsys):
    write_raw(
        raw / "Dataset005_Regions", {"a": FIRST}, names={"background": 0, "whole": [1, 2], "node": 2, "ignore": 3}
    )
    assert "has regions (whole)" in refusal(capsys, raw)


def test_dataset_without_foreground_is_refused(raw, capsys):
    write_raw(raw / "Dataset005_Empty", {"a": EMPTY, "b": EMPTY})
    assert "has an instance" in refusal(capsys, raw)


def test_instance_on_several_labels_is_refused(source, raw, capsys):
    for case in "abc":
        write_array((FIRST > 0).astype(np.uint8) * (case == "a"), source / "instancesTr" / f"{case}.nii.gz")
    message = refusal(capsys, raw)
    assert "instance 1 lies on the labels 1, 2, not on one alone" in message
    assert "a.nii.gz" in message


def test_maps_that_do_not_fit_are_refused(source, raw, capsys):
    write_array(FIRST[:2], source / "instancesTr" / "a.nii.gz")
    assert "(2, 12, 12)" in refusal(capsys, raw)
    write_array(FIRST.astype(np.uint32) * 2**25, source / "instancesTr" / "a.nii.gz")
    assert "number the instances from 1" in refusal(capsys, raw)
    (source / "instancesTr" / "a.nii.gz").unlink()
    assert "a.nii.gz does not exist" in refusal(capsys, raw)
    assert "no folder 'ids'" in refusal(capsys, raw, "--instances", "ids")


def test_more_instances_than_a_file_can_number_are_refused(raw, capsys):
    labels = np.zeros((3, 520, 520), np.uint8)
    labels[1, ::2, ::2] = 1  # 260 × 260 single voxels
    write_raw(raw / "Dataset005_Many", {"a": labels})
    assert "67600 instances; 65535 is the most" in refusal(capsys, raw)


def test_missing_label_is_refused(source, raw, capsys):
    (source / "labelsTr" / "b.nii.gz").unlink()
    assert "b.nii.gz does not exist" in refusal(capsys, raw)


@pytest.mark.parametrize("keep", ["-0.1", "1.1", "nan", "half"])
def test_share_out_of_range_is_wrong_usage(source, keep):
    with pytest.raises(SystemExit) as stop:
        simulate(keep=keep)
    assert stop.value.code == 2


def test_nothing_is_replaced_without_force(source, raw, capsys):
    assert simulate(keep="0.25") == 0
    file = raw / "Dataset006_Partial" / "instances.json"
    before = file.read_bytes()
    assert "--force" in refusal(capsys, raw)
    assert file.read_bytes() == before
    assert simulate("--force", keep="1") == 0
    assert file.read_bytes() != before


def test_a_simulated_dataset_is_no_source_and_no_source_is_replaced(source, raw, capsys):
    assert simulate() == 0
    command = ["simulate", "instances", "6", "-o"]
    assert main([*command, "Dataset007_Again", "--keep", "0.5"]) == 2
    assert "is not dense" in capsys.readouterr().err
    assert main([*command, "Dataset006_Partial", "--keep", "0.5", "--force"]) == 2
    assert "is the source itself" in capsys.readouterr().err


def test_interruption_leaves_nothing(source, raw, monkeypatch):
    def interrupted(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr("nnunet_ext.preprocessing.simulate.partial_annotation.partial_labels", interrupted)
    assert simulate() == 130
    assert sorted(path.name for path in raw.iterdir()) == ["Dataset005_Dense"]


def test_kind_is_needed(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["simulate"])
    assert stop.value.code == 2
    assert "KIND" in capsys.readouterr().err


# nested squares in thick slices: a class inside another, and one in a single slice
TARGET = np.zeros((4, 32, 32), np.uint8)
TARGET[1:, 4:28, 4:28] = 1
TARGET[2, 12:20, 12:20] = 2
TARGET_NAMES = {"background": 0, "organ": 1, "tumour": 2}


@pytest.fixture
def dense(raw: Path) -> Path:
    """A dataset of two cases, one of them without foreground, with folds."""
    folder = write_raw(raw / "Dataset005_Dense", {"a": TARGET, "b": TARGET * 0}, names=TARGET_NAMES)
    (folder / "splits_final.json").write_text(json.dumps([{"train": ["a"], "val": ["b"]}]))
    return folder


def draw(*options: str, name: str = "Dataset006_Scribbles") -> int:
    return main(["simulate", "scribbles", "5", "-o", name, *options])


def refused_drawing(capsys: pytest.CaptureFixture[str], raw: Path, *options: str) -> str:
    """What it says when it leaves nothing."""
    before = sorted(raw.iterdir())
    assert draw(*options) == 2
    assert sorted(raw.iterdir()) == before
    return capsys.readouterr().err


def test_scribbles_are_written_beside_the_dense_labels(dense, raw):
    assert draw("--noise", "0") == 0
    new = raw / "Dataset006_Scribbles"
    for case, labels in (("a", TARGET), ("b", TARGET * 0)):
        assert (read_array(new / "labelsTr_dense" / f"{case}.nii.gz") == labels).all()
        scribbles = read_array(new / "labelsTr" / f"{case}.nii.gz")
        drawn = scribbles != 3
        assert (scribbles[drawn] == labels[drawn]).all()
        assert 0 < drawn.mean() < 0.3
        for plane, found in zip(labels, scribbles):
            assert set(np.unique(found)) == {*np.unique(plane), 3}


def test_dataset_of_scribbles_is_one_of_nnunet_with_a_record(dense, raw):
    assert draw("--seed", "4", "--slices", "0.5", "--axis", "z") == 0
    new = raw / "Dataset006_Scribbles"
    description = json.loads((new / "dataset.json").read_text())
    assert description["labels"] == {**TARGET_NAMES, "ignore": 3}
    assert description["numTraining"] == 2
    assert not (new / "imagesTr").exists()
    assert description["dataset"]["a"] == {
        "images": ["../Dataset005_Dense/imagesTr/a_0000.nii.gz"],
        "label": "labelsTr/a.nii.gz",
    }
    about = {
        "made_by": "simulate scribbles",
        "source": "Dataset005_Dense",
        "axis": "z",
        "seed": 4,
        "interior": 0.8,
        "boundary": 0.7,
        "thickness": 1,
        "noise": 0.2,
        "components": 0.1,
        "slices": 0.5,
        "num_slices": None,
    }
    record = json.loads((new / "scribbles.json").read_text())
    for content in (description["nnunet_ext"], record):
        assert {key: content[key] for key in about} == about
        assert "version" in content
    assert list(record["cases"]) == ["a", "b"]
    assert 2 in record["cases"]["a"]["slices"]  # the one with the tumour
    assert json.loads((new / "splits_final.json").read_text()) == [{"train": ["a"], "val": ["b"]}]


def test_every_option_has_its_effect(dense, raw):
    options = {
        "length": ("--length", "0.2"),
        "boundary": ("--boundary", "0"),
        "thickness": ("--thickness", "3"),
        "noise": ("--noise", "4"),
        "slices": ("--slices", "0.3"),
        "num": ("--num-slices", "2"),
        "axis": ("--axis", "x"),
        "seed": ("--seed", "9"),
    }
    assert draw() == 0
    default = read_array(raw / "Dataset006_Scribbles" / "labelsTr" / "a.nii.gz")
    for number, (name, option) in enumerate(options.items(), start=7):
        assert draw(*option, name=f"Dataset{number:03d}_{name}") == 0
        found = read_array(raw / f"Dataset{number:03d}_{name}" / "labelsTr" / "a.nii.gz")
        assert (found != default).any(), name
        if name in ("length", "boundary", "slices", "num"):
            assert (found != 3).sum() < (default != 3).sum(), name
        if name == "thickness":
            assert (found != 3).sum() > 2 * (default != 3).sum()


def test_small_parts_are_drawn_on_if_asked_for(raw):
    labels = TARGET.copy()
    labels[1:, 1, 1] = 1
    write_raw(raw / "Dataset005_Parts", {"a": labels}, names=TARGET_NAMES)
    assert draw("--noise", "0") == 0
    assert draw("--noise", "0", "--components", "0", name="Dataset007_All") == 0
    found = [read_array(raw / name / "labelsTr" / "a.nii.gz") for name in ("Dataset006_Scribbles", "Dataset007_All")]
    assert (found[0][1:, 1, 1] == 3).all()
    assert (found[1][1:, 1, 1] == 1).all()


def test_table_of_scribbles_and_next_commands_are_printed(dense, capsys):
    assert draw("--noise", "0") == 0
    shown = capsys.readouterr().out
    rows = {line.split()[0]: line.split() for line in shown.splitlines() if line.endswith("%")}
    assert list(rows) == ["background", "organ", "tumour", "all"]
    assert rows["organ"][1:4] == ["1", "3", "3"]
    assert rows["tumour"][1:4] == ["1", "1", "1"]
    assert rows["all"][1:4] == ["2", "8", "8"]
    assert all(row[-4:] == ["100.00", "%", "100.00", "%"] for row in rows.values())
    assert "3 is the ignore label" in shown
    assert "1 of 2 cases have background alone" in shown
    assert "nnunet_ext check -d 6 --trainer nnUNetTrainerTDNet" in shown
    assert "nnUNetv2_train 6 3d_fullres 0 -tr nnUNetTrainerTDNet" in shown


def test_scribbles_of_one_flat_case_of_png(raw, capsys):
    labels = np.zeros((32, 32), np.uint8)
    labels[6:26, 6:26] = 1
    write_raw(raw / "Dataset005_Flat", {"a": labels}, ending=".png")
    assert draw("--noise", "0") == 0
    scribbles = read_array(raw / "Dataset006_Scribbles" / "labelsTr" / "a.png")
    assert scribbles.shape == (32, 32)
    assert set(np.unique(scribbles)) == {0, 1, 2}
    assert (scribbles[scribbles != 2] == labels[scribbles != 2]).all()
    assert "nnUNetv2_train 6 2d all" in capsys.readouterr().out
    assert main(["simulate", "scribbles", "5", "-o", "Dataset007_X", "--axis", "x"]) == 2
    assert "Leave out the axis" in capsys.readouterr().err


def test_scribbles_of_wrong_sources_are_refused(raw, capsys):
    def written(labels: np.ndarray, names: dict) -> None:
        write_raw(raw / "Dataset005_Wrong", {"a": labels}, names=names)

    written(TARGET * np.float32(0.5), TARGET_NAMES)
    assert "0.5" in (message := refused_drawing(capsys, raw))
    assert "a.nii.gz" in message
    written(TARGET, {"background": 0, "organ": 1})
    assert "a.nii.gz has the value 2" in refused_drawing(capsys, raw)
    written(TARGET, {"background": 0, "whole": [1, 2], "tumour": 2})
    assert "has regions (whole)" in refused_drawing(capsys, raw)
    written(TARGET * 0, TARGET_NAMES)
    assert "No case of" in refused_drawing(capsys, raw)
    (raw / "Dataset005_Wrong" / "labelsTr" / "a.nii.gz").unlink()
    assert "a.nii.gz does not exist" in refused_drawing(capsys, raw)


def test_scribbles_are_no_source_of_scribbles_and_not_replaced_without_force(dense, raw, capsys):
    assert draw() == 0
    file = raw / "Dataset006_Scribbles" / "scribbles.json"
    before = file.read_bytes()
    assert "--force" in refused_drawing(capsys, raw)
    assert file.read_bytes() == before
    assert draw("--force", "--seed", "1") == 0
    assert file.read_bytes() != before
    assert main(["simulate", "scribbles", "6", "-o", "Dataset007_Again"]) == 2
    assert "is not dense" in capsys.readouterr().err
    assert main(["simulate", "scribbles", "6", "-o", "Dataset006_Scribbles", "--force"]) == 2
    assert "is the source itself" in capsys.readouterr().err


def test_interrupted_drawing_leaves_nothing(dense, raw, monkeypatch):
    def interrupted(*args, **keywords):
        raise KeyboardInterrupt

    monkeypatch.setattr("nnunet_ext.preprocessing.simulate.scribble_annotation.count_scribbles", interrupted)
    assert draw() == 130
    assert sorted(path.name for path in raw.iterdir()) == ["Dataset005_Dense"]


@pytest.mark.parametrize(
    "option",
    [
        ("--slices", "0"),
        ("--slices", "0.5", "--num-slices", "3"),
        ("--num-slices", "0"),
        ("--length", "0"),
        ("--length", "1.1"),
        ("--boundary", "-0.1"),
        ("--boundary", "nan"),
        ("--components", "2"),
        ("--thickness", "0"),
        ("--noise", "-1"),
        ("--axis", "0"),
        ("--seed", "-1"),
    ],
)
def test_drawing_options_out_of_range_are_wrong_usage(dense, raw, option):
    with pytest.raises(SystemExit) as stop:
        draw(*option)
    assert stop.value.code == 2
    assert [path.name for path in raw.iterdir()] == ["Dataset005_Dense"]
