"""Columns of text."""

from nnunet_ext.evaluation.text_table import aligned


def test_first_column_is_aligned_left_and_the_others_right():
    assert aligned([["Dice", "a"], ["x", "0.123"]]) == "Dice      a\nx     0.123"
