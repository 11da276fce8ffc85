"""Every label has the tolerance that was given for it, and none that nobody gave."""

from __future__ import annotations

import pytest

from nnunet_ext.errors import UserError
from nnunet_ext.evaluation.tolerances import tolerances_by_label

LABELS = ["core", "whole tumour"]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([(None, 2.0)], {"core": 2.0, "whole tumour": 2.0}),
        ([("core", 1.0), (None, 2.0)], {"core": 1.0, "whole tumour": 2.0}),
        ([("whole tumour", 0.0), ("core", 1.5)], {"core": 1.5, "whole tumour": 0.0}),
    ],
)
def test_a_number_alone_is_for_labels_that_are_not_named(given, expected):
    assert tolerances_by_label(given, LABELS) == expected


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([("core", 1.0)], "nothing for whole tumour. .* whole tumour=MM"),
        ([("Core", 1.0), (None, 2.0)], "names Core, but the labels that are scored are core, whole tumour"),
        ([("core", 1.0), ("core", 1.0), (None, 2.0)], "gives core several times"),
        ([(None, 1.0), (None, 2.0)], "several numbers without a label"),
    ],
)
def test_tolerances_that_do_not_fit_the_labels_are_refused(given, message):
    with pytest.raises(UserError, match=message):
        tolerances_by_label(given, LABELS)
