"""Pictures of the pages that ``nnunet_ext report`` and ``nnunet_ext review`` write, taken by a browser.

The pages are of real trainings on phantoms, of minutes each. So these pictures are made only when asked for, and no
test makes them again.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from drawing import layout
from nnunet_ext.errors import UserError
from nnunet_ext.files import written_whole
from nnunet_ext.machine import available_cores
from nnunet_ext.programs import child_environment

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
DARK = "--blink-settings=preferredColorScheme=0"
WIDTH = 540  # pixels, so that letters can be read on a phone
COLOURS = 128


class Excerpt(NamedTuple):
    """What is shown of a page: the part that a style sheet leaves of it, and how high that is in pixels."""

    page: str
    style: str
    height: int


EXCERPTS = {
    # without the folders of the runs
    "report": Excerpt("report.html", "header .soft, section:nth-of-type(1) { display: none }", 755),
    "review": Excerpt("review/review.html", "p.soft, tbody tr:nth-child(n+4) { display: none }", 950),
}

STOCK = "nnUNet_results/Dataset900_Phantoms/nnUNetTrainerConfigurable__nnUNetPlans__3d_fullres_quick"
RAW, NOISY = "nnUNet_raw/Dataset900_Phantoms", "nnUNet_raw/Dataset902_Noise"
SIMULATION = ["simulate", "noise", "900", "-o", Path(NOISY).name, "--rate", "0.3"]
REVIEW = ["review", STOCK, "-d", "900", "-o", "review", "--device", "cpu"]


def draw_pages(folder: Path) -> list[Path]:
    """Run the trainings that are missing in a folder, and take a picture of either page; returns the pictures.

    The page of the review is always written anew, that of the report together with its trainings.

    Raises:
        UserError: if there is no browser, before anything is run.
        subprocess.CalledProcessError: if a command fails.
    """
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        raise UserError(
            f"No browser takes pictures of pages here: none of {', '.join(BROWSERS)} is on the PATH. Install Chromium, "
            "or leave --pages out; the pictures of report and review then stay as they are."
        )
    folder = folder.resolve()
    if not (folder / "report.html").is_file():
        subprocess.run(["nnunet_ext", "demo", "--out", str(folder)], check=True)
    environment = {**os.environ, **child_environment(folder, os.environ, cores=available_cores())}
    if not (folder / NOISY).is_dir():
        subprocess.run(["nnunet_ext", *SIMULATION], check=True, cwd=folder, env=environment)
    # errors that the model has not seen: they come into the labels after its training
    shutil.copytree(folder / NOISY / "labelsTr", folder / RAW / "labelsTr", dirs_exist_ok=True)
    subprocess.run(["nnunet_ext", *REVIEW], check=True, cwd=folder, env=environment)
    return [taken(browser, folder, name) for name in EXCERPTS]


def taken(browser: str, folder: Path, name: str) -> Path:
    """Write what a browser shows of a page in dark colours, from its top on, as a PNG file; returns where."""
    excerpt, target = EXCERPTS[name], layout.IMAGES / f"{name}.png"
    shot, page = folder / f"{name}.png", folder / f"{name}_excerpt.html"
    text = (folder / excerpt.page).read_text(encoding="utf-8")
    page.write_text(text.replace("</head>", f"<style>{excerpt.style}</style></head>"), encoding="utf-8")
    size = f"--window-size={WIDTH},{excerpt.height}"
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", DARK, size, f"--screenshot={shot}"]
    subprocess.run([browser, *options, page.as_uri()], check=True, capture_output=True)
    with Image.open(shot) as picture, written_whole(target) as temporary:
        # this method keeps colours of which there is little, such as those of lines
        few_colours = picture.convert("RGB").quantize(COLOURS, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
        few_colours.save(temporary, format="png", optimize=True)
    return target
