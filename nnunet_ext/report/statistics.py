"""Paired tests of runs, and Holm's correction for several of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import wilcoxon

FEWEST = 6
"""Differences that a signed-rank test needs: five that all point one way have p = 2 / 2⁵ = 0.0625."""

MOST_EXACT = 50


@dataclass(frozen=True)
class SignedRank:
    """A Wilcoxon signed-rank test.

    Attributes:
        p: two-sided.
        exact: whether it is of the exact distribution; else of the normal approximation.
    """

    p: float
    exact: bool


def signed_rank(differences: Sequence[float]) -> SignedRank | None:
    """Wilcoxon's signed-rank test, two-sided; differences of zero are left out, as Wilcoxon did.

    Exact for up to fifty differences without ties; else the normal approximation, corrected for ties.

    Args:
        differences: of patients, none NaN.

    Returns:
        None if fewer than six differ from zero: no such test can be significant at 5 %.
    """
    counting: npt.NDArray[np.float64] = np.array([value for value in differences if value != 0])
    if len(counting) < FEWEST:
        return None
    exact = len(counting) <= MOST_EXACT and len(np.unique(np.abs(counting))) == len(counting)
    return SignedRank(_exact_p(counting) if exact else _approximate_p(counting), exact)


def _exact_p(differences: npt.NDArray[np.float64]) -> float:
    return float(wilcoxon(differences, zero_method="wilcox", method="exact").pvalue)


def _approximate_p(differences: npt.NDArray[np.float64]) -> float:
    try:
        return float(wilcoxon(differences, zero_method="wilcox", method="asymptotic").pvalue)
    except ValueError:  # the method's name in older scipy
        return float(wilcoxon(differences, zero_method="wilcox", method="approx").pvalue)


def holm(values: Sequence[float]) -> list[float]:
    """p values corrected for their number by Holm's method, in the order given."""
    corrected, highest = [0.0] * len(values), 0.0
    for rank, place in enumerate(sorted(range(len(values)), key=values.__getitem__)):
        highest = max(highest, min(1.0, (len(values) - rank) * values[place]))
        corrected[place] = highest
    return corrected
