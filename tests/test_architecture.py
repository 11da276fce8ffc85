"""Dependencies flow downwards only: cli and commands, then trainers, then the pure parts."""

import ast
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "nnunet_ext"

# what the modules of a folder may import from this package, beside the modules in COMMON
ALLOWED = {
    "techniques": {"techniques"},
    "losses": {"losses"},
    "networks": {"networks"},
    "augmentation": {"augmentation"},
    "formats": {"formats"},
    "plans": {"plans", "techniques"},
    "preprocessing": {"preprocessing", "plans", "techniques"},
    "finetuning": {"finetuning"},
    "checkpoints": {"checkpoints", "plans", "techniques"},
    "trainers": {"trainers", "techniques", "networks", "losses", "finetuning", "augmentation", "checkpoints", "plans"},
    "discovery": {"trainers"},
    "evaluation": {"evaluation", "checkpoints", "preprocessing", "plans"},
    "report": {"report", "evaluation", "checkpoints", "preprocessing", "plans"},
    "pseudo_labels": {"pseudo_labels", "evaluation", "checkpoints", "preprocessing", "plans"},
    "self_training": {
        *("self_training", "jobs", "pseudo_labels", "evaluation", "report"),
        *("checkpoints", "preprocessing", "plans"),
    },
    "demo": {"demo", "evaluation", "report", "preprocessing", "plans"},
    "diagnosis": {"diagnosis", "checkpoints", "plans", "preprocessing", "techniques"},
    "jobs": {"jobs", "plans", "preprocessing"},
}
COMMON = {
    *("advice", "arguments", "claims", "devices", "errors", "files", "findings", "folders", "formats"),
    *("machine", "messages", "nnunet_folders", "nnunet_names", "programs", "registration", "registry"),
    *("stopping", "training_log", "version"),
}


def imported_names(module: Path) -> set[str]:
    """The modules that a module imports, or imports from."""
    names = set()
    for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
        names |= {node.module or ""} if isinstance(node, ast.ImportFrom) else set()
        names |= {alias.name for alias in node.names} if isinstance(node, ast.Import) else set()
    return names


def imported_parts(module: Path) -> set[str]:
    """The folders and modules of this package that a module imports from."""
    return {name.split(".")[1] for name in imported_names(module) if name.startswith("nnunet_ext.")}


@pytest.mark.parametrize("folder", sorted(ALLOWED))
def test_a_folder_imports_only_from_below(folder):
    modules = sorted((PACKAGE / folder).rglob("*.py"))
    assert modules
    wrong = {
        str(module.relative_to(PACKAGE)): sorted(imported_parts(module) - ALLOWED[folder] - COMMON)
        for module in modules
    }
    assert {module: parts for module, parts in wrong.items() if parts} == {}


LIBRARIES = {
    "losses": {"torch", "numpy", "scipy"},
    "augmentation": {"torch", "numpy", "scipy", "batchgeneratorsv2", "acvl_utils"},
}


@pytest.mark.parametrize("folder", LIBRARIES)
def test_the_mathematics_knows_nothing_of_nnunet(folder):
    found = {
        name.split(".")[0]
        for module in (PACKAGE / folder).rglob("*.py")
        for name in imported_names(module)
        if name.split(".")[0] not in {"nnunet_ext", *sys.stdlib_module_names}
    }
    assert found == LIBRARIES[folder]


def test_every_folder_has_its_rule():
    folders = {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").is_file()}
    assert folders == {*ALLOWED, "commands"}


def test_the_seam_that_is_looked_at_is_really_seen():
    known = {"augmentation", "devices", "losses", "techniques", "trainers"}
    assert imported_parts(PACKAGE / "trainers" / "mixup.py") == known


def test_only_its_command_and_what_tells_made_datasets_apart_know_the_simulators():
    simulators = "nnunet_ext.preprocessing.simulate"
    known = {
        module.relative_to(PACKAGE).as_posix()
        for module in PACKAGE.rglob("*.py")
        if simulators not in ".".join(("nnunet_ext", *module.relative_to(PACKAGE).parts))
        and any(name.startswith(simulators) for name in imported_names(module))
    }
    assert known == {"commands/simulate.py", "preprocessing/checks/facts.py"}
