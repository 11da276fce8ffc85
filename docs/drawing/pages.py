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
from nnunet_ext.demo.run import child_environment
from nnunet_ext.errors import UserError
from nnunet_ext.evaluation.machine import available_cores
from nnunet_ext.files import written_whole

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
DARK = "--blink-settings=preferredColorScheme=0"
WIDTH = 680  # pixels, as of the other pictures
COLOURS = 48


class Excerpt(NamedTuple):
    """What is shown of a page: the part that a style sheet leaves of it, and how high that is in pixels."""

    page: str
    style: str
    height: int


EXCERPTS = {
    # without the folders of the runs
    "report": Excerpt("report.html", "header .soft, section:nth-of-type(1) { display: none }", 1020),
    "review": Excerpt("review/review.html", "header .soft, tbody tr:nth-child(n+5) { display: none }", 1020),
}

MODEL = "nnUNet_results/Dataset900_Phantoms/nnUNetTrainer{}__nnUNetPlans__3d_fullres_quick"
STOCK, MIXUP = MODEL.format("Configurable"), MODEL.format("MixUp")
COMMANDS = {
    "report.html": ["report", f"stock nnU-Net={STOCK}", f"MixUp={MIXUP}", "-o", "report.html", "--title", "Phantoms"],
    "nnUNet_raw/Dataset902_Noise": ["simulate", "noise", "900", "-o", "Dataset902_Noise", "--rate", "0.1"],
    "review/review.html": ["review", STOCK, "-d", "902", "-o", "review", "--device", "cpu", "--disable-tta"],
}
"""What comes after the demonstration, in its folder, by what each command writes."""


def draw_pages(folder: Path) -> list[Path]:
    """Run what is missing in a folder, and take a picture of either page; returns the pictures.

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
    if not (folder / "nnUNet_results").is_dir():
        subprocess.run(["nnunet_ext", "demo", "--out", str(folder)], check=True)
    environment = {**os.environ, **child_environment(folder, os.environ, cores=available_cores())}
    for made, command in COMMANDS.items():
        if not (folder / made).exists():
            subprocess.run(["nnunet_ext", *command], check=True, cwd=folder, env=environment)
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
        few_colours = picture.convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE)
        few_colours.save(temporary, format="png", optimize=True)
    return target
