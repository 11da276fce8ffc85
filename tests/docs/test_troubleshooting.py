"""docs/troubleshooting.md: every message that needs more than itself has an entry, and every quoted message exists.

A message of ours is complete by itself if it says what to do, or names what there is to choose from. The others have an
entry on the page, or stand in `REASONS`. Messages are read from the sources as templates, in which … stands for what is
filled in; the page quotes a part of a template.
"""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from importlib.util import find_spec
from itertools import islice, product
from pathlib import Path

import pytest

from nnunet_ext.cli import COMMANDS, build_parser

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "troubleshooting.md"
OURS = ROOT / "nnunet_ext"
FIELD = "…"
MOST = 40  # variants of one message

ENTRY = re.compile(r"^(?:### |- also(?: |(?=:)))(?:(?P<origin>[\w-]*): )?`(?P<quote>.+)`$", re.MULTILINE)
MODULES = {
    "nnU-Net": ("nnunetv2", "batchgenerators"),
    "PyTorch": ("torch.nn.modules.module", "torch._inductor.exc", "torch.cuda"),
    "scikit-learn": ("sklearn.model_selection._split",),
}
NOT_IN_SOURCES = {
    "CUDA out of memory. Tried to allocate …": "compiled code of PyTorch for CUDA",
    "No module named …": "Python itself",
    "No such file or directory: ….pkl": "Python itself",
    "No such file or directory: …summary.json": "Python itself",
    "No such file or directory: …checkpoint_final.pth": "Python itself",
}

VERBS = """
    add ask begin call check choose compare continue convert copy derive do end fix give install join keep leave lower
    make mount move name number plan point predict put remove rename repeat replace report resample run score set start
    stop take train update use wait write
""".split()  # noqa: SIM905
REMEDY = re.compile(
    rf"(?:^|[.:;,(?] |\b(?:and|else|or|then) )(?:{'|'.join([*VERBS, *map(str.capitalize, VERBS)])})\b"
    rf"|… (?:{'|'.join(map(str.capitalize, VERBS))})\b"
    rf"|\b(?:must|needs?|needed|[Ee]xpected|nnunet_ext (?:{'|'.join(COMMANDS)}))\b"
)
CHOICE = re.compile(
    r"\b(?<!not )(?:has|have|are called|There (?:is|are)|labels of other datasets|none of [a-z ]+): …|not allowed"
    r"|\b(?:has the channels 0 to|the preset knows)\b|, but the labels (?:that are scored )?are …"
)
REASONS = {
    "the raw dataset was not found": "stands in a report in place of a picture",
    "… does not exist": "stands in a report in place of a picture",
    "… has … voxels and its image …": "stands in a report in place of a picture",
    "the values of the labels are not known without a dataset.json": "stands in a report in place of the scores",
    "… is no regular expression: ….": "Python says what is wrong in the expression, and where",
    "…: ….": "names the lines of the table that lack a value, and the columns",
    'dataset.json, "…": "longitudinal": …. Found: ….': "names each key that is wrong, what it may be and what it is",
    "… has none of the configurations ….": "the demo has made one just before: a fault of this package",
}
"""Messages that neither say what to do nor have an entry, and why."""

Known = Mapping[str, list[ast.AST]]
"""What a name can stand for: the expressions that are assigned to it, or functions."""


def texts(node: ast.AST, known: Known, depth: int = 3) -> list[str]:
    """The texts that an expression, or a call of a function, can give, with … for what only a run tells."""
    parts = [[FIELD]]
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        parts = [[node.value]]
    elif isinstance(node, ast.JoinedStr):
        parts = [texts(part, known, depth) for part in node.values]
    elif isinstance(node, ast.FormattedValue):
        parts = [texts(node.value, known, depth)]
    elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        parts = [texts(node.left, known, depth), texts(node.right, known, depth)]
    elif isinstance(node, ast.IfExp):
        parts = [texts(node.body, known, depth) + texts(node.orelse, known, depth)]
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "join":
        separator, lines = texts(node.func.value, known, depth), getattr(node.args[0], "elts", [])
        parts = [part for line in lines for part in (separator, texts(line, known, depth))][1:] or parts
    elif isinstance(node, ast.FunctionDef):
        inside = {**known, **assigned(ast.walk(node))}
        returned = [one.value for one in ast.walk(node) if isinstance(one, ast.Return) and one.value is not None]
        parts = [[text for value in returned for text in texts(value, inside, depth)]]
    elif depth and (values := known.get(called(node))):
        parts = [[text for value in values for text in texts(value, known, depth - 1)]]
    return list(dict.fromkeys("".join(chosen) for chosen in islice(product(*parts), MOST)))


def called(node: ast.AST) -> str:
    """The name of a function that is called, or of a variable; not of an attribute, which can be anybody's."""
    return name_of(node.func if isinstance(node, ast.Call) else node) if isinstance(node, (ast.Call, ast.Name)) else ""


def name_of(node: ast.AST) -> str:
    """What a variable, an attribute or a function is called."""
    return node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""


def assigned(nodes: Iterable[ast.AST]) -> dict[str, list[ast.AST]]:
    """What names are assigned, and the keys of the mappings that loops go through."""
    found: dict[str, list[ast.AST]] = {}
    for node in nodes:
        if isinstance(node, (ast.Assign, ast.AnnAssign)) and node.value is not None:
            target = node.targets[0] if isinstance(node, ast.Assign) else node.target
            found.setdefault(name_of(target), []).append(node.value)
        elif isinstance(node, ast.AugAssign):
            before = [one for one in found.get(name_of(node.target), []) if isinstance(one, ast.expr)]
            found[name_of(node.target)] = [*before, *(ast.BinOp(one, node.op, node.value) for one in before)]
        elif isinstance(node, ast.For) and isinstance(node.target, ast.Tuple) and isinstance(node.iter, ast.Call):
            mappings = found.get(name_of(getattr(node.iter.func, "value", node.iter)), [])
            keys = [key for mapping in mappings if isinstance(mapping, ast.Dict) for key in mapping.keys if key]
            found.setdefault(name_of(node.target.elts[0]), []).extend(keys)
    return found


def one_line(message: str) -> str:
    """A message as the page quotes it: in one line, and one … for what is filled in side by side."""
    return re.sub(rf"{FIELD}(?: ?{FIELD})+", FIELD, " ".join(message.split()))


def raised(source: str) -> list[str]:
    """The templates of the messages with which a module stops a user: `UserError`, and `NotImplementedError`."""
    tree = ast.parse(source)
    functions: dict[str, list[ast.AST]] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            functions.setdefault(node.name, []).append(node)

    def within(node: ast.AST, known: Known) -> Iterator[str]:
        if isinstance(node, ast.FunctionDef):
            known = {**known, **assigned(ast.walk(node))}
        if isinstance(node, ast.Call) and name_of(node.func) in ("UserError", "NotImplementedError"):
            yield from map(one_line, texts(node.args[0], known))
        for child in ast.iter_child_nodes(node):
            yield from within(child, known)

    return list(dict.fromkeys(within(tree, {**functions, **assigned(tree.body)})))


@cache
def messages_of_ours() -> list[str]:
    return [message for file in sorted(OURS.rglob("*.py")) for message in raised(file.read_text(encoding="utf-8"))]


def sources(module: str) -> Iterable[Path]:
    """The files of a module, or of a package and all below it."""
    spec = find_spec(module)
    assert spec is not None
    assert spec.origin is not None
    below = spec.submodule_search_locations is not None and "." not in module
    return sorted(Path(spec.origin).parent.rglob("*.py")) if below else [Path(spec.origin)]


@cache
def strings_of(origin: str) -> list[str]:
    """Every text in the sources of another package, with … for what is filled in, by whichever of Python's means."""
    nodes = (
        node
        for module in MODULES[origin]
        for file in sources(module)
        for node in ast.walk(ast.parse(file.read_bytes()))
    )
    found = (text for node in nodes if isinstance(node, (ast.Constant, ast.JoinedStr)) for text in texts(node, {}))
    return [one_line(re.sub(r"%[sd]|\{\w*\}", FIELD, text)) for text in found if text != FIELD]


def fits(quote: str, message: str) -> bool:
    return one_line(quote).strip(f"{FIELD} ") in message


def entries() -> list[tuple[str, str]]:
    """Whose message (empty: ours) and what, of every message that the page quotes in a heading or below one."""
    return [(found["origin"] or "", found["quote"]) for found in ENTRY.finditer(PAGE.read_text(encoding="utf-8"))]


QUOTES_OF_OURS = [quote for origin, quote in entries() if not origin]


def needs_an_entry(message: str) -> bool:
    return not (REMEDY.search(message) or CHOICE.search(message) or message in REASONS)


def test_every_message_says_what_to_do_or_has_an_entry_or_a_reason_not_to() -> None:
    missing = [one for one in messages_of_ours() if needs_an_entry(one)]
    assert not [one for one in missing if not any(fits(quote, one) for quote in QUOTES_OF_OURS)], (
        "Say in the message what to do (see VERBS), or give it an entry in docs/troubleshooting.md."
    )


@pytest.mark.parametrize(("origin", "quote"), entries())
def test_every_message_on_the_page_exists(origin: str, quote: str) -> None:
    if quote in NOT_IN_SOURCES:
        return
    assert any(fits(quote, message) for message in (strings_of(origin) if origin else messages_of_ours()))


def test_commands_with_options_parse() -> None:
    calls = re.findall(r"`nnunet_ext ([\w-]+ [^`]*-[^`]*)`", PAGE.read_text(encoding="utf-8"))
    assert calls
    for call in calls:
        build_parser().parse_args(shlex.split(call))


def test_every_exception_is_still_needed() -> None:
    assert set(REASONS) <= set(messages_of_ours())
    assert set(NOT_IN_SOURCES) <= {quote for _, quote in entries()}


def test_the_page_has_twenty_messages_of_nnunet_and_no_message_twice() -> None:
    quotes = [quote for _, quote in entries()]
    assert len(quotes) == len(set(quotes))
    assert sum(origin == "nnU-Net" for origin, _ in entries()) >= 20


def test_messages_are_read_from_the_source() -> None:
    source = """
PLACE = "in the plans"
def fix(name): return f"Rename {name}."
def run(name):
    start = f"{name} is wrong"
    start += " here"
    refusals = {"--a is for b.": name}
    if name:
        raise UserError(f"{start} {PLACE}: {name!r}, {len(name)}" + fix(name))
    for message, wrong in refusals.items():
        raise UserError(message)
    raise UserError("one" if name else "\\n".join(["two", name]))
"""
    assert "… is wrong here in the plans: …, …Rename …." in raised(source)
    assert {"--a is for b.", "one", "two …"} <= set(raised(source))
    assert needs_an_entry("… is wrong.")
    assert not needs_an_entry("… is wrong. Rename it.")
    assert needs_an_entry("The name … in the set … is wrong.")
