"""The scores table keeps every bit of a number, and names what is not a table."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from nnunet_ext.errors import UserError
from nnunet_ext.evaluation.metrics import DICE, LESIONS_F1
from nnunet_ext.evaluation.scores_table import (
    COLUMNS,
    case_scores,
    labels_with,
    nanmean,
    read_scores,
    seed_scores,
    wide_table,
    without_formulas,
    write_scores,
)

PAGE = Path(__file__).resolve().parents[2] / "docs" / "how-to" / "evaluate.md"


def table(numerators):
    row = {"run": "a", "seed": "0", "dataset": "D", "references": "", "case": "NA", "patient": "p", "metric": "dice"}
    return pd.DataFrame(
        [{**row, "label": f"{place}", "numerator": n, "denominator": 1.0} for place, n in enumerate(numerators)]
    )


def test_numbers_come_back_bit_for_bit(tmp_path):
    numbers = [0.1 + 0.2, 1 / 3, 5e-324, 1.7976931348623157e308, 123456789.123456789]
    write_scores(tmp_path / "scores.csv", table(numbers))
    read = read_scores(tmp_path / "scores.csv")
    assert tuple(read) == COLUMNS
    np.testing.assert_array_equal(read["numerator"], numbers)


def test_text_stays_text(tmp_path):
    """A case called NA, an empty folder of references and the seed 0 are text, not missing values or numbers."""
    write_scores(tmp_path / "scores.csv", table([1.0]))
    row = read_scores(tmp_path / "scores.csv").iloc[0]
    assert (row["case"], row["references"], row["seed"]) == ("NA", "", "0")


def test_the_lines_for_pandas_keep_sets_of_cases_and_references_apart(tmp_path, monkeypatch):
    parts = [("D", "", [1.0]), ("D", "labelsTr_dense", [0.5]), ("E", "", [0.0])]
    scores = pd.concat(table(numbers).assign(dataset=name, references=other) for name, other, numbers in parts)
    (tmp_path / "OUT").mkdir()
    write_scores(tmp_path / "OUT" / "scores.csv", scores)
    monkeypatch.chdir(tmp_path)
    found = {"pandas": pd}
    exec(re.search(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)[1], found)
    assert found["figures"].tolist() == [0.5, 1.0, 0.0]


HEADER = ",".join(COLUMNS) + "\n"
ROW = "a,0,D,,c,p,l,dice,1,1\n"


@pytest.mark.parametrize(
    "content",
    [
        "",
        "case,dice\na,1\n",
        HEADER + "a,0,D,,c,p,l,dice,many,1\n",
        HEADER + "a,0,D,,c,p,l,dice,,1\n",
        HEADER + 2 * ROW,
        HEADER + "a,0,D,,c,p,l,dice,inf,1\n",
        HEADER + "a,0,D,,c,p,l,dice,1,-inf\n",
        HEADER + "a,0,D,,c,p,l,dice,1,1e400\n",
    ],
)
def test_another_file_is_refused_by_name(tmp_path, content):
    file = tmp_path / "scores.csv"
    file.write_text(content)
    with pytest.raises(UserError, match="scores.csv"):
        read_scores(file)


def test_what_cases_add_has_their_order_and_zeros_where_there_is_nothing():
    scores = case_scores([("b", "liver", "dice", 0.5, 1), ("a", "liver", "dice", 0.25, 1), ("a", "liver", "nsd", 1, 1)])
    assert labels_with(scores, DICE) == ["liver"]
    assert labels_with(scores, LESIONS_F1) == []
    found = seed_scores(scores, DICE, ["a", "b", "c"], ["liver", "spleen"])
    assert found.cases == ("a", "b", "c")
    assert found.parts[:, :, 0].tolist() == [[[0.25, 1], [0, 0]], [[0.5, 1], [0, 0]], [[0, 0], [0, 0]]]
    # in a pair, finding nothing counts only where the label was looked for
    assert np.isnan(found.where_absent).tolist() == [[False, True], [False, True], [True, True]]
    assert found.where_absent[0, 0] == 1
    assert found.is_scored.tolist() == [[True, False], [True, False], [False, False]]


def test_a_spreadsheet_has_a_row_for_each_case_and_a_column_for_each_label_and_metric():
    rows = [
        ("b", "liver", "dice", 0.5, 1.0),
        ("b", "liver", "assd", 3.0, 1.0),
        ("b", "spleen, left", "dice", 0.0, 0.0),
        ("a", "liver", "dice", 1.0, 4.0),
        ("a", "liver", "assd", 0.0, 0.0),
        ("a", "spleen, left", "dice", 1.0, 1.0),
    ]
    scores = case_scores(rows).assign(run="r", seed="", dataset="D_val", references="", patient=["p", "p", "p", *"qqq"])
    wide = wide_table(scores)
    assert list(wide) == ["dataset", "references", "case", "patient", "liver dice", "liver assd", "spleen, left dice"]
    assert wide["case"].tolist() == ["b", "a"]
    assert wide["patient"].tolist() == ["p", "q"]
    assert wide["liver dice"].tolist() == [0.5, 0.25]
    assert wide["liver assd"].isna().tolist() == [False, True]
    assert wide["spleen, left dice"].isna().tolist() == [True, False]


def test_numbers_that_no_score_has_have_a_mean():
    assert nanmean([1e308, 1e308, float("nan")]) == 1e308
    assert np.isnan(nanmean([np.inf, -np.inf]))


def test_a_spreadsheet_takes_no_name_for_a_formula():
    rows = [(case, label, "dice", 0.5, 1.0) for case in ("=HYPERLINK(1)", "-5", "a") for label in ("@x", "+", "liver")]
    scores = case_scores(rows).assign(run="r", seed="", dataset="-D", references="", patient="+1")
    table = without_formulas(wide_table(scores))
    assert list(table) == ["dataset", "references", "case", "patient", "'@x dice", "'+ dice", "liver dice"]
    assert sorted(table["case"]) == ["'=HYPERLINK(1)", "-5", "a"]
    assert set(table["dataset"]) == {"'-D"}
    assert set(table["patient"]) == {"+1"}
    assert (table["liver dice"] == 0.5).all()
