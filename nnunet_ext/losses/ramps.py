"""Factors that rise over a training."""

import math


def sigmoid_ramp(position: float, length: float) -> float:
    """exp(-5 (1 - t)²) with t = position / length, and 1 from there on: from 0.007 to 1, flat at the end.

    Args:
        position: not negative, e.g. the epoch.
        length: in the same unit; 0 for no ramp.

    Source: Laine and Aila, arXiv 1610.02242.
    """
    if position >= length:
        return 1.0
    return math.exp(-5.0 * (1.0 - position / length) ** 2)
