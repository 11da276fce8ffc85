"""Tests and corrections against hand-worked cases and scipy's documented example."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest

from nnunet_ext.report.statistics import holm, signed_rank


def test_scipys_documented_example_has_its_p_value():
    corn = [6, 8, 14, 16, 23, 24, 28, 29, 41, -48, 49, 56, 60, -67, 75]
    test = signed_rank(corn)
    assert test.exact
    assert test.p == pytest.approx(0.041259765625)


def test_exact_p_is_the_share_of_signs_at_least_as_extreme():
    # ranks 1 … 6, the second is negative: W- = 2
    differences = [0.1, -0.2, 0.3, 0.4, 0.5, 0.6]
    sums = [sum(rank for rank, sign in zip(range(1, 7), signs) if sign) for signs in product((0, 1), repeat=6)]
    share = np.mean([min(value, 21 - value) <= 2 for value in sums])
    assert signed_rank(differences).p == pytest.approx(share)
    assert share == pytest.approx(6 / 64)


def test_equal_cases_are_left_out_and_ties_need_the_normal_approximation():
    differences = [1.0, 1.0, 2.0, 3.0, 4.0, -5.0, 6.0, 7.0, 0.0]
    test = signed_rank(differences)
    assert not test.exact
    # ranks 1.5 1.5 3 4 5 6 7 8, W- = 6; mean 8·9/4, variance 8·9·17/24 less (2³ - 2)/48 for the tie
    z = (6 - 18) / math.sqrt(8 * 9 * 17 / 24 - 6 / 48)
    assert test.p == pytest.approx(math.erfc(-z / math.sqrt(2)))
    assert test == signed_rank(differences[:-1])


@pytest.mark.parametrize("differences", [[1, 2, 3, 4, 5], [1, 2, 3, 4, 5, 0, 0, 0], []])
def test_fewer_than_six_differences_are_not_tested(differences):
    assert signed_rank(differences) is None


def test_six_differences_can_be_significant():
    assert signed_rank([1, 2, 3, 4, 5, 6]).p == pytest.approx(2 / 64)


def test_holm_by_hand():
    # 4 · 0.005; 3 · 0.01; 2 · 0.03; 1 · 0.04 is raised to the one before
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]) == pytest.approx([1.0, 1.0])
    assert holm([0.03]) == [0.03]
    assert holm([]) == []
