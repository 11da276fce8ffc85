"""``nnunet_ext simulate noise``: what it changes, records and refuses."""

import json
from pathlib import Path

import numpy as np
import pytest

from nnunet_ext.cli import main
from support.raw_datasets import read_array, write_raw

NAMES = {"background": 0, "liver": 1, "spleen": 2, "ignore": 3}
CASES = [f"case_{number:02}" for number in range(40)]


def dense() -> np.ndarray:
    labels = np.zeros((4, 8, 12), np.uint8)
    labels[1:3, 2:6, 2:6] = 1
    labels[1:3, 2:6, 7:10] = 2
    labels[:, 7] = 3
    return labels


@pytest.fixture
def source(raw: Path) -> Path:
    folder = write_raw(raw / "Dataset005_Dense", dict.fromkeys(CASES, dense()), names=NAMES)
    (folder / "splits_final.json").write_text(json.dumps([{"train": CASES[2:], "val": CASES[:2]}]))
    return folder


def simulate(*options: str, name: str = "Dataset006_Noise") -> int:
    return main(["simulate", "noise", "5", "-o", name, *options])


def made(raw: Path, case: str, name: str = "Dataset006_Noise") -> np.ndarray:
    return read_array(raw / name / "labelsTr" / f"{case}.nii.gz")


def test_about_the_rate_of_the_labels_is_wrong_and_the_record_says_which(source, raw, capsys):
    assert simulate("--rate", "0.25", "--kinds", "dilation", "erosion", "shift", "swap") == 0
    new = raw / "Dataset006_Noise"
    record = json.loads((new / "noise.json").read_text())
    wrong = [(case, label) for case, one in record["cases"].items() for label in one["wrong"]]
    assert 10 <= len(wrong) <= 30  # of 80; fixed by the seed
    assert {kind for one in record["cases"].values() for kind in one["wrong"].values()} == {
        "dilation",
        "erosion",
        "shift",
        "swap",
    }
    changed = {"liver": 0, "spleen": 0}
    for case in CASES:
        noisy, one = made(raw, case), record["cases"][case]
        assert (read_array(new / "labelsTr_dense" / f"{case}.nii.gz") == dense()).all()
        assert ((noisy == 3) == (dense() == 3)).all()
        assert one["changed_voxels"]["all"] == (noisy != dense()).sum()
        assert bool(one["wrong"]) == bool((noisy != dense()).any())
        for label in changed:
            differs = (noisy == NAMES[label]) != (dense() == NAMES[label])
            assert one["changed_voxels"][label] == differs.sum()
            changed[label] += int(differs.sum())
    assert (new / "splits_final.json").is_file()
    out = capsys.readouterr().out
    assert "nnUNetTrainerADELE" in out
    for label, number in changed.items():
        cells = next(line.split() for line in out.splitlines() if line.startswith(label))
        assert cells[:4] == [label, str(sum(one == label for _, one in wrong)), "40", str(number)]
        assert cells[5] == f"{record['changed_share'][label]:.1%}"


def test_a_case_depends_on_its_name_and_the_seed_alone(source, raw):
    write_raw(raw / "Dataset007_One", {CASES[3]: dense()}, names=NAMES)
    assert simulate("--rate", "1") == 0
    assert main(["simulate", "noise", "7", "-o", "Dataset008_One", "--rate", "1"]) == 0
    assert simulate("--rate", "1", "--seed", "1", name="Dataset009_Seed") == 0
    alone = made(raw, CASES[3], "Dataset008_One")
    assert (made(raw, CASES[3]) == alone).all()
    assert any((made(raw, case) != made(raw, case, "Dataset009_Seed")).any() for case in CASES)


def test_a_size_that_is_a_spacing_with_32_bits_is_taken(source, raw):
    assert simulate("--rate", "1", "--kinds", "dilation", "--size", "1") == 0  # the finest spacing is 1 mm
    grown = [one for one in CASES if (made(raw, one) == 1).sum() > (dense() == 1).sum()]
    assert grown == CASES


def test_pictures_of_one_slice(raw, capsys):
    flat = dense()[1].astype(np.uint8)
    write_raw(raw / "Dataset005_Flat", {"a": flat, "b": flat}, names=NAMES, ending=".png")
    assert simulate("--rate", "1", "--size", "2", "--kinds", "shift") == 0
    assert (read_array(raw / "Dataset006_Noise" / "labelsTr" / "a.png") != flat).any()
    assert "nnUNetv2_train 6 2d 0" in capsys.readouterr().out


def test_a_size_below_a_voxel_is_refused(source, raw, capsys):
    assert simulate("--rate", "0.5", "--size", "0.9") == 2
    assert "are 1 mm apart, so that errors of 0.9 mm would change nothing" in capsys.readouterr().err
    assert not (raw / "Dataset006_Noise").exists()


def test_one_label_cannot_be_swapped(raw, capsys):
    write_raw(raw / "Dataset005_One", {"a": dense() % 2}, names={"background": 0, "liver": 1})
    assert simulate("--rate", "0.5", "--kinds", "swap") == 2
    assert "there is none to swap with" in capsys.readouterr().err


def test_a_seed_that_changes_nothing_is_said(raw, capsys):
    write_raw(raw / "Dataset005_One", {"a": dense()}, names=NAMES)
    assert simulate("--rate", "0.0001") == 0
    assert "Warning: no label became wrong" in capsys.readouterr().out


def test_cases_without_labels_have_none_to_make_wrong(raw, capsys):
    write_raw(raw / "Dataset005_One", {"a": dense() * 0}, names=NAMES)
    assert simulate("--rate", "1") == 0
    assert "Warning: no case of Dataset005_One has a label that could become wrong." in capsys.readouterr().out
