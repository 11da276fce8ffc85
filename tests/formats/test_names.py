"""Which names from data can be those of files."""

import pytest

from nnunet_ext.errors import UserError
from nnunet_ext.formats.names import check_names, file_key, problem_with_name


@pytest.mark.parametrize("name", ["case_1", "MRI 2", "fälle-7", "a.b", "..a", "x" * 200, "con", "a:b"])
def test_ordinary_names_are_taken(name):
    assert problem_with_name(name, windows=False) == ""


@pytest.mark.parametrize(
    "name",
    ["", " ", ".", "..", "../a", "/etc/passwd", "a/b", "a\\b", "C:\\x", "a\nb", "a\0b", "\x7f", "\x85", "x" * 201]
    + ["ü" * 101, "\ud800", 3, None, ["a"]],
)
def test_others_are_refused(name):
    assert problem_with_name(name, windows=False)


@pytest.mark.parametrize("name", ["con", "NUL.nii", "Com1", "a.", "a ", "a:b", "a?"])
def test_windows_has_more_rules(name):
    assert problem_with_name(name, windows=True)


def test_message_names_place_and_name():
    with pytest.raises(UserError, match=r"D/dataset\.json: '\.\./evil' cannot be the name of a case: it holds a path"):
        check_names(["fine", "../evil"], what="case", where="D/dataset.json")


def test_a_long_name_is_shown_in_part():
    with pytest.raises(UserError) as raised:
        check_names(["x" * 5000], what="case", where="D")
    assert len(str(raised.value)) < 250


@pytest.mark.parametrize("names", [("Case", "cASE"), ("Zo\u00eb", "ZOE\u0308"), ("straße", "STRASSE")])
def test_names_that_are_one_file_on_some_system_have_one_key(names):
    assert len(set(map(file_key, names))) == 1
    assert file_key("zoe") != file_key("zoë")
