"""What a self-training was asked to do, what its rounds gave, and the rule by which it stops."""

from collections.abc import Sequence
from dataclasses import asdict, field
from pathlib import Path

from pydantic.dataclasses import dataclass

from nnunet_ext.errors import UserError
from nnunet_ext.evaluation.bootstrap import Estimate
from nnunet_ext.files import write_json
from nnunet_ext.formats.evaluation import OnePiece
from nnunet_ext.formats.typed import read_typed
from nnunet_ext.jobs.sweep import KNOWN_KEYS, Fold
from nnunet_ext.messages import changed_fields

STATE = "self_training.json"
MAKER = "nnunet_ext self-train"


@dataclass(frozen=True, config=KNOWN_KEYS)
class SelfTrainingRequest:
    """What decides the result. A folder is for one request."""

    unlabelled: str  # DatasetXXX_Name, as the others
    labelled: str
    held_out: str  # DatasetXXX_Name:CASES, as `nnunet_ext evaluate --on` takes it
    first_id: int  # of the rounds' datasets
    trainer: str  # class name
    configuration: str
    plans: str  # the plans file's name
    fold: Fold  # of the students
    teacher: str | None  # model folder of round 0; None to train it on the labelled cases
    teacher_folds: list[Fold]
    continue_from_teacher: bool  # whether a student starts from its teacher's weights
    threshold: float
    least_share: float
    margin: float  # Dice that a round must gain
    mirroring: bool
    patients: str | None  # file
    resamples: int
    folders: dict[str, str]  # nnU-Net's, by the variable's name, absolute
    largest_component: OnePiece | None = None  # what is one piece, so that predicted islands are background

    def dataset(self, number: int) -> str:
        """The dataset that the student of a round is trained on."""
        name = self.labelled.partition("_")[2]
        return self.labelled if number == 0 else f"Dataset{self.first_id + number - 1:03d}_{name}Round{number}"


@dataclass(frozen=True, config=KNOWN_KEYS)
class Labelling:
    """What a teacher has labelled."""

    cases: int  # that the student is trained on
    left_out: int
    share: float  # of the voxels that nobody annotated, those that got a label
    agreement: float | None  # of the foreground that the teacher sees, what was labelled as such; mean over the cases
    added: dict[str, int]  # voxels by label, without the background

    @property
    def is_empty(self) -> bool:
        """Whether a student would learn nothing from it: no voxel of foreground was labelled."""
        return not any(self.added.values())


@dataclass(frozen=True, config=KNOWN_KEYS)
class Round:
    """A teacher's labels, the student that was trained on them, and its scores; round 0 has no labels."""

    number: int
    dataset: str
    model: str  # folder
    folds: list[Fold]
    labelling: Labelling | None = None
    dice: Estimate | None = None  # mean over the labels; None if nothing was labelled, and so nothing trained
    by_label: dict[str, Estimate] = field(default_factory=dict)
    difference: Estimate | None = None  # mean over the held-out cases of its Dice minus that of the best before


@dataclass(frozen=True, config=KNOWN_KEYS)
class State:
    """The content of self_training.json."""

    request: SelfTrainingRequest
    begun: int = 0  # rounds
    done: dict[str, str] = field(default_factory=dict)  # commands that have succeeded, by what they are for
    rounds: list[Round] = field(default_factory=list)  # that have ended
    remarks: list[str] = field(default_factory=list)

    def write(self, folder: Path) -> None:
        write_json(folder / STATE, asdict(self))


def read_state(folder: Path, request: SelfTrainingRequest) -> State:
    """The state of a folder; a UserError if another request was begun there."""
    state = read_typed(State, folder / STATE, maker=MAKER)
    if different := changed_fields(state.request, request):
        raise UserError(f"{folder} holds another self-training:{different}\nChoose another folder.")
    numbers = [one.number for one in state.rounds]
    if numbers != list(range(len(numbers))):
        raise UserError(
            f"{folder / STATE} has the rounds {', '.join(map(str, numbers))}, not 0, 1, 2 and so on. Begin anew in "
            "another folder."
        )
    if state.rounds and state.rounds[0].dice is None:
        raise UserError(f"{folder / STATE}: round 0 has no score. Begin anew in another folder.")
    return state


def has_improved(one: Round, margin: float) -> bool:
    """Whether a round is better than the best one before it: its mean difference is above the margin."""
    return one.difference is not None and one.difference.value > margin


def best_round(rounds: Sequence[Round], margin: float) -> Round:
    """The last round that has improved; the first one if none has."""
    return next((one for one in reversed(rounds) if has_improved(one, margin)), rounds[0])


def why_stopped(rounds: Sequence[Round], margin: float, most: int) -> str:
    """Why there is no next round, as a sentence; empty if there is one.

    Args:
        rounds: those that have ended.
        margin: Dice that a round must gain.
        most: rounds with a student.
    """
    last = rounds[-1] if rounds else None
    if last is None or (last.number == 0 and most > 0):
        return ""
    if last.dice is None:
        labelling = last.labelling
        found = "no voxel became foreground"
        if labelling is not None and labelling.cases == 0 and labelling.left_out > 0:
            found = f"--least-share left out all of its {labelling.left_out} cases"
        elif labelling is not None and labelling.share == 0:
            found = "every voxel is uncertain"
        return f"The teacher of round {last.number} labelled nothing to learn from: {found}."
    if last.number > 0 and not has_improved(last, margin):
        return f"Round {last.number} has not improved the held-out cases by more than {margin:g} Dice."
    return f"Round {last.number} was the last one that was asked for." if last.number >= most else ""
