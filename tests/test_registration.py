"""The value of nnUNet_extTrainer is extended, never replaced."""

import os
import pkgutil
from pathlib import Path

import pytest

import nnunet_ext
from nnunet_ext.cli import main
from nnunet_ext.registration import VARIABLE, discovery_folder, extended_value, folders_of_users

OURS = str(discovery_folder())


@pytest.mark.parametrize("empty", [None, "", os.pathsep, " "])
def test_nothing_becomes_our_folder_alone(empty: str | None) -> None:
    assert extended_value(empty) == OURS


def test_other_folders_stay_in_front_and_in_order() -> None:
    assert extended_value(os.pathsep.join(["/b", "/a"])) == os.pathsep.join(["/b", "/a", OURS])


@pytest.mark.parametrize("folders", [[OURS], ["/a", OURS], [OURS, "/a"], ["/a", "", OURS]])
def test_value_with_our_folder_is_returned_as_it_is(folders: list[str]) -> None:
    value = os.pathsep.join(folders)
    assert extended_value(value) == value


def test_the_command_prints_the_value_or_our_folder_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(VARIABLE, "/mine")
    for arguments, printed in (([], os.pathsep.join(["/mine", OURS])), (["--only"], OURS)):
        assert main(["path", *arguments]) == 0
        assert capsys.readouterr().out == f"{printed}\n"


def test_folder_whose_name_begins_like_ours_is_not_taken_for_it() -> None:
    assert extended_value(OURS + "_old") == os.pathsep.join([OURS + "_old", OURS])


def test_folders_of_users_are_those_beside_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine, package = str(tmp_path), Path(OURS).parent
    others = [str(tmp_path / "no such"), "", str(package), str(package.parent), str(package / "trainers")]
    monkeypatch.setenv(VARIABLE, os.pathsep.join([*others, mine, OURS]))
    assert folders_of_users() == [mine]
    monkeypatch.delenv(VARIABLE)
    assert folders_of_users() == []


def test_register_sets_the_environment_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "/mine")
    expected = os.pathsep.join(["/mine", OURS])
    assert nnunet_ext.register() == expected
    assert nnunet_ext.register() == expected
    assert os.environ[VARIABLE] == expected


def test_discovery_folder_holds_one_module_beside_init() -> None:
    folder = Path(OURS)
    assert (folder / "__init__.py").is_file()
    assert [module.name for module in pkgutil.iter_modules([OURS])] == ["nnunet_ext_trainers"]
