from pkgutil import resolve_name

import pytest

from nnunet_ext.preprocessing.checks.dataset_check import some
from nnunet_ext.registry import TECHNIQUES


@pytest.mark.parametrize("check", sorted({check for technique in TECHNIQUES for check in technique.checks}))
def test_checks_that_techniques_name_are_there(check):
    assert isinstance(resolve_name(check), type)


def test_few_cases_are_all_named_and_many_are_counted():
    assert some(["a", "b"]) == "a, b"
    assert some(list("abcde")) == "a, b, c, d, e"
    assert some(list("abcdefg")) == "a, b, c, d, e and 2 more"
