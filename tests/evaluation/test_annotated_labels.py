"""Cases that were annotated for some labels are scored for these alone, and what is written says so."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from nnunet_ext.cli import main
from nnunet_ext.errors import UserError
from nnunet_ext.evaluation.evaluation_files import as_json, remarks, results_table
from nnunet_ext.evaluation.metrics import AGGREGATED_DICE, DICE
from nnunet_ext.evaluation.scoring import Options, score
from nnunet_ext.report.sources import read_results_folder
from support.rows_of_voxels import write_cases

LISTS = {"annotated_labels": {"b": ["core"]}, "default": ["shell", "core", "fin"]}


def scored(tmp_path, block=LISTS, options=None, **changes):
    cases, labels = write_cases(tmp_path)
    description = {**cases.description, "nnunet_ext": block}
    return score(replace(cases, description=description, **changes), labels, tmp_path / "predictions", options)


def test_a_case_has_scores_of_its_own_labels_and_counts_in_their_figures_alone(tmp_path):
    result, everything = scored(tmp_path), scored(tmp_path, {})
    of_case = result.scores.groupby("case")["label"].unique()
    assert list(of_case["b"]) == ["core"]
    assert set(of_case["a"]) == set(result.labels.keys)
    values, before = (one.values(DICE) for one in (result, everything))
    np.testing.assert_equal(values["a"], before["a"])
    assert math.isnan(values["b"]["shell"])
    assert not math.isnan(before["b"]["shell"])
    assert result.estimates["shell"]["dice"].value == values["a"]["shell"]
    # shell in a alone: 2 of 3 reference and 2 predicted voxels agree
    assert result.estimates["shell"][AGGREGATED_DICE.name].value == pytest.approx(4 / 5)
    assert result.annotated["shell"] == 1
    assert everything.annotated == dict.fromkeys(everything.labels.keys, 2)


def test_the_files_and_the_table_say_in_how_many_cases_a_label_was_annotated(tmp_path):
    result = scored(tmp_path)
    content = json.loads(json.dumps(as_json({"predictions": "P"}, [result]), allow_nan=False))
    (entry,) = content["datasets"]
    assert entry["labels"]["shell"]["cases_not_annotated"] == 1
    assert (entry["labels"]["shell"]["cases_with_dice"], entry["labels"]["shell"]["cases_without_dice"]) == (1, 0)
    assert "cases_not_annotated" not in entry["labels"]["core"]
    assert entry["dice"]["b"]["shell"] is None
    assert entry["volumes"]["b"]["shell"] == {"reference": None, "predicted": None, "both": None}
    lines = [line.split() for line in results_table([result]).splitlines()]
    assert ["cases", "annotated", "for", "shell", "1"] in lines
    assert not any(line[:4] == ["cases", "annotated", "for", "core"] for line in lines)
    assert any(
        "scored only for labels that it was annotated for: not all for shell" in line for line in remarks(result)
    )
    assert not any("shell in neither" in line for line in remarks(result))


def test_a_label_that_no_case_was_annotated_for_is_left_out(tmp_path):
    result = scored(tmp_path, {"default": ["core"]}, Options(("lesions",)))
    assert list(result.labels.keys) == ["core"]
    assert result.annotated["shell"] == 0
    assert ["cases", "annotated", "for", "shell", "0"] in [
        line.split() for line in results_table([result]).splitlines()
    ]
    with pytest.raises(UserError, match=r"No case of .* was annotated for shell, core"):
        scored(tmp_path, {"default": []})


@pytest.mark.parametrize(
    ("changes", "annotated"),
    [
        ({"references": "labelsTr"}, 1),
        ({"references": "gt_segmentations"}, 1),
        ({"references": "labelsTs"}, 1),
        ({"references": "labelsTr_dense"}, 2),
        # the default is about the cases to train on
        ({"selection": "test"}, 1),
    ],
)
def test_lists_are_about_nnunets_own_references(tmp_path, changes, annotated):
    assert scored(tmp_path, **changes).annotated["shell"] == annotated


def test_a_test_case_that_is_not_listed_is_scored_for_everything(tmp_path):
    assert scored(tmp_path, {"default": ["core"]}, selection="test").annotated["shell"] == 2


def test_the_command_and_the_report_tell_it(tmp_path, capsys):
    (tmp_path / "D").mkdir()
    cases, _ = write_cases(tmp_path / "D")
    folder = cases.cases["a"].label.parent
    folder.rename(folder.with_name("labelsTr"))
    description = {**cases.description, "channel_names": {"0": "MRI"}, "nnunet_ext": LISTS}
    (folder.parent / "dataset.json").write_text(json.dumps(description))
    predictions = tmp_path / "D" / "predictions"
    out = tmp_path / "OUT"
    assert (
        main(
            [
                "evaluate",
                "--predictions",
                str(predictions),
                "--labels",
                str(folder.with_name("labelsTr")),
                "-o",
                str(out),
            ]
        )
        == 0
    )
    assert "cases annotated for shell" in capsys.readouterr().out
    assert any("shell in 1" in remark for remark in read_results_folder(out).remarks)
