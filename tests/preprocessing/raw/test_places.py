"""Places of images and labels, as messages tell them apart."""

import numpy as np
import pytest

from nnunet_ext.preprocessing.raw.places import told_apart


@pytest.mark.parametrize(
    ("one", "other", "texts"),
    [
        ((1.0, 2.5), (1.0, 2.0), ["1 × 2.5", "1 × 2"]),
        ((1.0, 1.0), (1.0, 1.0000001), ["1 × 1", "1 × 1.0000001"]),
        ((1.0,), (float(np.nextafter(1.0, 2.0)),), ["1", "1.0000000000000002"]),
    ],
)
def test_numbers_that_differ_are_printed_differently(one, other, texts):
    assert told_apart(one, other, " × ") == texts
