"""The notebooks in docs/tutorials run from start to end, and put out what is stored in them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

import notebooks
from nnunet_ext.registry import TECHNIQUES
from support.pages import DOCS, NOTEBOOK, text_of_page

NOTEBOOKS = sorted((DOCS / "tutorials").glob(f"*{NOTEBOOK}"))
# counts of less than 100 are words
NUMBER = re.compile(r"(-?\d+\.\d+|(?<![\w.,])\d{3,}(?![\w.,]))")
DECIMAL = re.compile(r"\b0\.\d+")
# an Apple GPU cannot be hidden from `advise`
OF_THE_DEVICE = re.compile(r" -device cpu\b|^ +Expect .*$", re.MULTILINE)
# what differs from machine to machine, or from day to day
FOREIGN = {
    "an absolute path": re.compile(r"(?<![\w.)*/])/\w+/|[A-Z]:\\|~/"),
    "a progress bar": re.compile(r"\r|\d+%\||it/s"),
    "a colour": re.compile("\x1b"),
    "a date": re.compile(r"\b\d{4}-\d\d-\d\d\b"),
    "a time": re.compile(r"\b\d+(\.\d+)? ?(s|min|h|seconds|minutes|hours)\b"),
}

each_notebook = pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda notebook: notebook.stem)


def code_cells(content: dict[str, Any]) -> list[dict[str, Any]]:
    return [cell for cell in content["cells"] if cell["cell_type"] == "code"]


def shown(cell: dict[str, Any]) -> list[dict[str, str]]:
    """What a cell put out, by media type; without warnings, which depend on versions."""
    return list(notebooks.outputs({"outputs": [one for one in cell["outputs"] if one.get("name") != "stderr"]}))


def put_out_text(cell: dict[str, Any]) -> str:
    return "\n".join(data["text/plain"] for data in shown(cell) if "image/png" not in data)


def put_out(cell: dict[str, Any]) -> tuple[list[str], list[float], int]:
    """The words and the numbers of what a cell put out, and how many pictures there are."""
    parts = NUMBER.split(OF_THE_DEVICE.sub("", put_out_text(cell)))
    # the width of a number moves what is behind it
    return " ".join(parts[::2]).split(), list(map(float, parts[1::2])), sum("image/png" in one for one in shown(cell))


@pytest.mark.full
@each_notebook
def test_a_notebook_puts_out_what_is_stored_in_it(notebook: Path, tmp_path: Path, quick_programs) -> None:
    """Another processor rounds differently, and a training enlarges that: scores may differ, and nothing else."""
    again = notebooks.run(notebook, tmp_path)
    for stored, now in zip(code_cells(notebooks.read(notebook)), code_cells(again), strict=True):
        (words, numbers, pictures), (words_now, numbers_now, pictures_now) = put_out(stored), put_out(now)
        assert (words_now, pictures_now) == (words, pictures), f"run python docs/notebooks.py {notebook.stem}"
        assert numbers_now == pytest.approx(numbers, abs=0.2, rel=0.1), stored["source"]


def test_numbers_and_words_are_told_apart() -> None:
    printed = {"output_type": "stream", "text": ["liver  0.813 (-0.02 to 9) 22901\n", "-d 3d_911 -device cpu"]}
    warning = {"output_type": "stream", "name": "stderr", "text": ["old"]}
    picture = {"output_type": "display_data", "data": {"image/png": "", "text/plain": "<Figure 9>"}}
    assert put_out({"outputs": [printed, warning, picture]}) == (
        ["liver", "(", "to", "9)", "-d", "3d_911"],
        [0.813, -0.02, 22901.0],
        1,
    )


@each_notebook
def test_the_text_has_the_figures_of_the_output(notebook: Path) -> None:
    cells = notebooks.read(notebook)["cells"]
    put_out_so_far = [number for cell in cells if cell["cell_type"] == "code" for number in put_out(cell)[1]]
    told = [
        number
        for cell in cells
        if cell["cell_type"] == "markdown"
        for number in DECIMAL.findall("".join(cell["source"]))
    ]
    assert len(told) > 3
    for number in told:
        decimals = len(number.partition(".")[2])
        assert any(abs(one - float(number)) <= 0.5 * 10**-decimals + 1e-9 for one in put_out_so_far), number


@each_notebook
def test_the_advice_that_is_shown_is_what_is_known_today(notebook: Path) -> None:
    """A quick sign that evidence is newer than the notebook, which takes minutes to run again."""
    told = " ".join(" ".join(put_out_text(cell).split()) for cell in code_cells(notebooks.read(notebook)))
    known = {advice.evidence for technique in TECHNIQUES for advice in technique.advice}
    for evidence in re.findall(r"Evidence(?: \([a-z ]+\))?: (.*?) See docs/", told):
        assert evidence in known, f"run python docs/notebooks.py {notebook.stem}"
    assert ("nnunet_ext advise" in text_of_page(notebook)) == ("Evidence" in told)


@each_notebook
def test_every_cell_was_run_in_order_without_complaint(notebook: Path) -> None:
    cells = code_cells(notebooks.read(notebook))
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    for cell in cells:
        for output in cell["outputs"]:
            assert output["output_type"] != "error"
            assert output.get("name", "stdout") == "stdout", f"{output['text']}: redirect stderr"


@each_notebook
@pytest.mark.parametrize("what", FOREIGN)
def test_nothing_of_the_machine_is_in_a_notebook(notebook: Path, what: str) -> None:
    content = notebooks.read(notebook)
    assert set(content["metadata"]) == {"kernelspec", "language_info"}
    for cell in content["cells"]:
        assert set(cell["metadata"]) <= {"alt"}
        shown = [data["text/plain"] for data in notebooks.outputs(cell)] if "outputs" in cell else []
        for text in shown:
            assert not FOREIGN[what].search(text), text


@pytest.mark.parametrize(
    ("what", "text"),
    [
        ("an absolute path", "Wrote /home/someone/report.html"),
        ("a progress bar", "predict: 100%|####| 8/8"),
        ("a date", "2026-01-02 03:04:05"),
        ("a time", "took 3.5 s"),
    ],
)
def test_what_is_of_a_machine_is_recognized(what: str, text: str) -> None:
    assert FOREIGN[what].search(text)
    assert not FOREIGN[what].search("nnUNet_results/Dataset911_Clinic/fold_0, 3 cases, Dice 0.71 (0.60 to 0.80)")


@each_notebook
def test_a_page_shows_commands_outputs_and_described_pictures(notebook: Path) -> None:
    page = notebooks.rendered(notebook)
    assert "```bash\nnnunet_ext" in page.markdown
    assert "%%bash" not in page.markdown
    assert "```{ .text .output }\n" in page.markdown
    assert page.pictures
    for name, picture in page.pictures.items():
        assert re.search(rf"!\[[^\]]{{20,}}\]\({name}\)", page.markdown), f"{name} has no description"
        assert picture.startswith(b"\x89PNG")
        assert len(picture) < 60_000


@each_notebook
def test_a_notebook_is_in_the_navigation(notebook: Path) -> None:
    assert f"tutorials/{notebook.name}" in (DOCS.parent / "mkdocs.yml").read_text(encoding="utf-8")
