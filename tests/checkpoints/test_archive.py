"""Archives whose entries could leave their place are refused as a whole."""

from __future__ import annotations

import random
import stat
import zipfile
from pathlib import Path, PurePosixPath

import pytest

from nnunet_ext.checkpoints import archive as archive_module
from nnunet_ext.checkpoints.archive import extract
from nnunet_ext.errors import UserError


class CountedName(str):
    """Counts how often names are compared."""

    comparisons = 0

    def __eq__(self, other: object) -> bool:
        CountedName.comparisons += 1
        return super().__eq__(other)

    __hash__ = str.__hash__


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    return tmp_path / "a model ü.zip"


def written(archive: Path, *entries: str | zipfile.ZipInfo, content: bytes = b"data") -> Path:
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as handle:
        for entry in entries:
            handle.writestr(entry, content)
    return archive


def everything(path: PurePosixPath) -> bool:
    return True


def refusal(archive: Path, folder: Path) -> str:
    with pytest.raises(UserError) as error:
        extract(archive, folder, wanted=everything)
    assert str(archive) in str(error.value)
    assert not list(folder.rglob("*"))
    return str(error.value)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "here" / "inside"
    made.mkdir(parents=True)
    return made


def test_wanted_files_are_unpacked_and_others_not(archive, folder):
    written(archive, "Dataset001_A/model/plans.json", "Dataset001_A/model/postprocessing.pkl", "Dataset001_A/ü x/f.pth")
    taken = extract(archive, folder, wanted=lambda path: path.suffix != ".pkl")
    assert taken == [PurePosixPath("Dataset001_A/model/plans.json"), PurePosixPath("Dataset001_A/ü x/f.pth")]
    assert (folder / "Dataset001_A/ü x/f.pth").read_bytes() == b"data"
    assert len([path for path in folder.rglob("*") if path.is_file()]) == 2


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("../outside.json", "leads out"),
        ("a/../../outside.json", "leads out"),
        ("..\\outside.json", "leads out"),
        ("/etc/outside.json", "absolute"),
        ("C:/outside.json", "absolute"),
        ("C:outside.json", "absolute"),
        ("\\\\server\\share\\outside.json", "absolute"),
        ("a\\b.json", "read differently"),
    ],
)
def test_an_entry_that_leads_elsewhere_refuses_the_archive(archive, folder, name, reason):
    message = refusal(written(archive, "plans.json", name), folder)
    assert reason in message
    assert "plans.json'" not in message.replace("outside.json'", "")
    assert not (folder.parent / "outside.json").exists()


def test_a_link_refuses_the_archive(archive, folder):
    link = zipfile.ZipInfo("fold_0")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    assert "a link" in refusal(written(archive, link, content=b"/etc"), folder)


def test_names_that_are_one_file_on_some_systems_refuse_the_archive(archive, folder):
    message = refusal(written(archive, "Plans.json", "plans.json"), folder)
    assert "'Plans.json': it is there twice" in message


@pytest.mark.parametrize("names", [("./plans.json", "plans.json"), ("m//é.json", "m/é.json"), ("ü.pth", "u\u0308.pth")])
def test_paths_that_are_one_file_refuse_the_archive(archive, folder, names):
    assert "it is there twice" in refusal(written(archive, *names), folder)


@pytest.mark.parametrize("names", [("m/plans.json", "m/plans.json/x.json"), ("M/a/b/x.json", "m/A")])
def test_an_entry_in_another_that_is_a_file_refuses_the_archive(archive, folder, names):
    message = refusal(written(archive, *names), folder)
    assert "x.json': it lies in another entry, which is a file" in message


@pytest.mark.parametrize("name", [f"m/{'a' * 300}.json", "m/" * 20_000 + "plans.json"])
def test_a_path_that_no_system_has_is_a_message(archive, folder, name):
    with pytest.raises(UserError, match=r"damaged|a path of 40010 characters") as error:
        extract(written(archive, name), folder, wanted=everything)
    assert len(str(error.value)) < 1000 + len(str(folder))


def test_an_archive_whose_name_of_an_entry_is_no_text_is_damaged(archive, folder):
    written(archive, "m/plüns.json")
    archive.write_bytes(archive.read_bytes().replace("ü".encode(), b"\xff\xff"))
    assert "damaged" in refusal(archive, folder)


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA, zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED])
def test_damaged_content_of_any_kind_is_a_message(archive, folder, method):
    with zipfile.ZipFile(archive, "w", method) as handle:
        handle.writestr("plans.json", random.Random(0).randbytes(2000))
    whole = archive.read_bytes()
    for start in range(40, 120, 8):
        turned = bytes(255 - byte for byte in whole[start : start + 8])
        archive.write_bytes(whole[:start] + turned + whole[start + 8 :])
        with pytest.raises(UserError, match="damaged|cannot be unpacked"):
            extract(archive, folder, wanted=everything)


def test_an_archive_that_cannot_be_read_is_not_called_damaged(folder, tmp_path):
    with pytest.raises(FileNotFoundError):
        extract(tmp_path / "none.zip", folder, wanted=everything)


def test_an_archive_that_unpacks_to_far_more_is_refused(archive, folder):
    message = refusal(written(archive, "checkpoint.pth", content=bytes(20_000_000)), folder)
    assert "20000000 bytes packed into" in message


@pytest.mark.parametrize(("variable", "limit"), [("NNUNET_EXT_MAX_FILES", "2"), ("NNUNET_EXT_MAX_GB", "1e-8")])
def test_an_archive_with_too_many_or_too_large_files_is_refused(archive, folder, monkeypatch, variable, limit):
    written(archive, "plans.json", "dataset.json", "fold_0/f.pth")
    monkeypatch.setenv(variable, limit)
    message = refusal(archive, folder)
    assert "has 3 files of" in message
    assert f"{float(limit):g}" in message
    assert "set the environment variables NNUNET_EXT_MAX_FILES and NNUNET_EXT_MAX_GB to more" in message
    monkeypatch.setenv(variable, "many")
    with pytest.raises(UserError, match=f"{variable} must be a number above 0; 'many' was found"):
        extract(archive, folder, wanted=everything)


def test_the_comparisons_of_names_do_not_grow_with_the_square_of_their_number(archive, monkeypatch):
    entries = [zipfile.ZipInfo(f"fold_0/{number}") for number in range(1000)]
    monkeypatch.setattr(archive_module, "_key", lambda entry: CountedName(entry.filename))
    archive_module._refuse_dangerous(archive, entries)
    assert CountedName.comparisons < 10_000


def test_many_dangerous_entries_are_counted(archive, folder):
    message = refusal(written(archive, *(f"../{number}" for number in range(30))), folder)
    assert "and 22 more" in message


def test_what_is_no_archive_or_damaged_is_refused(archive, folder):
    archive.write_bytes(b"no zip")
    assert "no zip archive" in refusal(archive, folder)
    written(archive, "plans.json", content=bytes(range(256)) * 40)
    damaged = bytearray(archive.read_bytes())
    damaged[60:80] = bytes(20)
    archive.write_bytes(damaged)
    with pytest.raises(UserError, match="damaged"):
        extract(archive, folder, wanted=everything)
