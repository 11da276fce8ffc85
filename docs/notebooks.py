"""Run the notebooks in ``docs/tutorials`` and store what they put out: ``python docs/notebooks.py [NAME ...]``.

tests/docs/test_tutorials.py runs them again and compares. docs/notebook_pages.py makes pages of them, by `rendered`.
"""

from __future__ import annotations

import base64
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

TUTORIALS = Path(__file__).resolve().parent / "tutorials"
SHELL = "%%bash"  # how a cell of shell commands begins
SECONDS_PER_CELL = 1800  # on a busy machine


class Rendered(NamedTuple):
    """A notebook as a page."""

    markdown: str
    pictures: dict[str, bytes]  # by the names that the page gives them, which lie beside it


def read(notebook: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(notebook.read_text(encoding="utf-8"))
    return content


def rendered(notebook: Path) -> Rendered:
    """What a notebook shows: its text as it is, its code in blocks, and below each block what it put out.

    The picture that a cell draws is described by the cell's metadata ``alt``.
    """
    blocks: list[str] = []
    pictures: dict[str, bytes] = {}
    for cell in read(notebook)["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            blocks.append(source)
            continue
        first, _, rest = source.partition("\n")
        blocks.append(_fenced("bash", rest) if first.startswith(SHELL) else _fenced("python", source))
        for data in outputs(cell):
            if "image/png" in data:
                name = f"{notebook.stem}-{len(pictures) + 1}.png"
                pictures[name] = base64.b64decode(data["image/png"])
                blocks.append(f"![{cell['metadata']['alt']}]({name})")
            else:
                blocks.append(_fenced("{ .text .output }", data["text/plain"]))
    return Rendered("\n\n".join(blocks) + "\n", pictures)


def outputs(cell: dict[str, Any]) -> Iterator[dict[str, str]]:
    """What a cell of code put out, by media type; text that it printed is text/plain."""
    for output in cell["outputs"]:
        data = {"text/plain": output["text"]} if output["output_type"] == "stream" else output["data"]
        yield {kind: "".join(content) for kind, content in data.items()}


def _fenced(language: str, text: str) -> str:
    return f"```{language}\n{text.rstrip()}\n```"


def run(notebook: Path, folder: Path) -> dict[str, Any]:
    """The content of a notebook with what it puts out in an empty folder; CellExecutionError if a cell fails."""
    import nbformat
    from nbclient import NotebookClient

    content = nbformat.read(notebook, as_version=4)
    # programs of this environment, whether it is activated or not
    variables = {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    # pictures go into the notebook, whatever this process draws on
    variables["MPLBACKEND"] = "module://matplotlib_inline.backend_inline"
    # nnU-Net takes every core: where others are at work, threads that wait would keep each other from it
    variables["OMP_WAIT_POLICY"] = "passive"
    variables["CUDA_VISIBLE_DEVICES"] = ""  # the commands are those for a CPU
    NotebookClient(
        content,
        kernel_name="python3",
        timeout=SECONDS_PER_CELL,
        startup_timeout=600,
        # with nbclient's own 4 seconds, output of a busy machine would be cut
        iopub_timeout=120,
        raise_on_iopub_timeout=True,
        coalesce_streams=True,
        record_timing=False,
        resources={"metadata": {"path": str(folder)}},
    ).execute(env={**os.environ, **variables})
    content.metadata = {"kernelspec": content.metadata["kernelspec"], "language_info": {"name": "python"}}
    return content


def main(names: list[str]) -> int:
    import nbformat

    for notebook in [TUTORIALS / f"{name}.ipynb" for name in names] or sorted(TUTORIALS.glob("*.ipynb")):
        with tempfile.TemporaryDirectory() as folder:
            nbformat.write(run(notebook, Path(folder)), notebook)
        print(f"docs/tutorials/{notebook.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
