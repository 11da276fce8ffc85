"""Tests and corrections against hand-worked cases and scipy's documented example."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
from scipy.stats import wilcoxon

from nnunet_ext.report.statistics import MOST_EXACT, SignedRank, holm, signed_rank


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


def p_of_all_signs(differences):
    """By the definition: the share of signs whose rank sums differ at least as much, with the mean rank of ties."""
    sizes = np.abs(differences)
    ranks = np.array([np.sum(sizes < size) + (np.sum(sizes == size) + 1) / 2 for size in sizes])
    apart = np.abs([np.dot(ranks, signs) for signs in product((-1, 1), repeat=len(ranks))])
    return np.mean(apart >= abs(np.dot(ranks, np.sign(differences))))


@pytest.mark.parametrize(
    "differences",
    [
        [1, 1, 2, 3, 4, -5, 6, 7],
        [0.1, 0.1, 0.1, -0.1, 0.1, 0.1, 0.1],
        [1, -1, 2, -2, 3, -3],  # as far apart as any
        [0.5, 0.5, -0.5, 0.2, 0.2, 0.9, 0.9, 0.9, 1.4, -0.2, 3.0, 0.5],
        list(range(-3, 0)) + list(range(1, 9)),
    ],
)
def test_ties_are_exact_too(differences):
    test = signed_rank(differences)
    assert test.exact
    assert test.p == pytest.approx(p_of_all_signs(differences))
    assert test == signed_rank([*differences, 0, 0.0])  # which are left out


@pytest.mark.parametrize("number", [6, 7, 8, 50])
def test_p_is_never_below_what_so_few_differences_can_reach(number):
    assert signed_rank([0.25] * number) == SignedRank(2 / 2**number, exact=True)


def test_exact_distribution_is_scipys_where_there_are_no_ties():
    differences = np.random.default_rng(0).normal(0.3, 1, MOST_EXACT)
    assert signed_rank(differences).p == pytest.approx(wilcoxon(differences, method="exact").pvalue)


def test_many_differences_take_the_normal_approximation_corrected_for_ties():
    differences = [*range(2, 51), -1.0, 1.0]  # ranks 1.5 1.5 3 … 51, W- = 1.5
    test = signed_rank(differences)
    assert not test.exact
    z = (1.5 - 51 * 52 / 4) / math.sqrt(51 * 52 * 103 / 24 - (2**3 - 2) / 48)
    assert test.p == pytest.approx(math.erfc(-z / math.sqrt(2)))
    assert test == signed_rank([*differences, 0.0])


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
