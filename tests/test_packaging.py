"""The built wheel holds all that is needed, outside of the checkout."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.full

ROOT = Path(__file__).resolve().parents[1]
SOURCES = ("nnunet_ext", "setup.py", "pyproject.toml", "README.md", "LICENSE")


def run(command, folder, **environment):
    completed = subprocess.run(
        command, cwd=folder, env={**os.environ, **environment}, capture_output=True, text=True, timeout=300
    )
    assert completed.returncode == 0, completed.stdout + completed.stderr
    return completed.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    source = tmp_path_factory.mktemp("source")
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, source / name)
    target = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", str(target)]
    run([*build, "."], source)
    (file,) = target.glob("*.whl")
    return file


def test_wheel_holds_every_file_of_the_package_and_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if ".dist-info/" not in name}
    expected = {
        str(path.relative_to(ROOT).as_posix())
        for path in (ROOT / "nnunet_ext").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert packed == expected


def test_installed_wheel_is_found_by_nnunet_from_any_folder(wheel, tmp_path):
    site, elsewhere = tmp_path / "site packages", tmp_path / "else where"
    elsewhere.mkdir()
    run([sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(site), str(wheel)], elsewhere)
    environment = {"PYTHONPATH": str(site), "nnUNet_extTrainer": ""}
    folder = run([sys.executable, str(site / "bin" / "nnunet_ext"), "path"], elsewhere, **environment).strip()
    assert Path(folder) == site / "nnunet_ext" / "discovery"
    lookup = (
        "from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name as find\n"
        "import sys; print(sys.modules[find('nnUNetTrainerMixUp').__module__].__file__)"
    )
    found = run([sys.executable, "-c", lookup], elsewhere, **{**environment, "nnUNet_extTrainer": folder})
    assert Path(found.strip().splitlines()[-1]) == site / "nnunet_ext" / "trainers" / "mixup.py"
