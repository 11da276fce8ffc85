"""Step time and peak memory of every trainer beside stock nnU-Net: ``python -m benchmarks.step_time``.

All trainers take turns in one process, on the same batch, one after the other in an order that is drawn anew in every
round; each is compared with stock nnU-Net in the same round, so that other load on the machine hits both alike. See
benchmarks/README.md for how to read the table.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.engine.provenance import machine_line, markdown_table, provenance_lines, shown_command
from benchmarks.engine.statistics import Estimate, estimate
from benchmarks.synthetic import PRESETS, STOCK_SETTINGS, build_trainer, random_batch
from nnunet_ext import trainers
from nnunet_ext.arguments import parse_settings
from nnunet_ext.cli import FINE, PROBLEM, WRONG_USAGE
from nnunet_ext.errors import UserError
from nnunet_ext.files import write_text
from nnunet_ext.nnunet_names import TRAINER as STOCK
from nnunet_ext.plans.settings import validated_settings
from nnunet_ext.registry import TRAINERS

CONTROL = "nnUNetTrainer (again)"


@dataclass(frozen=True)
class Requirement:
    """The most that a trainer may cost beside another one."""

    trainer: str  # the one that is held to it
    reference: str  # the one it is compared with
    time: float  # limit of its step time, as a multiple of the reference's, beyond the operations it has more
    # limit of its peak memory beyond the reference's; None where none is required
    bytes_per_weight: float | None = None


REQUIREMENTS = (
    Requirement("nnUNetTrainerConfigurable", STOCK, 1.02),
    Requirement("nnUNetTrainerDBDMP", STOCK, 1.05),
    Requirement("nnUNetTrainerPartialCE", STOCK, 1.05),
    Requirement("nnUNetTrainerDMPLS", STOCK, 1.05),
    Requirement("nnUNetTrainerTDNet", STOCK, 1.05),
    Requirement("nnUNetTrainerDGST", "nnUNetTrainerFineTune", 1.10, bytes_per_weight=1.0),
)

DEFAULT_PRESETS = {"cpu": ["small-3d", "small-2d"], "cuda": ["full-3d", "full-2d"]}
WARM_UP_STEPS = 3
MIB = 2**20


@dataclass(frozen=True)
class Contender:
    """A trainer that takes part, with what is measured of one step beforehand."""

    name: str  # in the table
    trainer: Any  # warmed up
    flops: int  # floating-point operations of a step
    memory: int  # peak bytes of a step
    weights: int  # entries of all its parameters


@dataclass(frozen=True)
class Times:
    """Seconds per step of one trainer, one entry per round."""

    wall: npt.NDArray[np.float64]
    cpu: npt.NDArray[np.float64]


@dataclass(frozen=True)
class Row:
    """One trainer beside stock nnU-Net."""

    name: str
    seconds: float  # median wall time of a step
    time_ratio: Estimate  # median over the rounds of its time divided by stock's
    cpu_time_ratio: Estimate  # the same of the process's CPU time
    flop_ratio: float  # operations of a step divided by stock's
    memory: int  # peak bytes of a step
    memory_ratio: float  # divided by stock's

    @property
    def overhead(self) -> Estimate:
        """What is left of the time ratio when the arithmetic is accounted for: time ratio / FLOP ratio."""
        return self.time_ratio.divided_by(self.flop_ratio)

    def cells(self) -> dict[str, str]:
        """The figures by the title of their column."""
        ratios = {
            "time ratio": self.time_ratio.value,
            "95 % low": self.time_ratio.low,
            "95 % high": self.time_ratio.high,
            "CPU time ratio": self.cpu_time_ratio.value,
            "FLOP ratio": self.flop_ratio,
            "overhead": self.overhead.value,
        }
        cells = {"trainer": self.name, "step, s": f"{self.seconds:.4f}"}
        cells |= {title: f"{value:.3f}" for title, value in ratios.items()}
        return {**cells, "peak MiB": f"{self.memory / MIB:.1f}", "memory ratio": f"{self.memory_ratio:.3f}"}


# ---------------------------------------------------------------------- one step


def step_flops(trainer: Any, batch: Mapping[str, Any]) -> int:
    """Floating-point operations of one training step, forward and backward: convolutions and matrix products."""
    with FlopCounterMode(display=False) as counter:
        trainer.train_step(batch)
    return counter.get_total_flops()


def step_memory(trainer: Any, batch: Mapping[str, Any]) -> int:
    """Peak bytes of tensors during one training step: those that stay, and the highest rise above them.

    The rise is the allocator's own record on CUDA, and the profiler's running sum of allocations on the CPU. Scratch
    memory that a library allocates by itself is in neither.
    """
    trainer.optimizer.zero_grad(set_to_none=True)  # the profiler sees no release of what was there before it
    resident = resident_bytes(trainer)
    if trainer.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(trainer.device)
        before = torch.cuda.memory_allocated(trainer.device)
        trainer.train_step(batch)
        return resident + torch.cuda.max_memory_allocated(trainer.device) - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        trainer.train_step(batch)
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(trace))
        events = json.loads(trace.read_text(encoding="utf-8"))["traceEvents"]
    return resident + peak_of_events(events)


def peak_of_events(events: Sequence[Mapping[str, Any]]) -> int:
    """Highest running sum of allocations and releases among the events of a profiler's trace, at least 0."""
    allocations = sorted(
        (event["args"]["Ev Idx"], event["args"]["Bytes"]) for event in events if event.get("name") == "[memory]"
    )
    sums = np.cumsum([size for _, size in allocations], dtype=np.int64)
    return max(0, int(sums.max(initial=0)))


def resident_bytes(trainer: Any) -> int:
    """Bytes of the tensors that a trainer keeps between steps, shared memory counted once."""
    state = trainer.optimizer.state.values()
    tensors = [*trainer.network.parameters(), *trainer.network.buffers()]
    tensors += [value for values in state for value in values.values() if isinstance(value, torch.Tensor)]
    storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in tensors}
    return sum(storages.values())


# ---------------------------------------------------------------------- many steps


def trainer_classes(names: Sequence[str]) -> Iterator[tuple[str, type]]:
    """Stock nnU-Net twice, the second as a control, then the registered trainers that are wanted."""
    yield from ((STOCK, nnUNetTrainer), (CONTROL, nnUNetTrainer))
    yield from ((entry.name, getattr(trainers, entry.name)) for entry in TRAINERS if entry.name in names)


def prepare(
    names: Sequence[str], build: Callable[..., Any], *, compiled: bool
) -> tuple[list[Contender], dict[str, str]]:
    """Build the trainers with `build` and warm them up: those that can train on this plan; of the others, why not."""
    contenders, refused = [], {}
    for name, trainer_class in trainer_classes(names):
        try:
            # the counter does not see into compiled code
            flops = _flops_of(build(trainer_class))
            trainer = build(trainer_class, compiled=compiled)
        except (NotImplementedError, UserError) as error:
            refused[name] = str(error)
            continue
        gc.collect()  # what the counted trainer leaves must not be released during a measurement
        batch = random_batch(trainer)
        for _ in range(WARM_UP_STEPS):
            trainer.train_step(batch)
        weights = sum(parameter.numel() for parameter in trainer.network.parameters())
        contenders.append(Contender(name, trainer, flops, step_memory(trainer, batch), weights))
    return contenders, refused


def _flops_of(trainer: Any) -> int:
    return step_flops(trainer, random_batch(trainer))


def interleaved(
    contenders: Sequence[Contender], *, rounds: int, steps: int, rng: np.random.Generator
) -> dict[str, Times]:
    """Time the trainers in turns."""
    batches = {contender.name: random_batch(contender.trainer) for contender in contenders}
    seconds = {contender.name: np.zeros((2, rounds)) for contender in contenders}
    progress_at = max(1, rounds // 10)
    for index in range(rounds):
        for position in rng.permutation(len(contenders)):
            contender = contenders[position]
            synchronize = torch.cuda.synchronize if contender.trainer.device.type == "cuda" else lambda: None
            synchronize()
            wall, cpu = time.perf_counter(), time.process_time()
            for _ in range(steps):
                contender.trainer.train_step(batches[contender.name])
            synchronize()
            seconds[contender.name][:, index] = time.perf_counter() - wall, time.process_time() - cpu
        if (index + 1) % progress_at == 0:
            print(f"  round {index + 1} of {rounds}", file=sys.stderr, flush=True)
    return {name: Times(wall / steps, cpu / steps) for name, (wall, cpu) in seconds.items()}


def compare(contenders: Sequence[Contender], times: Mapping[str, Times], rng: np.random.Generator) -> list[Row]:
    """Every trainer beside the first one, which is stock nnU-Net."""
    stock, rows = contenders[0], []
    reference = times[stock.name]
    for one in contenders:
        own, flops, memory = times[one.name], one.flops / stock.flops, one.memory / stock.memory
        wall, cpu = (estimate(ratio, np.median, rng) for ratio in (own.wall / reference.wall, own.cpu / reference.cpu))
        rows.append(Row(one.name, float(np.median(own.wall)), wall, cpu, flops, one.memory, memory))
    return rows


# ---------------------------------------------------------------------- report


def table_lines(rows: Sequence[Row]) -> list[str]:
    """The rows as a Markdown table."""
    return markdown_table(list(rows[0].cells()), [list(row.cells().values()) for row in rows])


def verdict(ratio: Estimate, limit: float) -> str:
    """Whether a limit is kept: ``met``, ``missed``, or ``open`` where the interval holds the limit."""
    if ratio.high <= limit:
        return "met"
    return "missed" if ratio.low > limit else "open"


def verdicts(
    contenders: Sequence[Contender], times: Mapping[str, Times], rng: np.random.Generator
) -> list[tuple[str, str]]:
    """The verdict on each requirement whose trainers both took part, and a sentence that gives the figures."""
    by_name = {contender.name: contender for contender in contenders}
    found = []
    for requirement in REQUIREMENTS:
        if not {requirement.trainer, requirement.reference} <= by_name.keys():
            continue
        own, other = by_name[requirement.trainer], by_name[requirement.reference]
        ratios = times[own.name].wall / times[other.name].wall
        ratio = estimate(ratios, np.median, rng).divided_by(own.flops / other.flops)
        result = verdict(ratio, requirement.time)
        sentence = (
            f"Requirement: {own.name} takes at most {requirement.time - 1:.0%} longer than {other.name}. "
            f"{result.capitalize()}: {ratio.value - 1:+.1%} "
            f"(95 % interval {ratio.low - 1:+.1%} to {ratio.high - 1:+.1%})."
        )
        if requirement.bytes_per_weight is not None:
            extra, limit = (own.memory - other.memory) / own.weights, requirement.bytes_per_weight
            kept = "met" if extra <= limit else "missed"
            sentence += f" At most {limit:g} byte(s) a weight more memory: {extra:+.2f}, {kept}."
            result = result if kept == "met" else kept
        found.append((result, sentence))
    return found


def measure(name: str, args: argparse.Namespace, device: torch.device) -> tuple[list[Row], list[str], list[str]]:
    """Everything about one preset: the figures of each trainer, the same as lines of Markdown, and the verdicts."""
    preset = PRESETS[name]
    print(f"{name}: {preset.describe()}", file=sys.stderr, flush=True)
    rng = np.random.default_rng(args.seed)
    with tempfile.TemporaryDirectory() as root:
        settings = {**STOCK_SETTINGS, **args.settings}
        build = partial(build_trainer, preset=preset, device=device, root=Path(root), settings=settings)
        contenders, refused = prepare(args.trainers, build, compiled=args.compile)
        times = interleaved(contenders, rounds=args.rounds, steps=args.steps, rng=rng)
    rows = compare(contenders, times, rng)
    found = verdicts(contenders, times, rng)
    lines = [f"## {name}: {preset.describe()}", "", *table_lines(rows), *(f"\n{sentence}" for _, sentence in found)]
    lines += [f"\nNot measured: {refusing}: {reason}" for refusing, reason in refused.items()]
    return rows, lines, [verdict for verdict, _ in found]


def method_line(args: argparse.Namespace, device: torch.device) -> str:
    """How it was measured, in a paragraph."""
    compiled = "on" if args.compile and device.type == "cuda" else "off"
    settings = "; ".join(["SGD with Nesterov momentum, contiguous memory format", *args.set])
    return (
        f"Device {device.type}; torch.compile {compiled}; {settings}. "
        f"{args.rounds} rounds of {args.steps} step(s) for each trainer, interleaved in a random order in one process. "
        "Time is wall time; ratios are medians over the rounds of time / stock's time in the same round. "
        f"'{CONTROL}' is a second copy of stock nnU-Net: its distance from 1 is the noise. Overhead = time ratio / "
        "FLOP ratio. Peak memory: weights, optimizer state and the tensors of one step."
    )


def build_parser() -> argparse.ArgumentParser:
    """The arguments of the command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.step_time", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--rounds", type=int, default=60, help="turns of each trainer (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=1, help="training steps in a turn (default: %(default)s)")
    parser.add_argument(
        "--preset", nargs="+", choices=list(PRESETS), help="network sizes (default: small on CPU, full on CUDA)"
    )
    names = [entry.name for entry in TRAINERS]
    parser.add_argument("--trainers", nargs="+", choices=names, default=names, help="trainers to time (default: all)")
    parser.add_argument(
        "--set",
        nargs="+",
        default=[],
        metavar="KEY=VALUE",
        help="settings of the trainers, as nnunet_ext configure takes them",
    )
    parser.add_argument("--compile", action="store_true", help="let nnU-Net use torch.compile (CUDA only)")
    parser.add_argument("--threads", type=int, help="CPU threads of PyTorch (default: PyTorch's own)")
    parser.add_argument(
        "--seed", type=int, default=0, help="seed of the order and the bootstrap (default: %(default)s)"
    )
    parser.add_argument("--out", type=Path, help="write OUT.csv and OUT.md")
    return parser


def check(args: argparse.Namespace) -> None:
    """Read the settings; a UserError names the argument that cannot be measured."""
    if args.rounds < 2 or args.steps < 1:
        raise UserError("--rounds must be at least 2 and --steps at least 1.")
    if args.device == "cuda" and not torch.cuda.is_available():
        raise UserError("PyTorch finds no CUDA device here. Use --device cpu.")
    args.settings = parse_settings(args.set)
    validated_settings(args.settings, where="--set")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark; 1 if a requirement was shown to be missed, 2 for wrong usage."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    args = build_parser().parse_args(arguments)
    try:
        check(args)
    except UserError as error:
        print(f"step_time: {error}", file=sys.stderr)
        return WRONG_USAGE
    if args.threads is not None:
        torch.set_num_threads(args.threads)
    device = torch.device(args.device)
    presets = args.preset or DEFAULT_PRESETS[args.device]
    measured = [measure(name, args, device) for name in presets]
    command = shown_command(["python", "-m", "benchmarks.step_time", *arguments], {Path.cwd(): "."})
    sections = [line for _, section, _ in measured for line in (*section, "")]
    lines = ["# Step time and peak memory", "", method_line(args, device), "", *sections]
    lines += provenance_lines([machine_line(device.type)], [command])
    print("\n".join(lines))
    if args.out is not None:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        rows = [{"preset": name, **row.cells()} for name, (found, _, _) in zip(presets, measured) for row in found]
        listing = args.out.with_name(f"{args.out.name}.csv")
        write_text(listing, pd.DataFrame(rows).to_csv(index=False, lineterminator="\n"))
        write_text(args.out.with_name(f"{args.out.name}.md"), "\n".join(lines) + "\n")
    return PROBLEM if any("missed" in verdicts for _, _, verdicts in measured) else FINE


if __name__ == "__main__":
    sys.exit(main())
