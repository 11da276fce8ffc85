import argparse

import pytest

from nnunet_ext.arguments import (
    not_negative,
    not_negative_number,
    parse_settings,
    positive,
    positive_number,
    probability,
    share,
)


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (positive, "1", 1),
        (positive, "12", 12),
        (not_negative, "0", 0),
        (share, "1", 1),
        (share, "0.3", 0.3),
        (probability, "0.999", 0.999),
        (not_negative_number, "0", 0),
        (not_negative_number, "2.5", 2.5),
        (positive_number, "0.1", 0.1),
    ],
)
def test_numbers_in_range_are_taken(kind, text, value):
    assert kind(text) == value


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (positive, "0"),
        (positive, "-3"),
        (not_negative, "-1"),
        (share, "0"),
        (share, "1.01"),
        (share, "nan"),
        (probability, "0"),
        (probability, "1"),
        (probability, "nan"),
        (positive_number, "0"),
        (positive_number, "inf"),
        (not_negative_number, "-0.1"),
        (not_negative_number, "inf"),
        (not_negative_number, "nan"),
    ],
)
def test_numbers_out_of_range_are_named(kind, text):
    with pytest.raises(argparse.ArgumentTypeError, match=text):
        kind(text)


@pytest.mark.parametrize("kind", [positive, not_negative, not_negative_number, share])
def test_what_is_no_number_is_refused(kind):
    with pytest.raises(ValueError):
        kind("many")


@pytest.mark.parametrize("value", ["9" * 5000, "[" * 100_000])
def test_a_setting_that_json_cannot_read_is_text(value):
    """The model of the settings then says what it should be."""
    assert parse_settings([f"mixup.alpha={value}", "seed=3"]) == {"mixup": {"alpha": value}, "seed": 3}
