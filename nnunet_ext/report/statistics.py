"""Paired tests of runs, and Holm's correction for several of them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata, wilcoxon

FEWEST = 6  # differences that a signed-rank test needs: five that all point one way have p = 2 / 2⁵ = 0.0625
MOST_EXACT = 50


@dataclass(frozen=True)
class SignedRank:
    """A two-sided Wilcoxon signed-rank test."""

    p: float
    exact: bool  # by the exact distribution, not the normal approximation


def signed_rank(differences: Sequence[float]) -> SignedRank | None:
    """Wilcoxon's signed-rank test, two-sided; differences of zero are left out, as Wilcoxon did.

    Exact for up to fifty differences, ties or not; else the normal approximation, corrected for ties. There is none if
    fewer than six patients differ: no such test can be significant at 5 %.
    """
    counting: npt.NDArray[np.float64] = np.array([value for value in differences if value != 0])
    if len(counting) < FEWEST:
        return None
    if len(counting) <= MOST_EXACT:
        return SignedRank(_exact_p(counting), exact=True)
    try:
        test = wilcoxon(counting, zero_method="wilcox", method="asymptotic")
    except ValueError:  # the approximation's name in older scipy
        test = wilcoxon(counting, zero_method="wilcox", method="approx")
    return SignedRank(float(test.pvalue), exact=False)


def _exact_p(differences: npt.NDArray[np.float64]) -> float:
    """The share of all choices of signs whose rank sums are at least as far apart; none of the differences is zero.

    Equal sizes share the mean of their ranks. scipy's exact distribution has no ties, and its permutation test draws at
    random where there are many choices.
    """
    ranks = np.rint(2 * rankdata(np.abs(differences))).astype(int)  # twice the ranks, which are whole with ties too
    choices = np.ones(1)  # of signs, by the sum of the ranks of positive differences; exact up to 2⁵³
    for rank in ranks:
        choices = np.pad(choices, (0, rank)) + np.pad(choices, (rank, 0))
    smaller = min(ranks[differences > 0].sum(), ranks[differences < 0].sum())
    return min(1.0, float(2 * choices[: smaller + 1].sum() / choices.sum()))


def holm(values: Sequence[float]) -> list[float]:
    """p values corrected for their number by Holm's method, in the order given."""
    order = np.argsort(values, kind="stable")
    corrected = np.empty(len(values))
    corrected[order] = np.maximum.accumulate(np.arange(len(values), 0, -1) * np.asarray(values, float)[order])
    return [float(value) for value in np.minimum(corrected, 1)]
