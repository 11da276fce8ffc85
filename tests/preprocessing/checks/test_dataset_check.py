from nnunet_ext.preprocessing.checks import CHECKS
from nnunet_ext.registry import TRAINERS


def test_checks_are_of_trainers_that_there_are():
    assert set(CHECKS) <= {entry.name for entry in TRAINERS}
