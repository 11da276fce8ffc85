from nnunet_ext.messages import counted, last_line, some


def test_few_items_are_all_named_and_many_are_counted():
    assert some(["a", "b"]) == "a, b"
    assert some(list("abcde")) == "a, b, c, d, e"
    assert some(list("abcdefg")) == "a, b, c, d, e and 2 more"
    assert some({1: "x", 2: "y", 3: "z"}, 2) == "1, 2 and 1 more"


def test_one_is_not_plural():
    assert [counted(number, "case") for number in (0, 1, 2)] == ["0 cases", "1 case", "2 cases"]


def test_last_line_of_nothing_is_empty():
    assert last_line(RuntimeError("first\n last \n")) == "last"
    assert last_line("") == ""
