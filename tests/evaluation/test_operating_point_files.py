"""Operating points of hand-made probabilities as a table of numbers, as text and as a picture."""

from __future__ import annotations

import csv
from dataclasses import replace

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from nnunet_ext.evaluation.operating_point_files import (
    draw_operating_points,
    operating_points_table,
    remarks_on_operating_points,
    write_operating_points,
)
from nnunet_ext.evaluation.operating_points import reached_thresholds, thresholds_file, write_thresholds
from nnunet_ext.evaluation.scoring import Options, score
from support.rows_of_voxels import write_cases

THRESHOLDS = (0.1, 0.4, 0.8)
# of shell 1, core 2 and fin 3; a is 1 1 1 2 0 9 with 9 ignored, b is 1 0 0 0 0 0
PROBABILITIES = {
    "a": {"shell": [0.9, 0.5, 0.2, 0.2, 0.0, 0.9], "core": [0.0, 0.0, 0.5, 0.3, 0.0, 0.1], "fin": [0.2] + [0.0] * 5},
    "b": {"shell": [0.5, 0.5, 0.0, 0.0, 0.0, 0.0], "core": [0.0] * 6, "fin": [0.0] * 6},
}


@pytest.fixture
def result(tmp_path):
    cases, labels = write_cases(tmp_path)
    for name, rows in PROBABILITIES.items():
        probabilities = np.array(list(rows.values()), np.float32)[:, None, None]
        channels = {label: number for number, label in enumerate(rows)}
        reached = reached_thresholds(probabilities, channels, (0.05, *THRESHOLDS))
        write_thresholds(thresholds_file(tmp_path / "predictions", name), reached)
    return score(cases, labels, tmp_path / "predictions", Options(("lesions",), thresholds=THRESHOLDS))


def read(file):
    with file.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def test_the_csv_has_a_row_for_each_label_level_and_threshold(result, tmp_path):
    write_operating_points(tmp_path / "o.csv", [replace(result, cases=replace(result.cases, references="labels ü"))])
    rows = read(tmp_path / "o.csv")
    assert list(rows[0]) == ["dataset", "cases", "references", "label", "threshold", "level"] + [
        *("precision", "recall", "f1", "reference", "found", "predicted", "right")
    ]
    assert {(row["dataset"], row["cases"], row["references"]) for row in rows} == {
        ("Dataset001_Hand", "all", "labels ü")
    }
    found = {(row["label"], row["level"], float(row["threshold"])): row for row in rows}
    assert len(found) == len(rows) == 3 * 2 * 3
    # shell at 0.4: 0 and 1 of a, 0 and 1 of b, the ignored voxel left out; the reference is 0 1 2 and 0
    shell = found["shell", "voxel", 0.4]
    assert [int(shell[name]) for name in ("reference", "found", "predicted", "right")] == [4, 3, 4, 3]
    assert [float(shell[name]) for name in ("precision", "recall", "f1")] == pytest.approx([3 / 4, 3 / 4, 3 / 4])
    lesions = found["shell", "lesion", 0.8]
    assert [int(lesions[name]) for name in ("reference", "found", "predicted", "right")] == [2, 1, 1, 1]
    assert found["core", "voxel", 0.8]["precision"] == ""  # never predicted
    assert found["core", "voxel", 0.8]["f1"] == "0.0"
    assert (found["fin", "voxel", 0.1]["recall"], found["fin", "voxel", 0.1]["precision"]) == ("", "0.0")
    assert found["fin", "lesion", 0.8]["f1"] == ""


def test_nnunets_decision_has_the_numbers_of_the_ordinary_scores(result):
    points, estimates = result.points["shell"], result.estimates["shell"]
    own = points[points["threshold"].isna()].set_index("level")["f1"]
    assert own["voxel"] == pytest.approx(estimates["aggregated_dice"].value)  # these cases have one voxel size
    assert own["lesion"] == estimates["lesions_f1"].value


def test_the_text_names_the_best_threshold_above_nnunets_decision(result):
    lines = [line.split() for line in operating_points_table(result).splitlines()]
    assert lines[0] == ["Dataset001_Hand_all", "threshold", "precision", "recall", "F1"]
    # at 0.1 of a 0 1 2 and wrongly 3, of b 0 and wrongly 1: all 4 of 6
    assert ["shell,", "voxels:", "best", "F1", "0.1", "0.667", "1.000", "0.800"] in lines
    assert ["shell,", "voxels:", "nnU-Net's", "decision", "-", "0.750", "0.750", "0.750"] in lines
    assert ["fin,", "voxels:", "best", "F1", "-", "-", "-", "-"] in lines
    assert ["fin,", "lesions:", "nnU-Net's", "decision", "-", "-", "-", "-"] in lines


def test_a_best_threshold_at_the_end_and_a_label_without_one_are_remarked(result):
    remarks = remarks_on_operating_points(result)
    assert "Dataset001_Hand_all: for shell in voxels the lowest threshold is the best: try lower ones" in remarks
    nothing = "Dataset001_Hand_all: no threshold is the best of fin in voxels, as F1 is 0 or undefined"
    assert nothing in remarks
    alone = replace(result, options=replace(result.options, thresholds=(0.1,)))
    assert not any("try" in line for line in remarks_on_operating_points(alone))


@pytest.mark.parametrize("level_f1", [[1.0, 0.5, 0.2], [0.8, 0.8, 0.2]])
def test_nothing_is_advised_where_no_threshold_beyond_can_be_better(result, level_f1):
    """F1 is 1, or the same at the next threshold."""
    points = result.points["shell"].copy()
    is_tried = points["threshold"].notna()
    assert is_tried.sum() % len(level_f1) == 0
    points.loc[is_tried, "f1"] = level_f1 * (is_tried.sum() // len(level_f1))
    flat = replace(result, points={**result.points, "shell": points})
    assert not any("shell" in line and "try" in line for line in remarks_on_operating_points(flat))


def test_the_picture_has_a_panel_for_each_label_and_set(result, tmp_path, monkeypatch):
    panels = []
    subplots = Figure.subplots
    monkeypatch.setattr(Figure, "subplots", lambda *a, **more: panels.append(subplots(*a, **more)) or panels[-1])
    strange = replace(result, cases=replace(result.cases, dataset="Dataset001_$x_{"))  # no formula
    draw_operating_points(tmp_path / "o.png", [result, strange])
    assert panels[0].shape == (2, 3)
    shell = panels[0][0, 0]
    assert {text.get_text() for text in shell.texts} == {"0.1", "0.4", "0.8"}
    legend = [text.get_text() for text in shell.get_legend().get_texts()]
    assert "voxels, best F1: 0.800 at 0.1" in legend
    assert "voxels, nnU-Net's decision" in legend
    assert panels[0][0, 2].texts[0].get_text() == "in no reference, or never predicted"
    picture = Image.open(tmp_path / "o.png")
    assert picture.size == (1320, 880)
    assert picture.convert("RGB").getpixel((2, 2)) == (255, 255, 255)


def test_an_interruption_leaves_the_files_of_before(result, tmp_path, monkeypatch):
    (tmp_path / "o.png").write_bytes(b"before")

    def interrupted(figure, file, **options):
        file.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(Figure, "savefig", interrupted)
    with pytest.raises(KeyboardInterrupt):
        draw_operating_points(tmp_path / "o.png", [result])
    assert (tmp_path / "o.png").read_bytes() == b"before"
    assert not list(tmp_path.glob(".o.png*"))
