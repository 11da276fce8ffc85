"""What only a machine with a CUDA GPU can show, in minutes and without the internet: ``python -m benchmarks.gpu``.

Three parts, one after the other: the tests that need a GPU; step time and peak memory of every trainer, without and
with torch.compile; then as much of an experiment as fits. Everything comes into one folder; summary.md there says
what each part did, and what was left out and why. benchmarks/README.md says how to use it.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
ENDING_S = 20.0  # for the last part to write its results
SHARE_OF_TESTS = 0.3  # of the time, at most
SHARE_OF_STEP_TIMES = 0.4  # of the time, at most
# compiling a network takes a minute: one with a further decoder, and the one with the most
COMPILED = ("Configurable", "DBDMP", "TDNet")


@dataclass(frozen=True)
class Part:
    """What became of a part."""

    name: str
    outcome: str  # in words, such as ``passed`` or ``skipped: …``
    seconds: float = 0.0


class Pack:
    """Runs the parts within a time."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args, self.out = args, args.out.resolve()
        self.deadline = time.monotonic() + 60 * args.minutes
        self.parts: list[Part] = []
        self.out.mkdir(parents=True, exist_ok=True)
        paths = [REPOSITORY, *([args.site] if args.wheels else []), REPOSITORY / "tests", os.environ.get("PYTHONPATH")]
        self.environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(str(path) for path in paths if path),
            "PYTHONUNBUFFERED": "1",
        }

    def left(self, share: float = 1.0) -> float:
        """Seconds until a part must end: what is left, or a share of the whole time."""
        return min(self.deadline - time.monotonic() - ENDING_S, share * 60 * self.args.minutes)

    def run(
        self, name: str, command: Sequence[str], *, seconds: float, variables: Mapping[str, str] | None = None
    ) -> int | None:
        """Run a part's command with its output in a log; returns its status, None if its time was over."""
        if seconds <= 0:
            self.parts.append(Part(name, "skipped: no time is left"))
            return None
        print(f"{name}: {' '.join(command)}", flush=True)
        started = time.monotonic()
        with open(self.out / f"{name}.log", "ab") as log:
            process = subprocess.Popen(
                command,
                cwd=REPOSITORY,
                env={**self.environment, **(variables or {})},
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            try:
                status: int | None = process.wait(timeout=seconds)
            except subprocess.TimeoutExpired:
                status = None
            finally:
                end(process)
        outcome = {0: "passed", None: "its time was over"}.get(status, f"ended with status {status}")
        self.parts.append(Part(name, f"{outcome} ({name}.log)", time.monotonic() - started))
        print(f"{name}: {self.parts[-1].outcome}, {self.parts[-1].seconds:.0f} s", flush=True)
        return status

    def skip(self, name: str, reason: str) -> None:
        """Leave a part out."""
        self.parts.append(Part(name, f"skipped: {reason}"))

    # ------------------------------------------------------------------ parts

    def install(self) -> bool:
        """Put the wheels into a folder of their own, and this package's metadata beside them."""
        if not self.args.wheels:
            return True
        wheels = [str(wheel.resolve()) for folder in self.args.wheels for wheel in sorted(folder.glob("*.whl"))]
        options = ["--no-index", "--no-deps", "--no-compile", "--quiet", "--upgrade", "--target", str(self.args.site)]
        return (
            self.run("install", [sys.executable, "-m", "pip", "install", *options, *wheels], seconds=self.left()) == 0
        )

    def tests(self) -> None:
        """The tests that are skipped without a GPU."""
        if self.args.device != "cuda":
            return self.skip("tests", "they need a CUDA device")
        command = [
            sys.executable,
            "-m",
            "pytest",
            "tests/contract/test_cuda.py",
            "-q",
            "-n",
            str(self.args.at_once // 2),
        ]
        command += ["-p", "no:cacheprovider", f"--junitxml={self.out / 'tests.xml'}"]
        few = {"OMP_NUM_THREADS": "1", "TORCHINDUCTOR_COMPILE_THREADS": "2"}  # of each of the processes
        self.run("tests", command, seconds=self.left(SHARE_OF_TESTS), variables=few)
        return None

    def step_times(self) -> None:
        """Step time and memory, at nnU-Net's usual sizes on a GPU."""
        command = [sys.executable, "-m", "benchmarks.step_time", "--device", self.args.device]
        if self.args.device != "cuda":
            quick = ["--rounds", "2", "--preset", "small-2d", "--threads", "1"]
            self.run("step_time", [*command, *quick, "--out", str(self.out / "step_time_cpu")], seconds=self.left())
            return self.skip("step_time_compiled", "it needs a CUDA device")
        until = time.monotonic() + self.left(SHARE_OF_STEP_TIMES)
        eager = [*command, "--rounds", "10", "--out", str(self.out / "step_time_cuda")]
        self.run("step_time", eager, seconds=until - time.monotonic())
        some = [f"nnUNetTrainer{name}" for name in COMPILED]
        compiled = [*command, "--rounds", "10", "--preset", "full-3d", "--compile", "--trainers", *some]
        compiled += ["--out", str(self.out / "step_time_compiled_cuda")]
        self.run("step_time_compiled", compiled, seconds=until - time.monotonic())
        return None

    def experiment(self) -> None:
        """As much of the experiment as fits; the folder can be taken elsewhere and gone on with."""
        if self.args.run is None:
            return self.skip("experiment", "--run names no folder")
        command = [sys.executable, "-m", "benchmarks", "run", self.args.experiment, "--out", str(self.args.run)]
        command += ["--device", self.args.device, "--at-once", str(self.args.at_once), "--results", str(self.out)]
        # a core for each training is enough for its augmentation
        single = {"OMP_NUM_THREADS": "1", "nnUNet_n_proc_DA": "0"}
        self.run("experiment", command, seconds=self.left(), variables=single)
        with tarfile.open(self.out / "run.tar.gz", "w:gz") as archive:
            plans = self.args.run.glob("nnUNet_preprocessed/*/*.json")
            for part in (*(self.args.run / name for name in ("steps.json", "request.json", "evaluations")), *plans):
                if part.exists():
                    archive.add(part, part.relative_to(self.args.run))
        return None

    def summary(self) -> None:
        """Write what each part did."""
        lines = ["# On a machine with a GPU", "", "| part | outcome | seconds |", "| --- | --- | ---: |"]
        lines += [f"| {part.name} | {part.outcome} | {part.seconds:.0f} |" for part in self.parts]
        about = "from benchmarks.engine.provenance import *; import sys; "
        about += "print('\\n'.join(provenance_lines([machine_line(sys.argv[1])], sys.argv[2:])))"
        shown = ["python", "-m", "benchmarks.gpu", "--device", self.args.device, "--minutes", f"{self.args.minutes:g}"]
        command = [sys.executable, "-c", about, self.args.device, " ".join(shown)]
        found = subprocess.run(command, cwd=REPOSITORY, env=self.environment, capture_output=True, text=True)
        lines += ["", found.stdout.strip() or found.stderr.strip()]
        (self.out / "summary.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
        print("\n".join(lines), flush=True)


def end(process: subprocess.Popen[bytes]) -> None:
    """Ask a part and all that it has started to end, and make them."""
    for number, patience in ((signal.SIGTERM, ENDING_S), (signal.SIGKILL, 5.0)):
        try:
            os.killpg(process.pid, number)
            process.wait(timeout=patience)
        except (ProcessLookupError, subprocess.TimeoutExpired):
            continue


def build_parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cuda", help="cpu tries the pack out")
    parser.add_argument("--minutes", type=float, default=8, help="for everything (default: %(default)s)")
    parser.add_argument("--out", type=Path, required=True, help="folder of the results")
    wheels = "folders of wheels to install first; without them, this environment's own packages are used"
    parser.add_argument("--wheels", type=Path, nargs="+", default=[], metavar="FOLDER", help=wheels)
    parser.add_argument("--site", type=Path, default=Path("/tmp/site"), help="where to (default: %(default)s)")
    parser.add_argument("--experiment", default="scribbles", help="what is run at last (default: %(default)s)")
    parser.add_argument("--run", type=Path, help="folder in which the experiment was begun, with its data")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    parser.add_argument("--at-once", type=int, default=cores, metavar="N", help="trainings at a time (default: cores)")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the pack; 1 if a part failed."""
    args = build_parser().parse_args(argv)
    if args.device == "cuda" and shutil.which("nvidia-smi") is None:
        print("benchmarks.gpu: there is no nvidia-smi here. Use --device cpu to try the pack out.", file=sys.stderr)
        return 2
    pack = Pack(args)
    if pack.install():
        pack.tests()
        pack.step_times()
        pack.experiment()
    pack.summary()
    return 1 if any("status" in part.outcome for part in pack.parts) else 0


if __name__ == "__main__":
    sys.exit(main())
