"""The ten lines with which a user of nnU-Net sees what becomes of padding."""

import re
from pathlib import Path

from support.tiny_data import KINDS

NOTE = Path(__file__).resolve().parents[2] / "docs" / "notes" / "padding-and-ignore-label.md"


def test_the_lines_run_with_nnunet_alone(workspace, results, capsys):
    (code,) = re.findall(r"```python\n(.*?)```", NOTE.read_text(encoding="utf-8"), re.DOTALL)
    assert "nnunet_ext" not in code
    assert len(code.strip().splitlines()) <= 11
    here = code.replace('"27", "2d"', f'"{KINDS["ignore"]["id"]}", "3d_tiny"').replace("range(20)", "range(2)")
    assert here != code
    exec(compile(here, NOTE.name, "exec"), {})
    (share,) = re.findall(r"(\d+)% of the labelled voxels are padding or air", capsys.readouterr().out)
    assert 0 < int(share) < 100, "a rotated patch reaches beyond the image, and never lies beside it"
