"""The page's techniques, built by what the page says: one in a copy of the repository, one in a user's own folder."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name

from nnunet_ext.cli import main
from nnunet_ext.errors import UserError
from nnunet_ext.registration import VARIABLE, discovery_folder
from nnunet_ext.trainers.tdnet import nnUNetTrainerTDNet
from support.nnunet_runs import build_trainer, train
from support.tiny_data import CASES, PREPARED, dataset_name

pytestmark = pytest.mark.full

ROOT = Path(__file__).resolve().parents[2]
BLOCK = re.compile(r'^```(\w+) title="([^"]+)"\n(.*?)^```$', re.MULTILINE | re.DOTALL)
BLOCKS = BLOCK.findall((ROOT / "docs" / "add-a-technique.md").read_text(encoding="utf-8"))
NEW_FILES = {name: body for language, name, body in BLOCKS if language == "python"}
NAME = "nnUNetTrainerConfidencePenalty"
OF_A_USER = "nnUNetTrainerGradientNoise"
USERS_FOLDER = "my_trainers"


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A copy of the package and of what the tests share, with the page's files."""
    copy = tmp_path / "a copy"
    ignored = shutil.ignore_patterns("__pycache__")
    for part in ("nnunet_ext", "tests/support", "docs"):
        shutil.copytree(ROOT / part, copy / part, ignore=ignored)
    for name in ("tests/conftest.py", "tests/trainers/test_every_setting.py", "pyproject.toml"):
        (copy / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, copy / name)
    write_new_files(copy)
    return copy


def write_new_files(root: Path) -> None:
    """Write the page's files, none of which is there before."""
    for name, body in NEW_FILES.items():
        assert not (root / name).exists()
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(body, encoding="utf-8")


def run(repository: Path, *arguments: str, **variables: str) -> str:
    """What Python prints, run on the copy."""
    environment = {**os.environ, "PYTHONPATH": str(repository), **variables}
    command = [sys.executable, *arguments]
    done = subprocess.run(command, cwd=repository, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_pages_tests_pass(repository: Path, workspace: Any) -> None:
    tests = ["tests/losses/test_confidence.py", "tests/trainers/test_confidence_penalty.py"]
    cases = ["tests/trainers/test_every_setting.py", "-k", "(confidence and not adele) or every_setting_has"]
    assert "5 passed" in run(repository, "-m", "pytest", "-q", *tests, *cases, **{PREPARED: str(workspace.root)})


def test_the_new_trainer_is_listed_found_by_nnunet_and_documented(repository: Path) -> None:
    assert NAME in run(repository, "-c", "from nnunet_ext.cli import main; main(['list'])")
    (repository / "docs" / "find.py").write_text(
        "from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name as find\n"
        "from generate_reference import pages\n"
        f"print(find({NAME!r}).__module__, *pages().values())"
    )
    found = run(repository, "docs/find.py", **{VARIABLE: str(repository / "nnunet_ext" / "discovery")})
    assert "nnunet_ext.trainers.confidence_penalty" in found
    assert f"## {NAME}\n" in found
    assert "| `confidence_penalty.weight` | number ≥\N{NO-BREAK SPACE}0 | `0.1` |" in found


def test_the_code_is_clean(repository: Path) -> None:
    run(repository, "-m", "ruff", "check", *NEW_FILES)
    run(repository, "-m", "ruff", "format", "--check", *NEW_FILES)


# ------------------------------------------------------------------ in a folder of a user's own


@pytest.fixture
def users_folder(workspace: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The page's folder, named before ours in the variable, and a dataset whose plans the test may change."""
    write_new_files(tmp_path / "some where ü")
    folder = tmp_path / "some where ü" / USERS_FOLDER
    monkeypatch.setenv(VARIABLE, os.pathsep.join([str(folder), str(discovery_folder())]))
    root = tmp_path / "pre processed ü"
    shutil.copytree(workspace.preprocessed / dataset_name("labels"), root / dataset_name("labels"))
    monkeypatch.setenv("nnUNet_preprocessed", str(root))
    return folder


def configure(name: str, *settings: str) -> int:
    return main(["configure", "-d", "901", "-c", "3d_tiny", "--name", name, *settings])


def test_a_users_trainer_is_listed_beside_ours(users_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "--json"]) == 0
    listed = {entry["name"]: entry for entry in json.loads(capsys.readouterr().out)}
    assert listed[OF_A_USER] == {
        "name": OF_A_USER,
        "technique": "noise added to the gradients",
        "needs": "nothing",
        "paper": "arXiv 1511.06807",
    }
    assert "nnUNetTrainerTDNet" in listed
    assert "gradient_noise" not in sys.modules, "nnU-Net's own lookup must import it anew"


def test_a_users_settings_are_checked_like_ours(
    users_folder: Path, results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert configure("noisy", "gradient_noise.variance=0.5", "mixup.alpha=0.2") == 0
    assert configure("wrong", "gradient_noise.varianz=0.5") == 2
    said = "gradient_noise.varianz: no such setting. Valid keys in 'gradient_noise' are: variance, decay."
    assert said in capsys.readouterr().err
    assert configure("wrong", "gradient_noise.decay=-1") == 2
    assert "gradient_noise.decay: input should be greater than or equal to 0, found -1." in capsys.readouterr().err
    assert configure("wrong", "epoch=1") == 2
    assert re.search(
        r"epoch: no such setting\. Valid keys are: num_epochs, .*, gradient_noise\.", capsys.readouterr().err
    )

    file = Path(os.environ["nnUNet_preprocessed"]) / dataset_name("labels") / "nnUNetPlans.json"
    plans = json.loads(file.read_text())
    plans["configurations"]["noisy"]["nnunet_ext"]["gradient_noise"]["varianz"] = 1
    file.write_text(json.dumps(plans))
    with pytest.raises(UserError, match=re.escape(said)):
        build_trainer(OF_A_USER, "noisy")
    with pytest.raises(UserError, match=re.escape(said)):
        build_trainer("nnUNetTrainerMixUp", "noisy")
    assert not any(results.iterdir())


def test_a_users_data_check_is_run(users_folder: Path, results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert configure("noisy", "gradient_noise.variance=0.5") == 0
    status = main(["check", "-d", "901", "--trainer", OF_A_USER, "-c", "noisy"])
    page = " ".join(capsys.readouterr().out.split())
    assert f"gradient noise the dataset has {CASES} cases." in page
    assert "gradient_noise.variance 0.5" in page
    assert status == 0
    assert main(["check", "-d", "901", "--trainer", "nnUNetTrainerMixUp"]) == 0
    assert "gradient noise" not in capsys.readouterr().out


def test_a_users_trainer_is_trained_recorded_and_exported(
    users_folder: Path, results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert configure("noisy", "gradient_noise.variance=0.5") == 0
    trainer = train(OF_A_USER, "noisy")
    assert type(trainer).__module__ == "gradient_noise"
    assert trainer.settings.gradient_noise.variance == 0.5
    expected = {"variance": 0.5, "decay": 0.55}
    checkpoint = Path(trainer.output_folder) / "checkpoint_final.pth"
    recorded = torch.load(checkpoint, weights_only=False)["nnunet_ext"]["settings"]
    assert recorded["gradient_noise"] == expected
    assert "mixup" not in recorded
    assert f'"gradient_noise": {json.dumps(expected)}' in Path(trainer.log_file).read_text()
    assert main(["export-stock", str(checkpoint.parents[1]), "-o", str(tmp_path / "exported")]) == 0
    exported = torch.load(tmp_path / "exported" / "fold_0" / "checkpoint_final.pth", weights_only=True)
    assert exported["trainer_name"] == "nnUNetTrainer"
    assert exported["nnunet_ext"]["exported_from"]["settings"]["gradient_noise"] == expected


def test_subclasses_of_our_trainers_need_no_declaration(users_folder: Path) -> None:
    (users_folder / "longer.py").write_text(
        "from nnunet_ext.trainers import nnUNetTrainerTDNet\n\n\n"
        "class nnUNetTrainerLongTDNet(nnUNetTrainerTDNet):\n"
        "    default_settings = {'num_epochs': 2000}\n"
    )
    found = recursive_find_trainer_class_by_name("nnUNetTrainerLongTDNet")
    assert issubclass(found, nnUNetTrainerTDNet)
    assert found.techniques == nnUNetTrainerTDNet.techniques


def test_a_broken_module_is_named_and_the_others_work(users_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (users_folder / "z_broken.py").write_text("print('hello')\nimport no_such_library\n")
    said = (
        f"The module z_broken in {users_folder}, a folder of {VARIABLE}, cannot be imported: "
        "ModuleNotFoundError: No module named 'no_such_library'. Repair it"
    )
    assert main(["list", "--json"]) == 1
    printed = capsys.readouterr()
    assert said in printed.err
    assert {OF_A_USER, "nnUNetTrainerMixUp"} <= {entry["name"] for entry in json.loads(printed.out)}
    assert main(["check", "-d", "901", "--trainer", "nnUNetTrainerNoise"]) == 2
    message = capsys.readouterr().err
    assert f"Declared in other folders of {VARIABLE} are: {OF_A_USER}." in message
    assert said in message
    assert configure("wrong", "epoch=1") == 2
    message = capsys.readouterr().err
    assert "epoch: no such setting." in message
    assert said in message
