"""Figures with an interval, in the tables that compare techniques, on their pages and in `advise`, are stored ones."""

import re
from pathlib import Path

import pytest

from nnunet_ext.registry import TECHNIQUES

ROOT = Path(__file__).resolve().parents[2]

NUMBER = r"[+−-]?\d+(?:\.\d+)?"
WITH_INTERVAL = re.compile(rf"(?<![\w.])({NUMBER})(?: mm)? (?:[(\[]|\| *)({NUMBER})(?: to|,) ({NUMBER})(?:[)\]]| *\|)")
STORED = re.compile(r"`(?:benchmarks/results/)?(\w+)\.md`")
PAGES = sorted((ROOT / "docs" / "techniques").glob("*.md"), key=lambda page: page.name)
OTHER_WAY_ROUND = {  # the results have what is compared in the other order
    ("0.118", "0.077", "0.162"),
    ("0.041", "0.022", "0.064"),
    ("0.024", "0.001", "0.058"),
    ("0.018", "0.010", "0.028"),
}
LINK = re.compile(r"\((?:docs/)?techniques/([\w-]+)\.md")


def figures(text: str) -> list[tuple[str, str, str]]:
    """Each figure of a text with the ends of its interval, as they are written but for the sign."""
    return [tuple(number.replace("−", "-") for number in found) for found in WITH_INTERVAL.findall(text)]


def stored_figures(page: Path) -> list[tuple[float, ...]]:
    """Those of all results that a page names."""
    files = [ROOT / "benchmarks" / "results" / f"{name}.md" for name in STORED.findall(page.read_text("utf-8"))]
    return [tuple(map(float, one)) for file in files if file.is_file() for one in figures(file.read_text("utf-8"))]


def is_among(figure: tuple[str, str, str], stored: list[tuple[float, ...]]) -> bool:
    """Whether results have a figure, rounded to as many places."""
    half = 0.5 * 10 ** -len(figure[0].partition(".")[2]) + 1e-9
    middle, low, high = map(float, figure)
    if tuple(number.removeprefix("+") for number in figure) in OTHER_WAY_ROUND:
        middle, low, high = -middle, -high, -low
    return any(all(abs(ours - theirs) <= half for ours, theirs in zip((middle, low, high), one)) for one in stored)


def check(text: str, page: Path, where: str) -> int:
    """How many figures a text has, all of which must be among the results that a page names."""
    found, stored = figures(text), stored_figures(page)
    missing = [one for one in found if not is_among(one, stored)]
    assert not missing, f"{where}: not in the results that {page.name} names: {missing}"
    return len(found)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_results_of_a_technique(page: Path) -> None:
    results = page.read_text("utf-8").partition("\n## Results\n")[2].partition("\n## ")[0]
    above = page.read_text("utf-8").partition("\n## ")[0]
    found = check(results + above, page, page.name)
    assert found >= (0 if page.stem == "mixup" else 20)  # MixUp's figure is a sentence


@pytest.mark.parametrize(("name", "least"), [("README.md", 10), ("docs/choose.md", 40)])
def test_tables_that_compare_techniques(name: str, least: int) -> None:
    rows = [line for line in (ROOT / name).read_text("utf-8").splitlines() if line.startswith("|")]
    counts = []
    for row in rows:
        pages = dict.fromkeys(LINK.findall(row))
        if figures(row):
            assert len(pages) == 1, f"{name}: a row with figures needs a link to the one page that has them: {row}"
            counts.append(check(row, ROOT / "docs" / "techniques" / f"{next(iter(pages))}.md", name))
    assert sum(counts) >= least


def test_evidence_of_advice() -> None:
    checked = 0
    for technique in TECHNIQUES:
        for advice in technique.advice:
            page = ROOT / advice.results.partition("#")[0]
            checked += check(advice.evidence, page, f"advice for {advice.trainer}")
    assert checked >= 15


def test_a_figure_that_no_result_has_is_found() -> None:
    stored = [(0.0184, 0.0041, 0.0302), (-5.296, -13.338, 2.111)]
    assert is_among(("+0.018", "+0.004", "+0.030"), stored)
    assert not is_among(("-0.018", "-0.030", "-0.004"), stored)
    assert is_among(("+0.118", "+0.077", "+0.162"), [(-0.118, -0.162, -0.077)])
    assert is_among(("-5.3", "-13.3", "+2.1"), stored)
    assert not is_among(("+0.019", "+0.004", "+0.030"), stored)
    assert not is_among(("+0.018", "-0.004", "+0.030"), stored)
    assert figures("−5.3 (−13.3 to +2.1), 0.769 [0.1, 0.2]") == [("-5.3", "-13.3", "+2.1"), ("0.769", "0.1", "0.2")]
