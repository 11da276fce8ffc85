"""Do the unit tests notice when the mathematics is wrong? Mutation testing by mutmut: ``python -m support.mutants``.

mutmut changes one expression of a function at a time (a mutant) and runs the tests that reach the function; a mutant
that no test notices survives. What is changed and which tests run is in ``[tool.mutmut]`` of pyproject.toml. The result
is a table and a list of the survivors, with the reasons that are kept by hand in ``mutants_reasons.csv``.
"""

from __future__ import annotations

import argparse
import ast
import csv
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path

import pandas as pd

from benchmarks.engine.provenance import REPOSITORY, machine_line, markdown_table, provenance_lines, shown_command
from nnunet_ext.cli import FINE, PROBLEM, WRONG_USAGE
from nnunet_ext.errors import UserError
from nnunet_ext.files import write_text

FOLDERS = ("losses", "finetuning", "augmentation", "networks")
RESULTS = REPOSITORY / "benchmarks" / "results"
LIMIT = 0.05
"""The largest share of mutants that may survive, with a reason or without."""

NOTICED = ("killed", "timeout", "segfault")
UNTRIED = ("not checked", "check was interrupted by user")
NO_REASON = "none yet"


@dataclass(frozen=True)
class Survivor:
    """A mutant that no test noticed."""

    function: str  # with its module, and class if it has one, from the folder on: ``losses.ramps.sigmoid_ramp``
    before: str  # the changed lines as they are
    after: str  # the same in the mutant


def without_decorators(source: str) -> str:
    """The same module with every function decorated behind its body, ``f = decorator(f)``.

    mutmut leaves functions with decorators alone, but for class and static methods.
    """
    lines = source.split("\n")
    functions = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef)]
    for node in sorted(functions, key=lambda node: -node.lineno):
        decorators = [ast.unparse(decorator) for decorator in node.decorator_list]
        if not decorators or decorators in (["staticmethod"], ["classmethod"]):
            continue
        call = "(".join([*decorators, node.name]) + ")" * len(decorators)
        lines.insert(node.end_lineno or 0, f"{' ' * node.col_offset}{node.name} = {call}")
        del lines[node.decorator_list[0].lineno - 1 : node.lineno - 1]
    return "\n".join(lines)


def prepare(work: Path) -> None:
    """Bring the copy that mutmut works on up to date; files that have not changed keep their time, as mutmut asks."""
    wanted = {Path("pyproject.toml"): (REPOSITORY / "pyproject.toml").read_bytes()}
    for source in [*(REPOSITORY / "nnunet_ext").rglob("*"), *(REPOSITORY / "tests").rglob("*")]:
        if source.is_file() and "__pycache__" not in source.parts:
            name, content = source.relative_to(REPOSITORY), source.read_bytes()
            if name.suffix == ".py" and name.parts[0] == "nnunet_ext" and name.parts[1] in FOLDERS:
                content = without_decorators(content.decode()).encode()
            wanted[name] = content
    for copied in [path for folder in ("nnunet_ext", "tests") for path in (work / folder).rglob("*.py")]:
        if copied.relative_to(work) not in wanted:
            copied.unlink()
            (work / "mutants" / copied.relative_to(work)).unlink(missing_ok=True)
    for name, content in wanted.items():
        target = work / name
        if not target.is_file() or target.read_bytes() != content:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)


def mutmut(work: Path, *arguments: str, is_shown: bool = False) -> str:
    """Run mutmut in the copy; returns what it printed, or lets it print. A UserError if it fails or is missing."""
    program = Path(sys.executable).with_name("mutmut")
    if not program.is_file():
        raise UserError(f"mutmut is not installed beside {Path(sys.executable).name}: pip install -e '.[mutants]'")
    environment, output = {**os.environ, "OMP_NUM_THREADS": "1"}, None if is_shown else subprocess.PIPE
    done = subprocess.run([str(program), *arguments], cwd=work, env=environment, text=True, stdout=output)
    if done.returncode:
        raise UserError(f"'mutmut {' '.join(arguments)}' ended with exit status {done.returncode}.")
    return done.stdout or ""


def try_mutants(work: Path, processes: int) -> None:
    """Try the mutants that have not been tried, and again those that had survived, on the tests as they are now."""
    run = ("run", "--max-children", str(processes))
    state = work / "mutants"
    had_survived = unnoticed(statuses(work)) if state.is_dir() else []
    # which test reaches which function: mutmut looks again only for tests of a new name
    (state / "mutmut-stats.json").unlink(missing_ok=True)
    mutmut(work, *run, is_shown=True)
    still_there = statuses(work)
    if again := [name for name in had_survived if name in still_there]:
        mutmut(work, *run, *again, is_shown=True)


def unnoticed(found: Mapping[str, str]) -> list[str]:
    """The names of the mutants that survived."""
    return sorted(name for name, status in found.items() if outcome(status) == "survived")


def statuses(work: Path) -> dict[str, str]:
    """What became of each mutant, by its name."""
    printed = mutmut(work, "results", "--all", "true")
    return dict(line.strip().rsplit(": ", 1) for line in printed.splitlines() if ": " in line)


def function_of(mutant: str) -> str:
    """The function that a mutant belongs to: ``losses.ramps.sigmoid_ramp``, ``finetuning.entries.Rows.matrix``."""
    module, name = mutant.removeprefix("nnunet_ext.").rsplit("__mutmut_", 1)[0].rsplit(".", 1)
    return f"{module}.{name.removeprefix('x').strip('ǁ').replace('ǁ', '.').removeprefix('_')}"


def survivor(mutant: str, shown: str) -> Survivor:
    """A survivor from what ``mutmut show`` prints, a unified diff."""
    changed = [line for line in shown.splitlines() if not line.startswith(("---", "+++"))]
    before, after = (" ".join(line[1:].strip() for line in changed if line.startswith(sign)) for sign in "-+")
    return Survivor(function_of(mutant), before, after)


def read_reasons(path: Path) -> dict[Survivor, tuple[str, str]]:
    """Kind and reason of survivors, as they are kept by hand."""
    if not path.is_file():
        return {}
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return {Survivor(row["function"], row["before"], row["after"]): (row["kind"], row["reason"]) for row in rows}


def counts_table(found: Mapping[str, str]) -> tuple[list[str], Counter[str]]:
    """How many mutants of each folder were noticed, survived, or have not been tried: as a table, and of all."""
    counts = {folder: Counter[str]() for folder in (*FOLDERS, "all")}
    for name, status in found.items():
        for folder in (name.split(".")[1], "all"):
            counts[folder][outcome(status)] += 1
    header = ("folder", "mutants tried", "noticed", "survived", "share", "not tried")
    return markdown_table(header, [_table_row(*one) for one in counts.items()]), counts["all"]


def outcome(status: str) -> str:
    """``noticed``, ``survived`` (also what no test reaches, and what mutmut is not sure of) or ``not tried``."""
    if status in NOTICED:
        return "noticed"
    return "not tried" if status in UNTRIED else "survived"


def _table_row(name: str, counts: Mapping[str, int]) -> tuple[str, ...]:
    tried = counts["noticed"] + counts["survived"]
    share = f"{100 * counts['survived'] / tried:.1f} %" if tried else "-"
    return (name, str(tried), str(counts["noticed"]), str(counts["survived"]), share, str(counts["not tried"]))


def survivors_lines(rows: Sequence[Mapping[str, str]]) -> list[str]:
    """The survivors as Markdown: how many of each kind, and each with its change and its reason."""
    kinds = Counter(row["kind"] for row in rows)
    lines = markdown_table(("kind", "survivors"), [(kind, str(number)) for kind, number in kinds.most_common()])
    for function, own in groupby(rows, key=lambda row: row["function"]):
        lines += ["", f"## {function}"]
        for row in own:
            change = ["```diff", f"- {row['before']}", f"+ {row['after']}", "```"]
            lines += ["", f"{row['kind']}: {row['reason']}".removesuffix(": "), "", *change]
    return lines


def write_report(work: Path, stem: Path, command: str) -> int:
    """Write ``<stem>.md`` and ``<stem>.csv`` from what mutmut has found; 1 if too much survived or is still untried."""
    found = statuses(work)
    reasons = read_reasons(stem.with_name(f"{stem.name}_reasons.csv"))
    rows = []
    for one in [survivor(name, mutmut(work, "show", name)) for name in unnoticed(found)]:
        kind, reason = reasons.get(one, (NO_REASON, ""))
        rows.append({**asdict(one), "kind": kind, "reason": reason})
    table, total = counts_table(found)
    survived, tried = total["survived"], total["survived"] + total["noticed"]
    verdict = "not kept" if survived > LIMIT * tried else "not known yet" if total["not tried"] else "kept"
    lines = ["# Mutants that the unit tests do not notice", "", *table, ""]
    lines += [f"At most {100 * LIMIT:.0f} % may survive: {verdict}.", ""]
    lines += [*provenance_lines([machine_line("cpu")], [command]), ""]
    lines += survivors_lines(rows) if rows else []
    write_text(stem.with_name(f"{stem.name}.md"), "\n".join(lines) + "\n")
    listing = stem.with_name(f"{stem.name}.csv")
    if rows:
        write_text(listing, pd.DataFrame(rows).to_csv(index=False, lineterminator="\n"))
    else:
        listing.unlink(missing_ok=True)
    print("\n".join(table))
    return FINE if verdict == "kept" else PROBLEM


def build_parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    parser = argparse.ArgumentParser(prog="python -m support.mutants", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--out", type=Path, default=RESULTS / "mutants", help="write OUT.md and OUT.csv")
    parser.add_argument("--work", type=Path, default=REPOSITORY / "mutants_output", help="folder that mutmut works in")
    parser.add_argument("--processes", type=int, default=1, help="mutants tried at a time (default: %(default)s)")
    parser.add_argument(
        "--keep", action="store_true", help="go on from an earlier run: what was noticed then is not tried again"
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Try the mutants and write the report; 1 if too many survived, 2 if mutmut could not run."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    args = build_parser().parse_args(arguments)
    command = shown_command(["python", "-m", "support.mutants", *arguments], {REPOSITORY: "."})
    try:
        if not args.keep:
            shutil.rmtree(args.work, ignore_errors=True)
        prepare(args.work)
        try_mutants(args.work, args.processes)
        return write_report(args.work, args.out, command)
    except UserError as error:
        print(f"mutants: {error}", file=sys.stderr)
        return WRONG_USAGE


if __name__ == "__main__":
    sys.exit(main())
