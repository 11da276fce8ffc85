"""The folder of an evaluation or a review: what is there before, and after an error."""

from gzip import BadGzipFile
from pathlib import Path

import pytest

from nnunet_ext.evaluation.output_folder import open_output

WANTED = {"model": "one"}


def test_a_first_run_with_force_goes_on_where_it_was_interrupted(tmp_path: Path) -> None:
    out = tmp_path / "out ü"
    for found in ([], ["a", "b"][:1], ["a", "b"]):
        with (
            pytest.raises(KeyboardInterrupt),
            open_output(out, WANTED, force=True, holds="an evaluation") as folder,
        ):
            assert sorted(file.name for file in folder.glob("[ab]")) == found
            (folder / "ab"[min(len(found), 1)]).write_text("predicted")
            raise KeyboardInterrupt
    with open_output(out, WANTED, force=True, holds="an evaluation"):
        pass
    assert sorted(file.name for file in out.glob("[a-z]*")) == ["a", "b", "request.json"]


def test_an_error_of_what_is_read_is_not_said_to_be_of_the_output(tmp_path: Path) -> None:
    with (
        pytest.raises(BadGzipFile, match="Not a gzipped file"),
        open_output(tmp_path / "out", WANTED, force=True, holds="x"),
    ):
        raise BadGzipFile("Not a gzipped file")
