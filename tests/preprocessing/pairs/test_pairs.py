"""Which files belong to a current scan and its prior: tables and folders, and what is wrong with them."""

from pathlib import Path

import pytest

from nnunet_ext.errors import UserError
from nnunet_ext.preprocessing.pairs.pairing import Pair, find_pairs, patients_of, read_table
from support.scan_pairs import HEADER, write_table

WANTED = ("prior_image", "prior_label")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "some scans ä"
    place.mkdir()
    return place


def row(folder: Path, patient: str, **cells: str) -> dict[str, str]:
    """Cells of a line, and empty files of their names."""
    filled = {"patient": patient, **{column: f"{patient} {column}.nii.gz" for column in HEADER[1:]}, **cells}
    for column in HEADER[1:]:
        if filled[column]:
            (folder / filled[column]).touch()
    return filled


def read(folder: Path, rows: list[dict[str, str]], *, with_labels: bool = True, delimiter: str = ",") -> list[Pair]:
    table = write_table(folder / "pairs ü.csv", rows, delimiter=delimiter)
    return read_table(table, wanted=WANTED, with_labels=with_labels)


def refusal(folder: Path, rows: list[dict[str, str]]) -> str:
    with pytest.raises(UserError) as error:
        read(folder, rows)
    return str(error.value)


def test_table_is_read_with_paths_relative_to_it(folder):
    pairs = read(folder, [row(folder, "zoë"), row(folder, "ann", prior_image="", prior_label="")])
    assert pairs == [
        Pair(
            "ann",
            "ann",
            folder / "ann current_image.nii.gz",
            current_label=folder / "ann current_label.nii.gz",
        ),
        Pair("zoë", "zoë", *(folder / f"zoë {column}.nii.gz" for column in HEADER[1:])),
    ]


def test_absolute_paths_stay(folder, tmp_path):
    elsewhere = tmp_path / "elsewhere.nii.gz"
    pairs = read(folder, [row(folder, "ann", current_image=str(elsewhere))])
    assert pairs[0].current_image == elsewhere


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_tables_of_spreadsheets_are_read(folder, delimiter):
    table = write_table(folder / "t.csv", [row(folder, "ann")], delimiter=delimiter)
    content = table.read_text()
    table.write_bytes(b"\xef\xbb\xbf" + content.replace("\n", "\r\n").encode() + delimiter.join([""] * 5).encode())
    assert [pair.case for pair in read_table(table, wanted=WANTED, with_labels=True)] == ["ann"]


def test_cases_have_names_of_their_own_where_a_patient_has_several(folder):
    rows = [{**row(folder, "ann"), "case": "ann_2"}, {**row(folder, "ann"), "case": "ann_1"}, row(folder, "bob")]
    pairs = read(folder, rows)
    assert [pair.case for pair in pairs] == ["ann_1", "ann_2", "bob"]
    assert patients_of(pairs) == {"ann": ["ann_1", "ann_2"], "bob": ["bob"]}


def test_patient_twice_without_names_is_refused(folder):
    message = refusal(folder, [row(folder, "ann"), row(folder, "bob"), row(folder, "ann")])
    assert "more than one line for the case ann" in message
    assert "column `case`" in message


def test_case_twice_is_refused(folder):
    rows = [{**row(folder, name), "case": "one"} for name in ("ann", "bob")]
    assert "more than one line for the case one" in refusal(folder, rows)
    rows[1]["case"] = "One"  # one file for both on macOS and Windows
    assert "more than one line for the case one, One" in refusal(folder, rows)


def test_a_patient_in_two_forms_of_unicode_is_one(folder):
    """Of a table that is half from a spreadsheet and half from names of files on macOS."""
    rows = [{**row(folder, "Zo\u00eb"), "case": "1"}, {**row(folder, "Zoe\u0308"), "case": "2"}]
    assert patients_of(read(folder, rows)) == {"Zo\u00eb": ["1", "2"]}
    for one in rows:
        one["case"] = ""  # each is then named by its patient
    assert "more than one line for the case" in refusal(folder, rows)


def test_a_file_in_two_forms_of_unicode_is_one_case(folder):
    places = folders(folder, current=["zo\u00eb.nii.gz", "zoe\u0308.mha"])
    with pytest.raises(UserError, match="has two files of the case"):
        find_pairs(**places)


@pytest.mark.parametrize("column", HEADER)
def test_a_column_that_is_named_twice_is_refused(folder, column):
    """The last one would be taken: an empty one would lose the prior without a word."""
    table = write_table(folder / "t.csv", [row(folder, "ann")])
    header, line = table.read_text().splitlines()
    table.write_text(f"{header},{column}\n{line},\n")
    with pytest.raises(UserError, match=rf"t\.csv has the column {column} more than once in its first line\. Keep one"):
        read_table(table, wanted=WANTED, with_labels=True)


def test_a_cell_that_is_far_too_long_is_a_message(folder):
    table = write_table(folder / "t.csv", [{**row(folder, "ann"), "patient": "x" * 200_000}])
    with pytest.raises(UserError, match=r"t\.csv cannot be read as a table: field larger than field limit"):
        read_table(table, wanted=WANTED, with_labels=True)


@pytest.mark.parametrize("column", HEADER)
def test_missing_column_is_named(folder, column):
    table = write_table(folder / "t.csv", [row(folder, "ann")])
    table.write_text(table.read_text().replace(column, f"{column}s"))
    with pytest.raises(UserError, match=f"has no column {column}; its first line names: .*{column}s"):
        read_table(table, wanted=WANTED, with_labels=True)


def test_a_further_sequence_is_not_left_out_without_a_word(folder):
    table = write_table(folder / "t.csv", [row(folder, "ann")])
    header, *lines = table.read_text().splitlines()
    table.write_text("\n".join([f"{header},current_image_2,note", *(f"{line},ann_t2.nii.gz,late" for line in lines)]))
    with pytest.raises(UserError, match="has the columns current_image_2, which are not known"):
        read_table(table, wanted=WANTED, with_labels=True)
    table.write_text("\n".join([f"{header},current_date", *(f"{line},2026-01-02" for line in lines)]))
    assert len(read_table(table, wanted=WANTED, with_labels=True)) == 1


def test_columns_of_what_is_not_wanted_may_be_left_out(folder):
    (folder / "a.nii.gz").touch()
    (folder / "b.nii.gz").touch()
    (folder / "t.csv").write_text("patient,current_image,prior_image,current_label\nann,a.nii.gz,b.nii.gz,b.nii.gz\n")
    (pair,) = read_table(folder / "t.csv", wanted=["prior_image"], with_labels=True)
    assert pair.prior_label is None


def test_prediction_needs_current_images_alone(folder):
    (folder / "a.nii.gz").touch()
    (folder / "t.csv").write_text("patient,current_image\nann,a.nii.gz\n")
    assert read_table(folder / "t.csv", wanted=WANTED, with_labels=False) == [Pair("ann", "ann", folder / "a.nii.gz")]


def test_prediction_does_not_take_a_misspelt_column_for_no_prior(folder):
    (folder / "a.nii.gz").touch()
    (folder / "t.csv").write_text("patient,current_image,prior_img,prior_label\nann,a.nii.gz,,\n")
    with pytest.raises(UserError, match="has no column prior_image"):
        read_table(folder / "t.csv", wanted=WANTED, with_labels=False)


def test_prediction_leaves_current_labels_aside(folder):
    cells = row(folder, "ann")
    (folder / cells["current_label"]).unlink()
    assert read(folder, [cells], with_labels=False)[0].current_label is None


@pytest.mark.parametrize("column", ["patient", "current_image", "current_label"])
def test_empty_cell_is_named_by_line(folder, column):
    message = refusal(folder, [row(folder, "ann"), {**row(folder, "bob"), column: ""}])
    assert f"line 3 has no {column}" in message


def test_files_that_do_not_exist_are_named(folder):
    cells = row(folder, "ann")
    (folder / cells["prior_label"]).unlink()
    assert f"names files that do not exist (1): {folder / cells['prior_label']} (case ann)" in refusal(folder, [cells])


def test_one_file_as_current_and_prior_is_refused(folder):
    """The reference as a prior would be learned by heart."""
    cells = row(folder, "ann")
    message = refusal(folder, [{**cells, "prior_label": cells["current_label"]}])
    assert "case ann has the same file as current_label and as prior_label" in message
    message = refusal(folder, [{**cells, "prior_image": cells["current_image"]}])
    assert "as current_image and as prior_image" in message


@pytest.mark.parametrize("name", ["a/b", "../up", ".hidden"])
def test_names_that_files_cannot_have_are_refused(folder, name):
    assert "cannot be the name of a case" in refusal(folder, [{**row(folder, "ann"), "case": name}])


def test_tables_without_content_are_refused(folder):
    assert "no line below its header" in refusal(folder, [])
    with pytest.raises(UserError, match="cannot be read as a table"):
        read_table(folder / "missing.csv", wanted=WANTED, with_labels=True)
    (folder / "binary.csv").write_bytes(b"\x1f\x8b\xff")
    with pytest.raises(UserError, match="cannot be read as a table"):
        read_table(folder / "binary.csv", wanted=WANTED, with_labels=True)


def test_lines_of_another_length_are_refused(folder):
    table = write_table(folder / "t.csv", [row(folder, "ann")])
    table.write_text(table.read_text() + "bob,a.nii.gz\n")
    with pytest.raises(UserError, match="line 3: it needs 5 cells"):
        read_table(table, wanted=WANTED, with_labels=True)


def folders(root: Path, **names: list[str]) -> dict[str, Path]:
    for part, files in names.items():
        (root / part).mkdir()
        for name in files:
            (root / part / name).touch()
    return {part: root / part for part in names}


def test_folders_are_joined_by_name_whatever_the_ending(folder):
    places = folders(
        folder,
        current=["p1_a_0000.nii.gz", "p1_b.mha", "p2_a.nrrd", "notes.txt", ".hidden.nii.gz"],
        prior=["p1_a.nii.gz", "p2_a.nii.gz"],
        prior_segmentations=["p1_a.nii.gz"],
        current_segmentations=["p1_a.nii.gz", "p1_b.nii.gz", "p2_a.nii.gz"],
    )
    pairs = find_pairs(**places, group="^(p[0-9])")
    assert [(pair.case, pair.patient) for pair in pairs] == [("p1_a", "p1"), ("p1_b", "p1"), ("p2_a", "p2")]
    assert pairs[0].prior_label == folder / "prior_segmentations" / "p1_a.nii.gz"
    assert (pairs[1].prior_image, pairs[1].prior_label) == (None, None)
    assert (pairs[2].prior_image, pairs[2].prior_label) == (folder / "prior" / "p2_a.nii.gz", None)


def test_folder_of_current_images_is_enough_to_predict(folder):
    places = folders(folder, current=["a.nii.gz"])
    assert find_pairs(**places) == [Pair("a", "a", folder / "current" / "a.nii.gz")]


@pytest.mark.parametrize("ending", [".png", ".tif", ".nrrd"])
def test_folders_hold_what_a_table_may_name(folder, ending):
    places = folders(folder, current=[f"a{ending}"], prior=[f"a_0000{ending}"])
    assert find_pairs(**places)[0].prior_image == folder / "prior" / f"a_0000{ending}"


def test_files_without_a_current_image_are_refused(folder):
    places = folders(folder, current=["a.nii.gz"], prior=["a.nii.gz", "patient-b.nii.gz"])
    with pytest.raises(UserError, match="1 file without a current image of the same name .*: patient-b.nii.gz"):
        find_pairs(**places)


def test_current_images_without_labels_are_refused(folder):
    places = folders(folder, current=["a.nii.gz", "b.nii.gz"], current_segmentations=["a.nii.gz"])
    with pytest.raises(UserError, match="no label map of the same name for 1 current image: b.nii.gz"):
        find_pairs(**places)


@pytest.mark.parametrize("other", ["a_0000.nii.gz", "A_0000.nii.gz"])
def test_two_files_of_a_case_are_refused(folder, other):
    """To macOS and Windows, names that differ in case alone are one."""
    with pytest.raises(UserError, match="two files of the case"):
        find_pairs(**folders(folder, current=["a.nii.gz", other]))


def test_folders_without_images_are_refused(folder):
    with pytest.raises(UserError, match="has no images"):
        find_pairs(**folders(folder, current=["a.txt"]))
    with pytest.raises(UserError, match="is no folder"):
        find_pairs(folder / "missing")
