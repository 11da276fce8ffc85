"""Fine-tuning with few cases after a domain shift: every way of this package beside a training from the start."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path

from benchmarks.data.domain_shift import DESCRIPTIONS, HIPPOCAMPUS, Shift, write_side
from benchmarks.engine.experiment import Comparison, Dataset, Experiment, Method, Pilot, Test
from benchmarks.engine.presets import STOCK

SHOTS = 5
AMOUNTS = (0.25, 0.5, 0.75)


@dataclass(frozen=True)
class FewShot:
    """The datasets and methods of a shift."""

    shift: Shift
    source_steps: int = 1000  # of the source model's training

    @cached_property
    def source(self) -> Dataset:
        """What the source model is trained on."""
        write = partial(write_side, shift=self.shift, is_target=False)
        return Dataset(804, "Source", write, folds=self.shift.source_folds)

    @cached_property
    def target(self) -> Dataset:
        """What the others are tuned on, in the source's network."""
        return Dataset(805, "Shifted", partial(write_side, shift=self.shift, is_target=True), plans_of=self.source)

    @cached_property
    def source_model(self) -> Method:
        """What is tuned."""
        steps = (self.source_steps,)
        return Method("source model", STOCK, self.source, {}, "not tuned", lr=2e-3, steps=steps, is_shared=True)

    def tuned(self, name: str, trainer: str, family: str = "", **settings: object) -> Method:
        """A trainer that starts from the source model."""
        named = {key.replace("__", "."): value for key, value in settings.items()}
        start, by = self.source_model, "fine_tuning.source"
        return Method(name, f"nnUNetTrainer{trainer}", self.target, named, family=family, start=start, start_by=by)

    @property
    def tests(self) -> tuple[Test, Test]:
        """What is learned, and what may be forgotten."""
        return Test("target", self.target, "test"), Test("source", self.source, "test")

    @property
    def description(self) -> str:
        """What is learned from what, for the results."""
        return (
            "A source model is tuned on few cases of a target. The target is other cases with "
            f"{DESCRIPTIONS[self.shift.name]}. Both are tested on the same cases, which no training has seen."
        )

    def dgst(self, mode: str, top_k: int, name: str = "", **settings: object) -> Method:
        """DGST with one entry or more of each kernel."""
        name = name or f"DGST {mode} k={top_k}"
        return self.tuned(name, "DGST", f"DGST {mode}", dgst__mode=mode, dgst__top_k=top_k, **settings)

    def interpolated(self, tuned: Method) -> tuple[Method, ...]:
        """Models between the source model and a tuned one, from the nearest to the source on."""
        about = "between the source model (0) and `{}` (1): {}"
        source = f"Dataset{self.source.number}_{self.source.title}"
        return tuple(
            replace(
                tuned,
                name=f"{tuned.name}, {amount:g} of the way",
                description=about.format(tuned.name, amount),
                family=tuned.family_name,
                sizes=(SHOTS,),
                steps=(),
                start=tuned,
                command=partial(between, source=source, amount=amount),
            )
            for amount in AMOUNTS
        )

    def experiment(self, name: str, title: str) -> Experiment:
        """The comparison."""
        return Experiment(
            name=name,
            title=title,
            description=self.description,
            originals=(self.shift.origin,),
            folds=self.shift.target_folds,
            methods=(
                self.source_model,
                Method("scratch", STOCK, self.target, description="trained on the target's cases alone"),
                self.tuned("full", "FineTune"),
                self.tuned("head only", "HeadOnly"),
                self.tuned("decoder only", "DecoderOnly"),
                self.tuned("bias only", "BiasOnly"),
                self.tuned("norm only", "NormOnly"),
                self.tuned("LoRA", "LoRA"),
                *(self.dgst("strict", top_k) for top_k in (1, 2, 5)),
                *(self.dgst("grad_mask", top_k) for top_k in (1, 2, 5)),
                self.dgst("strict", 1, "DGST random k=1", dgst__selection="random"),
            ),
            tests=self.tests,
            comparisons=(
                Comparison("DGST strict k=1", "full", is_primary=True),
                Comparison("DGST strict k=1", "full", test="source", is_primary=True),
                *(Comparison(name, "full") for name in ("scratch", "decoder only", "LoRA", "DGST grad_mask k=1")),
                Comparison("DGST strict k=1", "DGST random k=1"),
            ),
            sizes=(SHOTS, 1, 10),
            steps=(150,),
            steps_in_epoch=30,
            pilot=Pilot(first=1e-2, test=Test("target validation", self.target, "val")),
        )


def between(start: Path, made: Path, *, source: str, amount: float) -> Sequence[str]:
    """The command that makes a model between the source model and one that was tuned from it."""
    trainer, plans, configuration = start.parents[1].name.split("__")
    (first,) = start.parents[3].glob(f"{source}/*/fold_0/checkpoint_final.pth")
    target = ["--to", start.parents[2].name, configuration, "-p", plans, "-tr", trainer]
    return [
        *("nnunet_ext", "adapt-weights", str(first), *target),
        *("--tuned", str(start), "--interpolate", str(amount), "-o", str(made), "--force"),
    ]


EXPERIMENT = FewShot(HIPPOCAMPUS).experiment("few_shot", "Fine-tuning with few cases: hippocampus")
