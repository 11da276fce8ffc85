from dataclasses import dataclass

from nnunet_ext.messages import aligned, changed_fields, counted, last_line, listed, quoted, some, spread
from nnunet_ext.nnunet_folders import dataset_number


def test_few_items_are_all_named_and_many_are_counted():
    assert some(["a", "b"]) == "a, b"
    assert some(list("abcde")) == "a, b, c, d, e"
    assert some(list("abcdefg")) == "a, b, c, d, e and 2 more"
    assert some({1: "x", 2: "y", 3: "z"}, 2) == "1, 2 and 1 more"


def test_long_values_are_cut():
    assert quoted("a\nb") == r"'a\nb'"
    assert len(quoted("x" * 1000)) == 80
    assert quoted("x" * 1000).endswith("x …")
    assert quoted(list(range(1000)), longest=12) == "[0, 1, 2,  …"


def test_one_is_not_plural():
    assert [counted(number, "case") for number in (0, 1, 2)] == ["0 cases", "1 case", "2 cases"]


def test_last_line_of_nothing_is_empty():
    assert last_line(RuntimeError("first\n last \n")) == "last"
    assert last_line("") == ""


def test_lines_of_a_list_end_with_the_number_of_the_rest():
    assert listed(["a", "b"]) == "\n  - a\n  - b"
    assert listed(["a", "b", "c"], 1) == "\n  - a\n  - and 2 more"


def test_spread_is_minimum_median_and_maximum():
    assert spread([9, 1, 4, 4.5], "mm") == "1, 4.25, 9 mm (minimum, median, maximum)"
    assert spread([12.345, 12.345], "%", digits=3).startswith("12.3, 12.3, 12.3 %")


def test_first_column_is_aligned_left_and_the_others_right():
    assert aligned([["Dice", "a"], ["x", "0.123"]]) == "Dice      a\nx     0.123"


def test_commands_take_a_dataset_by_its_number():
    assert dataset_number("Dataset004_Hippocampus") == "4"
    assert dataset_number("Hippocampus") == "Hippocampus"


def test_a_list_may_name_everything():
    assert listed(range(10)).endswith("\n  - 7\n  - and 2 more")
    assert listed(range(10), None).endswith("\n  - 9")


@dataclass
class Asked:
    fold: int
    name: str = "a"


def test_differences_are_shown_with_both_values():
    assert changed_fields(Asked(1), Asked(1)) == ""
    assert changed_fields(Asked(1), Asked(2, "b")) == "\n  - fold: 1, asked for: 2\n  - name: 'a', asked for: 'b'"
