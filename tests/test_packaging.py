"""The built wheel holds all that is needed, outside of the checkout, and so does the source archive."""

import json
import os
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

from nnunet_ext.cli import COMMANDS
from nnunet_ext.registry import TRAINERS

pytestmark = pytest.mark.full

ROOT = Path(__file__).resolve().parents[1]
SOURCES = ("nnunet_ext", "setup.py", "pyproject.toml", "MANIFEST.in", "README.md", "LICENSE")
BUILT = "NNUNET_EXT_DIST"
"""The variable that names a folder of built archives: `make dist` has its own looked at."""


def run(command, folder, **environment):
    completed = subprocess.run(
        command, cwd=folder, env={**os.environ, **environment}, capture_output=True, text=True, timeout=300
    )
    assert completed.returncode == 0, completed.stdout + completed.stderr
    return completed.stdout


@pytest.fixture(scope="module")
def dist(tmp_path_factory):
    """The folder of wheel and source archive; both are built here if no folder is given."""
    if folder := os.environ.get(BUILT):
        return Path(folder)
    source = tmp_path_factory.mktemp("source")
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, source / name)
    target = tmp_path_factory.mktemp("dist")
    run([sys.executable, "setup.py", "-q", "sdist", "-d", str(target)], source)
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", str(target)]
    run([*build, "."], source)
    return target


@pytest.fixture(scope="module")
def wheel(dist):
    (file,) = dist.glob("*.whl")
    return file


def files_of_the_package():
    return {
        str(path.relative_to(ROOT).as_posix())
        for path in (ROOT / "nnunet_ext").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def test_wheel_holds_every_file_of_the_package_and_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert packed == files_of_the_package()


def test_source_archive_holds_every_file_that_the_wheel_is_built_from(dist):
    (file,) = dist.glob("*.tar.gz")
    with tarfile.open(file) as archive:
        packed = {name.partition("/")[2] for name in archive.getnames()}
    assert {*files_of_the_package(), *SOURCES[1:]} <= packed
    assert not [name for name in packed if name.startswith("tests/")]


@pytest.fixture(scope="module")
def fresh(wheel, tmp_path_factory):
    """The programs' folder of a new environment with the wheel; its libraries are those of this one, which saves GB."""
    place = tmp_path_factory.mktemp("a new environment")
    venv.create(place, with_pip=False)
    programs = place / ("Scripts" if os.name == "nt" else "bin")
    install = ["install", "--quiet", "--no-deps", "--no-index", str(wheel)]
    run([sys.executable, "-m", "pip", "--python", str(programs / "python"), *install], place, PYTHONPATH="")
    (packages,) = place.rglob("site-packages")
    libraries = [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]
    # as lines of a .pth file: the .pth file of an editable installation in there, which leads here, takes no part
    (packages / "libraries.pth").write_text("\n".join(libraries), encoding="utf-8")
    return programs


def test_nnunet_finds_every_trainer_of_the_installed_wheel(fresh, tmp_path):
    environment = {"PYTHONPATH": "", "nnUNet_extTrainer": ""}
    folder = run([str(fresh / "nnunet_ext"), "path"], tmp_path, **environment).strip()
    installed = Path(folder).parent
    assert installed.is_relative_to(fresh.parent)
    lookup = (
        "import json, sys\n"
        "from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name as find\n"
        "print(json.dumps({name: sys.modules[find(name).__module__].__file__ for name in sys.argv[1:]}))"
    )
    names = [entry.name for entry in TRAINERS]
    environment["nnUNet_extTrainer"] = folder
    printed = run([str(fresh / "python"), "-c", lookup, *names], tmp_path, **environment)
    found = json.loads(printed.splitlines()[-1])
    assert list(found) == names
    assert all(Path(file).is_relative_to(installed / "trainers") for file in found.values())


def test_the_installed_command_lists_every_subcommand_and_trainer(fresh, tmp_path):
    environment = {"PYTHONPATH": "", "nnUNet_extTrainer": ""}
    described = run([str(fresh / "nnunet_ext"), "--help"], tmp_path, **environment)
    assert all(f"\n    {command}" in described for command in COMMANDS)
    listed = json.loads(run([str(fresh / "nnunet_ext"), "list", "--json"], tmp_path, **environment))
    assert {entry["name"] for entry in listed} == {entry.name for entry in TRAINERS}
