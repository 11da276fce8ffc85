import math

import pytest

from nnunet_ext.losses.ramps import sigmoid_ramp


def test_the_ramp_by_hand():
    assert sigmoid_ramp(0, 99) == pytest.approx(math.exp(-5))
    assert sigmoid_ramp(49.5, 99) == pytest.approx(math.exp(-1.25))
    assert sigmoid_ramp(99, 99) == sigmoid_ramp(500, 99) == 1.0


def test_the_ramp_never_falls():
    values = [sigmoid_ramp(epoch, 99) for epoch in range(150)]
    assert values == sorted(values)


def test_without_length_there_is_no_ramp():
    assert sigmoid_ramp(0, 0) == 1.0
