"""Time and memory of commands on much data, beside nnU-Net's evaluation: ``python -m benchmarks.scale``.

Makes datasets of digital organs, runs each command in a process of its own, and writes wall time, CPU time and peak
memory of that process with everything it starts. See benchmarks/README.md for how to read the table. Linux only.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pandas as pd
import SimpleITK as sitk
from scipy.ndimage import zoom

from benchmarks.engine.provenance import (
    REPOSITORY,
    commit,
    machine_line,
    markdown_table,
    provenance_lines,
    shown_command,
)
from nnunet_ext.cli import FINE
from nnunet_ext.files import write_json, write_text
from nnunet_ext.messages import counted, size
from nnunet_ext.programs import find_executable

SPACING = (1.0, 1.0, 2.5)  # mm, of x, y and z
SAMPLING_S = 0.05
MEGABYTE = 1e6
STOCK, DICE = "nnUNetv2_evaluate_folder", "evaluate"


@dataclass(frozen=True)
class Data:
    """A dataset to make: how many cases, their voxels (Z, Y, X), and how many labels each has."""

    dataset: str
    cases: int
    shape: tuple[int, int, int]
    labels: int

    @property
    def title(self) -> str:
        return f"{counted(self.cases, 'case')} of {size(self.shape)} voxels with {self.labels} labels"


INPUTS = {
    "cases": Data("Dataset901_Cases", 300, (32, 128, 128), 3),
    "labels": Data("Dataset902_Labels", 10, (128, 192, 192), 117),
    "volume": Data("Dataset903_Volume", 1, (400, 512, 512), 60),
}


@dataclass(frozen=True)
class Usage:
    """What a command took: seconds, seconds of the processor, and bytes at most, of all its processes."""

    wall_s: float
    cpu_s: float
    peak_bytes: int


def organs(data: Data, rng: np.random.Generator) -> np.ndarray:
    """A label map of ellipsoids, one for each label, of which later ones may hide parts of earlier ones."""
    labels = np.zeros(data.shape, np.uint8)
    sides = np.array(data.shape)
    for value in range(1, data.labels + 1):
        radii = rng.uniform(0.5, 1.0, 3) * sides * 0.32 / data.labels ** (1 / 3)
        centre = rng.uniform(radii, sides - radii)
        box = [slice(max(0, int(c - r)), int(c + r) + 2) for c, r in zip(centre, radii)]
        axes = np.ogrid[tuple(slice(one.start, min(one.stop, side)) for one, side in zip(box, data.shape))]
        inside = sum(((axis - c) / r) ** 2 for axis, c, r in zip(axes, centre, radii)) <= 1
        labels[tuple(box)][inside] = value
    return labels


def write_volume(file: Path, voxels: np.ndarray) -> None:
    """Write (Z, Y, X) as NIfTI."""
    image = sitk.GetImageFromArray(voxels)
    image.SetSpacing(SPACING)
    sitk.WriteImage(image, str(file), True)


def make_dataset(data: Data, root: Path) -> Path:
    """Write a raw dataset with predictions, which are the labels moved by one voxel, and with plans beside them."""
    folder = root / data.dataset
    for part in ("imagesTr", "labelsTr", "predictions"):
        (folder / part).mkdir(parents=True)
    rng = np.random.default_rng(data.labels)
    for number in range(data.cases):
        labels = organs(data, rng)
        coarse = rng.normal(0, 100, [-(-side // 8) for side in data.shape]).astype(np.float32)
        noise = zoom(coarse, 8, order=1)[tuple(map(slice, data.shape))]
        write_volume(folder / "imagesTr" / f"case_{number:03}_0000.nii.gz", (noise + 10 * labels).astype(np.int16))
        write_volume(folder / "labelsTr" / f"case_{number:03}.nii.gz", labels)
        write_volume(folder / "predictions" / f"case_{number:03}.nii.gz", np.roll(labels, (0, 1, 1), (0, 1, 2)))
    names = {"background": 0, **{f"organ {value}": value for value in range(1, data.labels + 1)}}
    description = {"channel_names": {"0": "CT"}, "labels": names, "numTraining": data.cases, "file_ending": ".nii.gz"}
    write_json(folder / "dataset.json", description)
    write_json(folder / "predictions" / "plans.json", {"label_manager": "LabelManager"})
    return folder


def commands_for(folder: Path, processes: int) -> dict[str, list[str]]:
    """What is measured on a dataset, by name, in order."""
    references, predicted, out = folder / "labelsTr", folder / "predictions", folder.parent / f"scored_{folder.name}"
    evaluate = ["nnunet_ext", "evaluate", "--predictions", predicted, "--labels", references]
    evaluate += ["--workers", processes, "--force", "-o"]
    stock = [STOCK, references, predicted, "-djfile", folder / "dataset.json", "-pfile", predicted / "plans.json"]
    number = int(folder.name[7:10])
    commands: dict[str, list[Any]] = {
        STOCK: [*stock, "-np", processes, "-o", folder.parent / "summary.json"],
        DICE: [*evaluate, out],
        "report": ["nnunet_ext", "report", out, "--force", "-o", folder.parent / f"{folder.name}.html"],
        "evaluate --metrics surface lesions nsd": [
            *(*evaluate, f"{out}_all", "--metrics", "surface", "lesions", "nsd", "--tolerance", "2")
        ],
        "check": ["nnunet_ext", "check", "-d", number, "--trainer", "nnUNetTrainerDBDMP"],
    }
    for place, kind in enumerate((["scribbles"], ["instances", "--keep", "0.5"]), start=1):
        new = f"Dataset{number + 10 * place}_Simulated"
        commands[f"simulate {kind[0]}"] = ["nnunet_ext", "simulate", *kind, number, "-o", new, "--force"]
    return {name: list(map(str, command)) for name, command in commands.items()}


def measured(command: Sequence[str], variables: Mapping[str, str]) -> Usage:
    """Run a command to its end; a RuntimeError with its output if it fails."""
    before, started, peak = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic(), 0
    arguments = [str(find_executable(command[0])), *command[1:]]
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(arguments, env={**os.environ, **variables}, stdout=said, stderr=said)
        while process.poll() is None:
            peak = max(peak, memory_of(process.pid))
            time.sleep(SAMPLING_S)
        if process.returncode:
            said.seek(0)
            raise RuntimeError(f"{command} ended with {process.returncode}: {said.read().decode()[-2000:]}")
    wall, after = time.monotonic() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Usage(wall, cpu, peak)


def memory_of(process: int) -> int:
    """Bytes of a process and all its descendants; what they share counts once (Linux's PSS)."""
    try:
        lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
        children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    except OSError:  # it has ended
        return 0
    own = next((int(line.split()[1]) for line in lines if line.startswith("Pss:")), 0)
    return 1024 * own + sum(memory_of(int(child)) for child in children)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", nargs="+", choices=INPUTS, default=list(INPUTS), help="data (default: all)")
    parser.add_argument(
        "--commands", nargs="+", metavar="NAME", help="names of commands, as in the table (default: all)"
    )
    rounds = "times that nnU-Net's evaluation and ours take turns; the others run once (default: %(default)s)"
    parser.add_argument("--rounds", type=int, default=3, help=rounds)
    processes = "numbers of processes to evaluate with (default: 1)"
    parser.add_argument("--processes", type=int, nargs="+", default=[1], help=processes)
    parser.add_argument("--work", type=Path, help="folder for the data, kept (default: a temporary one)")
    parser.add_argument("--out", type=Path, default=Path("bench_output/scale"), help="files to write, without ending")
    parser.add_argument("--append", action="store_true", help="go on with the measurements in the files")
    options = parser.parse_args(argv)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    table = options.out.with_suffix(".csv")
    command = ["python", "-m", "benchmarks.scale", *(sys.argv[1:] if argv is None else argv)]
    shown = shown_command(command, {options.work: "WORK"} if options.work else {})
    rows: list[dict[str, Any]] = pd.read_csv(table).to_dict("records") if options.append else []
    with tempfile.TemporaryDirectory() as temporary:
        root = options.work or Path(temporary)
        variables = {f"nnUNet_{kind}": str(root) for kind in ("raw", "preprocessed", "results")}
        for name in options.inputs:
            folder = root / INPUTS[name].dataset
            if not folder.is_dir():
                make_dataset(INPUTS[name], root)
            for turn in range(options.rounds):
                for processes in options.processes:
                    for title, command in commands_for(folder, processes).items():
                        again = title in (STOCK, DICE)
                        evaluates = title.startswith((STOCK, DICE))
                        asked = not options.commands or title in options.commands
                        if not asked or (turn and not again) or not (evaluates or processes == options.processes[0]):
                            continue
                        load = os.getloadavg()[0]
                        used = measured(command, variables)
                        found = {"input": name, "command": title, "processes": processes if evaluates else 1}
                        found |= {"round": turn, "wall_s": round(used.wall_s, 2), "cpu_s": round(used.cpu_s, 2)}
                        found |= {"peak_MB": round(used.peak_bytes / MEGABYTE), "load": round(load, 2)}
                        rows.append({**found, "commit": commit(REPOSITORY) or ""})
                        print(*rows[-1].values(), flush=True)
                        write_text(table, pd.DataFrame(rows).to_csv(index=False, lineterminator="\n"))
                        write_text(options.out.with_suffix(".md"), page(rows, shown))
    return FINE


def page(rows: Sequence[Mapping[str, Any]], command: str) -> str:
    """The measurements as Markdown."""
    kinds = dict.fromkeys((row["input"], row["processes"], row["command"]) for row in rows)
    header = ["command", "processes", "runs", "wall, s", "CPU, s", "peak, MB", "CPU / nnU-Net", "peak / nnU-Net"]
    lines = ["# Much data", "", "Medians over the runs. CPU time and memory are of all processes of a command.", ""]
    for name in dict.fromkeys(row["input"] for row in rows):
        table = []
        for kind in (one for one in kinds if one[0] == name):
            wall, cpu, peak = figures(rows, kind)
            _, stock_cpu, stock_peak = figures(rows, (*kind[:2], STOCK))
            ratios = (
                [f"{cpu / stock_cpu:.2f}", f"{peak / stock_peak:.2f}"] if kind[2] == DICE and stock_cpu else ["", ""]
            )
            runs = sum(tuple(row[key] for key in ("input", "processes", "command")) == kind for row in rows)
            table.append([kind[2], str(kind[1]), str(runs), f"{wall:.1f}", f"{cpu:.1f}", f"{peak:.0f}", *ratios])
        lines += [f"## {INPUTS[name].title}", "", *markdown_table(header, table), ""]
    loads = [row["load"] for row in rows]
    lines += [f"Load of the machine before each run (mean over a minute): {min(loads)} to {max(loads)}.", ""]
    commits = ", ".join(sorted({str(row["commit"]) for row in rows}))
    return "\n".join([*lines, *provenance_lines([machine_line("cpu")], [command], commits=commits), ""])


def figures(rows: Sequence[Mapping[str, Any]], kind: tuple[Any, ...]) -> tuple[float, float, float]:
    """Medians of wall time, CPU time and memory of an input, a number of processes and a command; 0 without runs."""
    chosen = [row for row in rows if tuple(row[key] for key in ("input", "processes", "command")) == kind] or [
        dict.fromkeys(("wall_s", "cpu_s", "peak_MB"), 0.0)
    ]
    wall, cpu, peak = (median(row[key] for row in chosen) for key in ("wall_s", "cpu_s", "peak_MB"))
    return wall, cpu, peak


if __name__ == "__main__":
    sys.exit(main())
