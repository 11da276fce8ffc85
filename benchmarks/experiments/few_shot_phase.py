"""Fine-tuning with few cases in 1,000 steps, and what is forgotten: the heart at the other end of its cycle.

About 6 hours of one core: 1,000 steps of full fine-tuning take 2 minutes, LoRA's 5, and scoring a model on both tests
40 seconds. So LoRA, L2-SP and models between two are for 5 cases.
"""

from dataclasses import replace

from benchmarks.data.acdc import patient_of
from benchmarks.data.domain_shift import HEART, HEART_CONTRAST
from benchmarks.engine.experiment import Comparison, Experiment, Method, Pilot, Test, TradeOff
from benchmarks.engine.presets import ADAMW, COARSE, STOCK
from benchmarks.experiments.few_shot import SHOTS, FewShot

LENGTHS = (1000, 2000)
STRENGTHS = (0.1, 0.01, 0.001)
ADDED = "added when strict DGST with one entry had been found worse than full fine-tuning, to find the cause"
LONGER = "added when full fine-tuning had been found better than this with as many steps; with the rate of these"


def longer_than(method: Method, steps: tuple[int, ...]) -> Method:
    """The same with more steps and the same learning rate."""
    return replace(method, name=f"{method.name}, longer", family=method.family_name, sizes=(SHOTS,), steps=steps)


def experiment(
    few_shot: FewShot,
    name: str,
    title: str,
    *,
    margin: float = 0.0,
    more_seeds: tuple[int, ...] = (3, 4),
    more_steps: tuple[int, ...] = (),
    more_entries: tuple[int, ...] = (),
    kernel_lr_factors: tuple[float, ...] = (),
) -> Experiment:
    """The comparison for a shift.

    Args:
        few_shot: the shift, and the methods for it.
        name: of the experiment.
        title: of its page.
        margin: the least gain in Dice that counts.
        more_seeds: of the runs that decide.
        more_steps: length of longer trainings from random weights and of DGST, or nothing. With it, full fine-tuning
            beside random weights with as many steps as it has decides, too.
        more_entries: numbers of entries for further runs of DGST, which show what one entry costs.
        kernel_lr_factors: for further runs of DGST, which show what it costs that all weights learn at one rate.
    """
    source = few_shot.source_model
    full = few_shot.tuned("full", "FineTune")
    longer = longer_than(full, LENGTHS[1:])
    decoder = few_shot.tuned("decoder only", "DecoderOnly")
    lora = replace(few_shot.tuned("LoRA", "LoRA"), sizes=(SHOTS,))
    strict, masked = few_shot.dgst("strict", 1), few_shot.dgst("grad_mask", 1)
    varied = [few_shot.dgst("strict", k) for k in more_entries]
    scaled = [
        few_shot.dgst("strict", 1, f"DGST strict k=1, kernels x {factor:g}", dgst__kernel_lr_factor=factor)
        for factor in kernel_lr_factors
    ]
    wider = tuple(replace(one, family=one.name, sizes=(SHOTS,), description=ADDED) for one in (*varied, *scaled))
    held = tuple(
        replace(few_shot.tuned(f"L2-SP {strength:g}", "FineTune", "full", fine_tuning__l2_sp=strength), sizes=(SHOTS,))
        for strength in STRENGTHS
    )
    tuned = (full, decoder, lora, strict, masked)
    ways = {one.name: few_shot.interpolated(one) for one in tuned}
    curves = {one.name: (source.name, *(way.name for way in ways[one.name]), one.name) for one in tuned}
    scratch = Method("scratch", STOCK, few_shot.target, description="trained on the target's cases alone")
    slow = (scratch, strict) if more_steps else ()
    added = {one.name: replace(longer_than(one, more_steps), description=LONGER) for one in slow}
    return Experiment(
        name=name,
        title=title,
        description=few_shot.description,
        originals=(few_shot.shift.origin,),
        folds=few_shot.shift.target_folds,
        methods=(
            source,
            scratch,
            *tuned,
            *wider,
            *added.values(),
            longer,
            *held,
            *(way for one in ways.values() for way in one),
        ),
        tests=few_shot.tests,
        comparisons=(
            *(Comparison(one.name, full.name, margin=margin, is_primary=True) for one in (strict, masked)),
            *(Comparison(full.name, scratch.name, margin=margin, is_primary=True) for _ in slow[:1]),
            *(Comparison(one.name, full.name, size=size) for one in (strict, masked, scratch) for size in (1, 10)),
            *(Comparison(one.name, full.name) for one in (scratch, decoder, lora, *wider, *held)),
            *(Comparison(one.name, strict.name) for one in wider),
            *(Comparison(one.name, full.name, test="source") for one in (decoder, lora, strict, masked, *held)),
            *(Comparison(one.name, full.name, test=test) for one in ways[full.name] for test in ("target", "source")),
            Comparison(longer.name, full.name),
            *(Comparison(one.name, other) for short, one in added.items() for other in (full.name, short)),
            *(Comparison(full.name, source.name, test=test) for test in ("target", "source")),
        ),
        trade_off=TradeOff(
            gained="target",
            kept="source",
            curves={
                **curves,
                "L2-SP": (source.name, *(one.name for one in held), full.name),
                scratch.name: (scratch.name,),
            },
            ours=strict.name,
            theirs=full.name,
        ),
        network=COARSE,
        sizes=(SHOTS, 1, 10),
        more_seeds=more_seeds,
        steps=LENGTHS[:1],
        pilot=Pilot(
            # the two smallest were added when the smallest of the others had been the best for full fine-tuning
            rates=(1e-5, 3e-5, *Pilot().rates),
            first={one.name: 3e-3 for one in (scratch, full, decoder, lora, *scaled)}
            | {one.family_name: 1e-2 for one in (strict, masked)}
            | {one.name: 1e-2 for one in varied},
            test=Test("target validation", few_shot.target, "val"),
            seeds=(0, 1),
            steps=LENGTHS[0],
        ),
        settings=ADAMW,
        patient_of=patient_of,
    )


EXPERIMENT = experiment(
    FewShot(replace(HEART, sizes=HEART_CONTRAST.sizes), source_steps=2000),
    "few_shot_phase",
    "Fine-tuning with few cases in 1,000 steps: the heart's other phase",
)
