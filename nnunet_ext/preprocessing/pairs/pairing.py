"""Which files belong to a current scan and its prior: read from a table, or from folders with the same names."""

import csv
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from nnunet_ext.errors import UserError
from nnunet_ext.formats.names import check_names, composed, file_key
from nnunet_ext.messages import counted, some
from nnunet_ext.preprocessing.raw.raw_dataset import images_in
from nnunet_ext.preprocessing.raw.splits import group_cases

PATIENT, CASE = "patient", "case"
CURRENT_IMAGE, PRIOR_IMAGE, PRIOR_LABEL, CURRENT_LABEL = "current_image", "prior_image", "prior_label", "current_label"
FILES = (CURRENT_IMAGE, PRIOR_IMAGE, PRIOR_LABEL, CURRENT_LABEL)
COLUMNS = (PATIENT, *FILES, CASE)

ENDINGS = (".nii.gz", ".nii", ".nrrd", ".mha", ".mhd", ".gipl.gz", ".gipl", ".tif", ".tiff", ".png", ".bmp")
"""Of the files that are looked for in folders; a table names files of any kind that SimpleITK reads."""


@dataclass(frozen=True)
class Pair:
    """A current scan and what there is of its prior."""

    case: str  # name of the case in the dataset
    patient: str  # whose it is; all cases of a patient go into one part of a fold
    current_image: Path  # the scan to be segmented
    prior_image: Path | None = None  # the earlier scan, None if there is none
    prior_label: Path | None = None  # the label map of the earlier scan, None if there is none
    current_label: Path | None = None  # the reference, None if there is none, as in prediction

    @property
    def files(self) -> dict[str, Path]:
        """The files that there are, by the name of their column."""
        return {name: file for name in FILES if (file := getattr(self, name)) is not None}


def read_table(file: Path, *, wanted: Sequence[str], with_labels: bool) -> list[Pair]:
    """Read pairs from a CSV file, in the order of their cases' names.

    Its first line names the columns: patient, current_image, prior_image, prior_label, current_label, and perhaps case,
    in any order and separated by commas, semicolons or tabs. Paths are relative to the table. An empty cell in
    prior_image or prior_label says that there is none.

    Args:
        file: the table. A UserError says if it cannot be read, lacks a column or a value, or names a missing file, one
            file in two roles or one case twice.
        wanted: those of prior_image and prior_label that are to be used.
        with_labels: whether current label maps are needed, as in training. If not, the prior's columns may be missing.
    """
    rows = _rows(file, [*wanted, CURRENT_LABEL] if with_labels else [], optional=() if with_labels else wanted)
    needed = (PATIENT, CURRENT_IMAGE, *([CURRENT_LABEL] * with_labels))
    empty = {line: [name for name in needed if not row.get(name)] for line, row in rows}
    if problems := [f"line {line} has no {' and no '.join(names)}" for line, names in empty.items() if names]:
        raise UserError(f"{file}: {some(problems, 3)}.")
    if not rows:
        raise UserError(f"{file} has no line below its header. Add one for each case.")
    used = FILES if with_labels else [name for name in FILES if name != CURRENT_LABEL]
    pairs = []
    for _, row in rows:
        files = {name: file.parent / value for name in used if (value := row.get(name))}
        pairs.append(Pair(row.get(CASE) or row[PATIENT], composed(row[PATIENT]), **files))
    number = Counter(file_key(pair.case) for pair in pairs)
    if twice := list(dict.fromkeys(pair.case for pair in pairs if number[file_key(pair.case)] > 1)):
        raise UserError(
            f"{file} has more than one line for the case {some(twice, 3)}. A case is named by its patient unless a "
            "column `case` names it: give each line of a patient a name of its own there."
        )
    return _checked(pairs, where=file)


def _rows(file: Path, needed: Sequence[str], *, optional: Sequence[str]) -> list[tuple[int, dict[str, str]]]:
    """The lines of a table below its header, with their numbers, without those that are all empty.

    A column must be there if it is needed. An optional one may be missing unless there is an unknown column, which may
    be the same one misspelt. A column that is named twice, and one of further images or label maps, such as
    current_image_2, are refused.
    """
    try:
        text = file.read_text(encoding="utf-8-sig")  # spreadsheets begin a file with a byte order mark
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{file} cannot be read as a table in UTF-8: {error}") from None
    delimiter = max(",;\t", key=text.partition("\n")[0].count)
    try:
        reader = csv.DictReader(text.splitlines(), delimiter=delimiter, skipinitialspace=True)
        columns = reader.fieldnames = [name.strip() for name in reader.fieldnames or ()]
        lines = [(reader.line_num, row) for row in reader]
    except csv.Error as error:
        raise UserError(f"{file} cannot be read as a table: {error}. Save it as CSV with one line a case.") from None
    missing = [name for name in (PATIENT, CURRENT_IMAGE, *needed) if name not in columns]
    if set(columns) - set(COLUMNS):
        missing += [name for name in optional if name not in columns]
    if missing:
        raise UserError(
            f"{file} has no column {', '.join(missing)}; its first line names: {', '.join(columns) or 'nothing'}. "
            "Where there is no prior, leave the cell empty, but keep the column."
        )
    if twice := [name for name in COLUMNS if columns.count(name) > 1]:
        raise UserError(f"{file} has the column {', '.join(twice)} more than once in its first line. Keep one of them.")
    if further := [name for name in columns if name not in COLUMNS and name.startswith(FILES)]:
        raise UserError(
            f"{file} has the columns {', '.join(further)}, which are not known: a pair has one image and one label map "
            f"for each date. Known are {', '.join(COLUMNS)}. Remove them; further sequences become channels by hand, "
            "with their roles in dataset.json (longitudinal)."
        )
    rows = []
    for line, row in lines:
        if None in row or None in row.values():
            raise UserError(f"{file}, line {line}: it needs {len(columns)} cells, as the first line has.")
        values = {name: value.strip() for name, value in row.items()}
        if any(values.values()):
            rows.append((line, values))
    return rows


def find_pairs(
    current: Path,
    *,
    prior: Path | None = None,
    prior_segmentations: Path | None = None,
    current_segmentations: Path | None = None,
    group: str | None = None,
) -> list[Pair]:
    """Find pairs in folders whose files have the same names, whatever they end in.

    Names may carry nnU-Net's number of the first channel: ``case_0000.nii.gz`` is the case ``case``. Not every case
    needs a file in `prior` or `prior_segmentations`. In training every case needs one in `current_segmentations`, which
    is None in prediction. `group` finds the patient in a case's name, see `group_cases`. A UserError says if a folder
    is not there or empty, a case has two files in one, a current label map is missing, or there are files of cases that
    have no current image.
    """
    images = _files(current)
    others = {PRIOR_IMAGE: prior, PRIOR_LABEL: prior_segmentations, CURRENT_LABEL: current_segmentations}
    found = {name: _files(folder) for name, folder in others.items() if folder is not None}
    for name, files in found.items():
        if alone := sorted(set(files) - set(images)):
            raise UserError(
                f"{others[name]} has {counted(len(alone), 'file')} without a current image of the same name in "
                f"{current}: {some([files[case].name for case in alone], 3)}. Rename or move them."
            )
    if missing := sorted(set(images) - set(found.get(CURRENT_LABEL, images))):
        raise UserError(
            f"{current_segmentations} has no label map of the same name for {counted(len(missing), 'current image')}: "
            f"{some([images[case].name for case in missing], 3)}. Add the label maps, or move the images away."
        )
    patients = {case: patient for patient, cases in group_cases(list(images), group).items() for case in cases}
    pairs = [
        Pair(case, patients[case], image, **{name: files[case] for name, files in found.items() if case in files})
        for case, image in images.items()
    ]
    return _checked(pairs, where=current)


def _files(folder: Path) -> dict[str, Path]:
    """The files of a folder by case, of which it has one each and at least one."""
    files: dict[str, Path] = {}
    seen: dict[str, Path] = {}
    for file, name, _ in images_in(folder, ENDINGS):
        case = name.removesuffix("_0000")
        if (other := seen.setdefault(file_key(case), file)) != file:
            raise UserError(f"{folder} has two files of the case {case}: {other.name}, {file.name}. Keep one.")
        files[case] = file
    return files


def _checked(pairs: Sequence[Pair], *, where: Path) -> list[Pair]:
    """The pairs in order; a UserError if a name cannot be a file's, a file is missing, or has two roles in a case."""
    check_names((pair.case for pair in pairs), what="case", where=where)
    if hidden := [pair.case for pair in pairs if pair.case.startswith(".")]:
        raise UserError(f"{where}: {some(hidden, 3)} cannot be the name of a case, as its files are hidden. Rename it.")
    if missing := [
        f"{file} (case {pair.case})" for pair in pairs for file in pair.files.values() if not file.is_file()
    ]:
        raise UserError(
            f"{where} names files that do not exist ({len(missing)}): {some(missing, 3)}. Names are relative to the "
            "table's folder; fix them, or leave the cell empty where there is no prior."
        )
    for pair in pairs:
        for one, other in ((CURRENT_IMAGE, PRIOR_IMAGE), (CURRENT_LABEL, PRIOR_LABEL)):
            if one in pair.files and pair.files[one] == pair.files.get(other):
                raise UserError(
                    f"{where}: case {pair.case} has the same file as {one} and as {other}: {pair.files[one]}. A prior "
                    "is another scan; leave it empty if there is none."
                )
    return sorted(pairs, key=lambda pair: pair.case)


def patients_of(pairs: Sequence[Pair]) -> Mapping[str, list[str]]:
    """Cases by patient, both in order."""
    groups: dict[str, list[str]] = {}
    for pair in sorted(pairs, key=lambda pair: (pair.patient, pair.case)):
        groups.setdefault(pair.patient, []).append(pair.case)
    return groups
