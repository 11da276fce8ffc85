from nnunet_ext.preprocessing.checks import CHECKS
from nnunet_ext.preprocessing.checks.dataset_check import some
from nnunet_ext.registry import TRAINERS


def test_checks_are_of_trainers_that_there_are():
    assert set(CHECKS) <= {entry.name for entry in TRAINERS}


def test_few_cases_are_all_named_and_many_are_counted():
    assert some(["a", "b"]) == "a, b"
    assert some(list("abcde")) == "a, b, c, d, e"
    assert some(list("abcdefg")) == "a, b, c, d, e and 2 more"
