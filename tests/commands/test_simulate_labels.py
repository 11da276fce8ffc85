"""``nnunet_ext simulate labels``: what it removes, lists and refuses."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from nnunet_ext.cli import main
from support.raw_datasets import read_array, write_raw

NAMES = {"background": 0, "liver": 1, "spleen": 2, "lung": 3, "ignore": 4}
DENSE = np.repeat(np.arange(5, dtype=np.uint16), 24).reshape(5, 4, 6)
CASES = [f"p{patient}_{scan}" for patient in range(6) for scan in range(2)]


@pytest.fixture
def source(raw: Path) -> Path:
    folder = write_raw(raw / "Dataset005_Dense", dict.fromkeys(CASES, DENSE), names=NAMES)
    (folder / "splits_final.json").write_text(json.dumps([{"train": CASES[2:], "val": CASES[:2]}]))
    return folder


def simulate(*options: str) -> int:
    return main(["simulate", "labels", "5", "-o", "Dataset006_Missing", *options])


def lists(raw: Path) -> dict[str, list[str]]:
    return json.loads((raw / "Dataset006_Missing" / "dataset.json").read_text())["nnunet_ext"]["annotated_labels"]


@pytest.mark.parametrize("keep", [1, 2])
def test_each_case_keeps_so_many_labels_and_each_label_is_kept_equally_often(source, raw, keep, capsys):
    assert simulate("--keep", str(keep)) == 0
    found, new = lists(raw), raw / "Dataset006_Missing"
    assert sorted(found) == CASES
    assert all(len(set(labels)) == keep for labels in found.values())
    counts = Counter(label for labels in found.values() for label in labels)
    assert counts == dict.fromkeys(("liver", "spleen", "lung"), 4 * keep)
    for case, labels in found.items():
        expected = np.where(np.isin(DENSE, [4, *(NAMES[label] for label in labels)]), DENSE, 0)
        assert (read_array(new / "labelsTr" / f"{case}.nii.gz") == expected).all()
        assert (read_array(new / "labelsTr_dense" / f"{case}.nii.gz") == DENSE).all()
    record = json.loads((new / "labels.json").read_text())["cases"]
    assert record["p0_0"]["removed_voxels"] == {
        name: 24 for name in NAMES if 0 < NAMES[name] < 4 and name not in found["p0_0"]
    }
    assert (new / "splits_final.json").is_file()
    out = capsys.readouterr().out
    assert "nnUNetTrainerPartialLabels" in out
    assert [line.split() for line in out.splitlines() if line.startswith("liver")] == [
        ["liver", str(4 * keep), "12", str(96 * keep), "288"]
    ]


def test_sources_have_whole_patients_and_the_seed_decides(source, raw):
    assert simulate("--sources", "liver", "spleen,lung", "--group", "p[0-9]+") == 0
    first = lists(raw)
    assert Counter(map(tuple, first.values())) == {("liver",): 6, ("spleen", "lung"): 6}
    assert all(first[f"p{patient}_0"] == first[f"p{patient}_1"] for patient in range(6))
    assert simulate("--sources", "liver", "spleen,lung", "--group", "p[0-9]+", "--force") == 0
    assert lists(raw) == first
    assert simulate("--sources", "liver", "spleen,lung", "--group", "p[0-9]+", "--force", "--seed", "1") == 0
    assert lists(raw) != first


def test_the_check_finds_nothing_wrong(source, raw, capsys):
    assert simulate("--keep", "1") == 0
    assert main(["check", "-d", "6", "-tr", "nnUNetTrainerPartialLabels"]) == 0
    out = capsys.readouterr().out
    assert "no case has a label that it was not annotated for" in " ".join(out.split())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--keep", "4"], "4 labels cannot be kept of 3: liver, spleen, lung"),
        (["--sources", "liver,kidney"], "has no label 'kidney'. Give some of these: liver, spleen, lung"),
        (["--sources", "liver, spleen"], "has no label ' spleen'"),
        (["--keep", "1", "--group", "q"], "finds no patient"),
    ],
)
def test_what_does_not_fit_is_refused(source, raw, capsys, options, message):
    assert simulate(*options) == 2
    assert message in capsys.readouterr().err
    assert not (raw / "Dataset006_Missing").exists()


def test_a_partial_source_is_refused(source, raw, capsys):
    file = source / "dataset.json"
    content = json.loads(file.read_text()) | {"nnunet_ext": {"default": ["liver"]}}
    file.write_text(json.dumps(content))
    assert simulate("--keep", "1") == 2
    assert "not annotated for every label in every case" in capsys.readouterr().err


def test_a_label_that_is_nowhere_any_more_is_told_of(raw, capsys):
    with_spleen = np.where(DENSE == 2, 2, 0)
    cases = {"a": with_spleen, "b": np.zeros_like(DENSE), "c": np.zeros_like(DENSE)}
    write_raw(raw / "Dataset005_Dense", cases, names=NAMES)
    told = []
    for seed in range(6):
        assert simulate("--sources", "liver", "spleen", "--seed", str(seed), "--force") == 0
        left = any(read_array(raw / "Dataset006_Missing" / "labelsTr" / f"{case}.nii.gz").any() for case in cases)
        told.append(left)
        assert ("Warning: no case that was to keep spleen has it." in capsys.readouterr().out) != left
    assert len(set(told)) == 2
