"""The scores table keeps every bit of a number, and names what is not a table."""

import numpy as np
import pandas as pd
import pytest

from nnunet_ext.errors import UserError
from nnunet_ext.evaluation.scores_table import COLUMNS, read_scores, write_scores


def table(numerators):
    row = {"run": "a", "seed": "0", "dataset": "D", "references": "", "case": "NA", "patient": "p", "label": "liver"}
    return pd.DataFrame([{**row, "metric": "dice", "numerator": n, "denominator": 1.0} for n in numerators])


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


@pytest.mark.parametrize("content", ["", "case,dice\na,1\n", ",".join(COLUMNS) + "\na,0,D,,c,p,l,dice,many,1\n"])
def test_another_file_is_refused_by_name(tmp_path, content):
    file = tmp_path / "scores.csv"
    file.write_text(content)
    with pytest.raises(UserError, match="scores.csv"):
        read_scores(file)
