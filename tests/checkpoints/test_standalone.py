"""The exported trainer's file needs nothing of this package."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from nnunet_ext.checkpoints import standalone
from nnunet_ext.checkpoints.standalone import standalone_source

MODULE = "nnunet_ext.trainers.dual_encoder_inference"


@pytest.fixture(scope="module")
def source() -> str:
    return standalone_source(MODULE)


def test_it_imports_nothing_of_this_package(source: str) -> None:
    nodes = list(ast.walk(ast.parse(source)))
    modules = [node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)]
    modules += [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    assert "torch" in modules
    assert not [name for name in modules if name.split(".")[0] == "nnunet_ext"]


def test_it_defines_every_part_once_and_in_order(source: str) -> None:
    names = [node.name for node in ast.parse(source).body if isinstance(node, (ast.ClassDef, ast.FunctionDef))]
    assert len(set(names)) == len(names)
    order = [names.index(name) for name in ("DualEncoderUNet", "dual_encoder_unet")]
    assert order == sorted(order)
    assert names[-1] == "nnUNetTrainerDualEncoderInference"


def test_it_says_where_it_comes_from_and_future_annotations_stand_first(source: str) -> None:
    assert source.startswith("# Written by nnunet_ext ")
    statements = ast.parse(source).body
    assert isinstance(statements[0], ast.ImportFrom)
    assert statements[0].module == "__future__"
    assert source.count("from __future__") == 1


def test_the_trainer_refuses_to_train_with_the_reason(source: str, tmp_path: Path) -> None:
    (tmp_path / "trainer.py").write_text(source, encoding="utf-8")
    script = (
        "import sys; sys.modules['nnunet_ext'] = None\n"
        "from trainer import nnUNetTrainerDualEncoderInference as trainer\n"
        "trainer.initialize(object.__new__(trainer))"
    )
    run = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "NotImplementedError: nnUNetTrainerDualEncoderInference predicts" in run.stderr


def test_every_import_of_this_package_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    imports = "from nnunet_ext.a import (\n    one,\n    two,\n)\nfrom nnunet_ext.b import three"
    first = f'"""A module."""\n\n{imports}\n\nvalue = one\n'
    sources = {"nnunet_ext.c": first, "nnunet_ext.a": "one = two = 1\n", "nnunet_ext.b": "three = 3\n"}
    monkeypatch.setattr(standalone, "_source", sources.__getitem__)
    body = standalone_source("nnunet_ext.c").partition("annotations\n")[2]
    assert body.split() == ["one", "=", "two", "=", "1", "three", "=", "3", "value", "=", "one"]
