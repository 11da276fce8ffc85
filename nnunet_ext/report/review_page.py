"""One self-contained HTML file of the regions and cases whose labels a model doubts most."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from tqdm import tqdm

from nnunet_ext.files import write_text
from nnunet_ext.report.cases import CaseFiles, Label
from nnunet_ext.report.overlays import LABEL_COLOURS, draw_case
from nnunet_ext.report.page import page_template, time_written


def write_review(
    target: Path,
    regions: pd.DataFrame,
    cases: pd.DataFrame,
    files: Mapping[str, CaseFiles],
    centres: Sequence[Sequence[int]],
    *,
    labels: Mapping[str, int],
    description: Mapping[str, Any],
    title: str,
    subtitle: str,
) -> None:
    """Write the page, whole or not at all; an existing file is replaced.

    Args:
        target: the HTML file in a folder that exists.
        regions: the table of regions; a picture is drawn of each.
        cases: the table of cases.
        files: image, labels and prediction of each case.
        centres: of each region the voxel, (z, y, x), that pictures are drawn at.
        labels: values by name.
        description: the dataset.json.
        title: heading of the page.
        subtitle: a sentence below the heading.
    """
    colours = {
        Label(name, (value,)): LABEL_COLOURS[place % len(LABEL_COLOURS)]
        for place, (name, value) in enumerate(labels.items())
    }
    rows = list(zip(regions.to_dict("records"), centres))
    pictures = [
        draw_case(files[row["case"]], colours, description, at=centre)
        for row, centre in tqdm(rows, desc="Drawing regions", unit="picture", disable=None, leave=False)
    ]
    page = page_template("review.html").render(
        title=title,
        subtitle=subtitle,
        written=time_written(),
        regions=[{**row, "image": picture} for (row, _), picture in zip(rows, pictures)],
        cases=cases.to_dict("records"),
        legend={label.name: colour for label, colour in colours.items()},
    )
    write_text(target, page)
