from pkgutil import resolve_name

import pytest

from nnunet_ext.registry import TECHNIQUES


@pytest.mark.parametrize("check", sorted({check for technique in TECHNIQUES for check in technique.checks}))
def test_checks_that_techniques_name_are_there(check):
    assert isinstance(resolve_name(check), type)
