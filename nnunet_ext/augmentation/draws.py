"""Where the transforms of this package draw from."""

import numpy as np


def drawn_generator() -> np.random.Generator:
    """A generator seeded from numpy's global one, from which all transforms of batchgeneratorsv2 draw."""
    return np.random.default_rng(np.random.randint(2**31, dtype=np.int64))  # noqa: NPY002
