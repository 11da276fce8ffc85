"""One module of this package, with those that it imports, as the text of a file that needs nnU-Net alone."""

import ast
from importlib.util import find_spec
from pathlib import Path

from nnunet_ext.version import __version__

PACKAGE = __name__.partition(".")[0]
HEADER = """# Written by {package} {version}, `{package} export-stock`; licence: Apache-2.0.
# It needs nnunetv2 >= 2.7 alone. The environment variable nnUNet_extTrainer must name the folder that it is in; nnU-Net
# 2.7 does not read the variable and finds a copy of this file in its own folder nnunetv2/training/nnUNetTrainer.
"""


def standalone_source(module: str) -> str:
    """The text of a module and of all modules of this package that it imports, as one module.

    They may name this package only in ``from … import`` at the top, without ``as``, and define no name twice.
    """
    parts = [_without_package(_source(name)) for name in _with_imported(module)]
    header = HEADER.format(package=PACKAGE, version=__version__)
    return "\n\n".join([header + "\nfrom __future__ import annotations", *parts]) + "\n"


def _with_imported(module: str) -> list[str]:
    """Names of the modules, each after those that it imports."""
    found: list[str] = []
    for node in _imports_from(PACKAGE, ast.parse(_source(module))):
        found += _with_imported(str(node.module))
    return list(dict.fromkeys([*found, module]))


def _source(module: str) -> str:
    spec = find_spec(module)
    assert spec
    return Path(str(spec.origin)).read_text(encoding="utf-8")


def _imports_from(package: str, tree: ast.Module) -> list[ast.ImportFrom]:
    imports = [node for node in tree.body if isinstance(node, ast.ImportFrom)]
    return [node for node in imports if (node.module or "").partition(".")[0] == package]


def _without_package(source: str) -> str:
    """A module's text without its docstring, what it imports from this package, and ``from __future__``."""
    lines = source.splitlines()
    tree = ast.parse(source)
    left_out: list[ast.stmt] = [*_imports_from(PACKAGE, tree), *_imports_from("__future__", tree)]
    if ast.get_docstring(tree) is not None:
        left_out.append(tree.body[0])
    for node in left_out:
        lines[node.lineno - 1 : node.end_lineno] = [""] * ((node.end_lineno or node.lineno) - node.lineno + 1)
    return "\n".join(lines).strip("\n")
