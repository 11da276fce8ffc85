"""What to try with a dataset, in which order: the advice that applies, with its commands and times."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from nnunet_ext.advice import VERDICTS, Advice, Facts
from nnunet_ext.diagnosis.step_times import FEATURES, StepTime
from nnunet_ext.errors import UserError
from nnunet_ext.messages import counted, size
from nnunet_ext.nnunet_folders import dataset_number, preprocessed_folder
from nnunet_ext.nnunet_names import EPOCHS, PLANS, SPLITS
from nnunet_ext.plans.plans_file import read_plans
from nnunet_ext.plans.quick import BASE_FEATURES, MIN_BATCH, SETTINGS, VOXELS_PER_PATCH
from nnunet_ext.preprocessing.raw.next_steps import PLANS_OF_TARGET, pretraining_steps
from nnunet_ext.preprocessing.raw.splits import FOLDS

DEFAULT_TARGET_GB = 8  # for which nnU-Net plans
LONGEST_H = 7 * 24  # of a training that is still shown as it is, if nobody says how many hours there are
LEAST_EPOCHS = 50  # of a shortened training; below that the preset learns more in the same time
USUAL_PATCH, USUAL_BATCH = {2: 512, 3: 128}, {2: 12, 3: 2}  # for 8 GB
SHORT, QUICK = "short", "quick"
MERGED = "Dataset998_Merged"  # 999 is that of the dense cases, in the advice on a merged dataset

Probe = Callable[[int, int], StepTime]
"""The time of a step, for 2 or 3 dimensions and a number of features of the first stage."""


@dataclass(frozen=True)
class Network:
    """What decides how long a step takes: patch in voxels, batch, and whether both are those of plans."""

    patch: tuple[int, ...]
    batch: int
    is_planned: bool = False


@dataclass(frozen=True)
class Step:
    """One thing to try."""

    trainer: str
    is_baseline: bool
    why: str
    needs: str
    commands: Sequence[str]
    hours: float | None  # of one fold; None if it was not to be estimated
    memory_gb: float | None  # at the peak, estimated; None if it is what a source was planned for
    verdict: str
    evidence: str
    results: str


@dataclass(frozen=True)
class Use:
    """What images without labels are for."""

    why: str
    commands: Sequence[str]  # with TARGET for the dataset that has labels
    page: str


@dataclass(frozen=True)
class Schedule:
    """What all trainings share: configuration, plans, device, and how long a stock training of it takes."""

    configuration: str
    plans: str
    device: str
    target_gb: float
    preparation: Sequence[str]  # with {number} of the dataset
    hours: float | None
    epochs: int
    note: str
    whole_hours: float | None = None  # of nnU-Net's own training, with the planned network
    drawn: Mapping[str, str] = field(default_factory=dict)  # by `Advice.dataset`, what draws a fold with {number}


def usual_network(facts: Facts) -> Network:
    """What nnU-Net plans for 8 GB, roughly: its usual patch where the cases are as large."""
    shape = facts.shape[1:] if facts.shape[0] == 1 else facts.shape
    dims = len(shape)
    return Network(tuple(min(side, USUAL_PATCH[dims]) for side in shape), USUAL_BATCH[dims])


def planned_network(name: str, facts: Facts) -> Network | None:
    """Patch and batch of the dataset's plans; None if it was not planned yet."""
    try:
        plans = read_plans(preprocessed_folder(name) / "nnUNetPlans.json")
        planned = plans["configurations"]["2d" if facts.shape[0] == 1 else "3d_fullres"]
        return Network(tuple(int(side) for side in planned["patch_size"]), int(planned["batch_size"]), is_planned=True)
    except (UserError, KeyError, TypeError, ValueError):
        return None


def uses_of_images(name: str, facts: Facts, *, on_cpu: bool) -> list[Use]:
    """What a dataset of images without labels is for, beside a dataset with labels, TARGET."""
    number, configuration = dataset_number(name), "2d" if facts.shape[0] == 1 else "3d_fullres"
    device = " -device cpu" * on_cpu
    model = f"$nnUNet_results/{name}/nnUNetTrainerModelsGenesis__{PLANS_OF_TARGET}__{configuration}"
    own = f"{configuration}_pretrained"  # the folder of a model does not tell what it started from
    train = f"nnUNetv2_train TARGET {own} 0 -tr nnUNetTrainerConfigurable"
    return [
        Use(
            "Pre-training, with the plans of TARGET, which is then trained on from these weights.",
            [
                "nnUNetv2_plan_and_preprocess -d TARGET",
                *pretraining_steps(number, configuration, device),
                f"nnunet_ext configure -d TARGET -c {configuration} --name {own}",
                f'{train} -pretrained_weights "{model}/fold_all/checkpoint_final.pth"{device}',
            ],
            "docs/techniques/pretraining.md",
        ),
        Use(
            "Merging with TARGET, and advice on what to try with the merged dataset.",
            [f"nnunet_ext merge TARGET {number} -o {MERGED}", f"nnunet_ext advise -d {dataset_number(MERGED)}"],
            "docs/choose.md",
        ),
        Use(
            "Self-training: a model of TARGET labels these images, and a second one learns from both.",
            [
                f"nnunet_ext self-train -d {number} --with TARGET -c {configuration} -tr nnUNetTrainerConfigurable "
                "--id 601 -o SELF_TRAINING"
            ],
            "docs/how-to/self-training.md",
        ),
    ]


def has_folds(folder: Path) -> bool:
    """Whether a raw dataset has folds already: its own, which planning takes over, or those in nnUNet_preprocessed."""
    try:
        return (folder / SPLITS).is_file() or (preprocessed_folder(folder.name) / SPLITS).is_file()
    except UserError:  # the variable is not set
        return False


def advice_for(facts: Facts, techniques: Iterable[Any]) -> list[Advice]:
    """What applies, the baseline first, then by what was shown; in the order of the techniques where that is equal.

    Nothing applies to a dataset without labels, whose use is in other trainings than its own: see `uses_of_images`.
    """
    if facts.placeholders:
        return []
    applying = [advice for technique in techniques for advice in technique.advice if advice.applies(facts)]
    return sorted(applying, key=lambda advice: (not advice.is_baseline, VERDICTS.index(advice.verdict)))


def schedule_for(
    advice: Sequence[Advice],
    *,
    network: Network,
    probe: Probe | None,
    hours: float | None,
    gpu_gb: float | None,
    on_cpu: bool,
) -> Schedule:
    """A configuration whose longest training fits the hours, and plans whose largest one fits the GPU.

    Args:
        advice: what is to be trained.
        network: of the planned configuration.
        probe: gives the time of a step; None to leave times out.
        hours: that there are for one training; None for as long as nnU-Net takes, up to a week.
        gpu_gb: memory of the GPU; None if it is not known.
        on_cpu: whether trainings run on the CPU.
    """
    dims = len(network.patch)
    base, device = ("2d" if dims == 2 else "3d_fullres"), " -device cpu" * on_cpu
    plan, plans, target = (
        f"nnUNetv2_plan_and_preprocess -d {{number}} -c {base}",
        PLANS,
        float(DEFAULT_TARGET_GB),
    )
    largest = max(one.memory for one in advice)
    if gpu_gb is not None and gpu_gb < largest * DEFAULT_TARGET_GB:
        target = max(1, int(gpu_gb / largest * 10) / 10)
        plans = f"nnUNetPlans_{target:g}GB"
        plan += f" -gpu_memory_target {target:g} -overwrite_plans_name {plans}"
    option = "" if plans == PLANS else f" -p {plans}"
    if probe is None:
        return Schedule(base, plans, device, target, [plan], None, EPOCHS, "")
    step = probe(dims, FEATURES)
    full = step.hours(network.patch, network.batch, epochs=EPOCHS)
    known = "of the plans" if network.is_planned else "that nnU-Net usually plans"
    basis = f"Times are for one fold, {step.basis}; network and patch ({size(network.patch)}) {known}."
    longest = max(one.time for one in advice)
    budget = LONGEST_H if hours is None else hours
    if full * max(one.time * _own_epochs(one) / EPOCHS for one in advice) <= budget:
        note = " ".join([basis, *_own_lengths(advice)])
        return Schedule(base, plans, device, target, [plan], full, EPOCHS, note, full)
    too_long = f"{EPOCHS} epochs would take {in_words(full * longest)} with the slowest of these trainers."
    epochs = int(EPOCHS * budget / (full * longest))
    if epochs >= LEAST_EPOCHS and (hours is not None or not on_cpu):  # who has only a CPU seldom wants a week of it
        name = f"{base}_{SHORT}"
        settings = _settings_when_short(advice, epochs)
        shorter = f"nnunet_ext configure -d {{number}}{option} -c {base} --name {name} num_epochs={epochs}{settings}"
        note = f"{basis} {too_long} All are shortened alike, to {epochs}, so that they can be compared."
        return Schedule(name, plans, device, target, [plan, shorter], full * epochs / EPOCHS, epochs, note, full)
    name, quick = f"{base}_{QUICK}", probe(dims, BASE_FEATURES)
    spent = quick.hours(
        [VOXELS_PER_PATCH[dims]],
        MIN_BATCH,
        epochs=SETTINGS["num_epochs"],
        steps=SETTINGS["num_iterations_per_epoch"],
        validation=SETTINGS["num_val_iterations_per_epoch"],
    )
    note = f"{basis} {too_long} The preset quick, a small network, compares methods; it is no model to use."
    if others := [one.trainer for one in advice if one.has_own_network]:
        note += f" It is not for {' and '.join(others)}, with the network of the source: they are no part of that."
    if spent * longest > budget:
        note += f" It takes up to {in_words(spent * longest)}, which is longer than you have."
    epochs = SETTINGS["num_epochs"]
    preparation = [plan, f"nnunet_ext plan -d {{number}}{option} --preset quick -c {base}"]
    if settings := _settings_when_short(advice, epochs):
        preset, name = name, f"{name}_{SHORT}"
        preparation.append(f"nnunet_ext configure -d {{number}}{option} -c {preset} --name {name}{settings}")
    return Schedule(name, plans, device, target, preparation, spent, epochs, note, full)


def _settings_when_short(advice: Sequence[Advice], epochs: int) -> str:
    """What a training of so few epochs sets beside these, for each trainer that needs it, with a space before each."""
    return "".join(f" {one.when_short.format(third=epochs // 3)}" for one in advice if one.when_short)


def _own_epochs(one: Advice) -> int:
    """How many epochs it trains where no setting says it."""
    return EPOCHS if one.epochs is None else one.epochs


def _own_lengths(advice: Sequence[Advice]) -> list[str]:
    """What is to be said of trainers whose own schedules are not as long as nnU-Net's, in a sentence, if there are."""
    other = [one for one in advice if _own_epochs(one) != EPOCHS and not one.has_own_network]
    if not other:
        return []
    lengths = ", ".join(f"{one.trainer} {one.epochs} epochs" for one in other)
    alike = "give both the same num_epochs by nnunet_ext configure"
    return [f"By default {lengths}, nnU-Net {EPOCHS}: to compare them, {alike}."]


def _hours(one: Advice, schedule: Schedule) -> float | None:
    """How long a training takes, with the epochs and the network of its commands."""
    if schedule.hours is None or schedule.whole_hours is None:
        return None
    if one.has_own_network or schedule.epochs == EPOCHS:
        epochs = _own_epochs(one) if schedule.epochs == EPOCHS else schedule.epochs
        return schedule.whole_hours * epochs / EPOCHS * one.time
    return schedule.hours * one.time


def cases_of(advice: Iterable[Advice], facts: Facts) -> dict[str, int]:
    """How many cases each dataset of the advice has, by `Advice.dataset`.

    A dataset that is yet to be made has the dense cases, or the scribbled ones where there are none. Of the cases that
    have a set of labels the number is not known: 0.
    """
    apart = facts.dense or (0 if facts.partial else facts.scribbled)
    return {one.dataset: apart if one.dataset else facts.cases for one in advice}


def with_folds(schedule: Schedule, cases: Mapping[str, int]) -> Schedule:
    """A schedule that draws a fold first where there are too few cases for nnU-Net's.

    Args:
        schedule: of the advice.
        cases: how many there are in each dataset without folds, by `Advice.dataset`.
    """
    notes, few = [schedule.note], {key: count for key, count in cases.items() if 1 < count < FOLDS}
    if few:
        notes.append(f"nnU-Net draws {FOLDS} folds and stops if there are fewer cases. nnunet_ext split draws fold 0.")
    if 1 in cases.values():
        alone = "A single case cannot be divided into training and validation: the trainings stop."
        notes.append(f"{alone} Annotate more cases.")
    drawn = {key: f"nnunet_ext split -d {{number}} --shots {count - 1}" for key, count in few.items()}
    return replace(schedule, drawn=drawn, note=" ".join(filter(None, notes)))


def steps(advice: Sequence[Advice], schedule: Schedule, *, name: str) -> list[Step]:
    """The advice with its commands, times and memory."""
    option = "" if schedule.plans == PLANS else f" -p {schedule.plans}"
    base = schedule.configuration.removesuffix(f"_{SHORT}").removesuffix(f"_{QUICK}")
    names = {"name": name, "base": base, "c": schedule.configuration, "p": schedule.plans, "plans": option}
    names |= {
        "device": schedule.device,
        "epochs": "" if schedule.epochs == EPOCHS else f" num_epochs={schedule.epochs}",
    }
    prepared: set[str] = set()

    def commands(one: Advice) -> list[str]:
        number = one.dataset or dataset_number(name)
        # settings are read by trainers of this package alone
        is_stock = one.is_baseline and schedule.configuration == base
        trainer = one.trainer if is_stock or not one.is_baseline else "nnUNetTrainerConfigurable"
        chosen = "" if is_stock else f" -tr {trainer}"
        model = f"$nnUNet_results/{name}/{trainer}__{schedule.plans}__{schedule.configuration}"
        train = f"nnUNetv2_train {number} {schedule.configuration} 0{chosen}{option}{schedule.device}"
        check = [] if one.is_baseline else [f"nnunet_ext check -d {number} --trainer {one.trainer}"]
        draw = [schedule.drawn[one.dataset]] if one.dataset in schedule.drawn else []
        preparation = [] if number in prepared else [*schedule.preparation, *draw]
        prepared.add(number)
        lines = [*check, *preparation, *one.commands]
        return [line.format(train=train, model=model, number=number, **names) for line in lines]

    return [
        Step(
            one.trainer,
            one.is_baseline,
            one.why,
            one.needs,
            commands(one),
            _hours(one, schedule),
            None if one.has_own_network else schedule.target_gb * one.memory,
            one.verdict,
            one.evidence,
            one.results,
        )
        for one in advice
    ]


def described(facts: Facts) -> str:
    """A dataset in a sentence."""
    kinds = {"dense": facts.dense, "scribbled": facts.scribbled, "with some slices labelled": facts.sliced}
    kinds |= {"with some of the labels": facts.partial, "without annotation": facts.unlabelled}
    told = ", ".join(f"{count} {kind}" for kind, count in kinds.items() if count)
    parts = [f"{counted(facts.cases, 'case')} ({told})"]
    unknown = "which cases are of one patient is not known"
    parts.append(unknown if facts.patients is None else counted(facts.patients, "patient"))
    labels = counted(facts.labels, "region" if facts.has_regions else "label")
    parts.append("placeholders in place of labels" if facts.placeholders else labels)
    parts.append(f"median size {size(facts.shape)} voxels")
    if facts.priors is not None:
        parts.append(f"{facts.priors} with a prior scan, {'with' if facts.has_prior_labels else 'without'} its labels")
    if facts.missing_instances and not facts.placeholders:
        parts.append("instances are missing in the labels")
    if facts.wrong_labels and not facts.placeholders:
        parts.append("some labels are wrong")
    return "; ".join(parts) + "."


def in_words(hours: float) -> str:
    """A time in minutes, hours or days."""
    if hours < 1:
        return counted(max(1, round(hours * 60)), "minute")
    return counted(round(hours), "hour") if hours < 48 else counted(round(hours / 24), "day")


def as_json(facts: Facts, found: Sequence[Step], uses: Sequence[Use], note: str) -> dict[str, Any]:
    """All of it, for programs."""
    told = {"steps": [asdict(step) for step in found], "uses": [asdict(use) for use in uses]}
    return {"facts": {**asdict(facts), "cases": facts.cases}, "times": note, **told}
