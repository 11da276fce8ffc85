"""Scribble supervision on real scribbles of the heart."""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from benchmarks.data.acdc import MASKS, ORIGIN, patient_of, scan_groups, write_labels
from benchmarks.data.folds import PatientFolds
from benchmarks.data.raw import pseudo_labelled
from benchmarks.engine.experiment import Comparison, Dataset, Experiment, Method, Pilot, Test
from benchmarks.engine.presets import ADAMW, COARSE, STOCK

TDNET, DMPLS = "nnUNetTrainerTDNet", "nnUNetTrainerDMPLS"
SCRIBBLES = Dataset(851, "ACDCScribbles", partial(write_labels, is_dense=False))
DENSE = Dataset(852, "ACDCDense", partial(write_labels, is_dense=True), plans_of=SCRIBBLES)

MASKS_OF_PATIENTS = Test("masks", SCRIBBLES, references=MASKS, metrics=("dice", "surface"))
ONE_HEART = replace(MASKS_OF_PATIENTS, name="largest component", options=("--largest-component", "foreground"))


def tdnet(change: str, description: str, settings: Mapping[str, Any]) -> Method:
    """TDNet with something changed."""
    # the loss decides which learning rate is best
    family = "TDNet Dice CE" if "tdnet.supervision" in settings else "TDNet"
    return Method(f"TDNet {change}", TDNET, SCRIBBLES, settings, f"TDNet {description}", family=family)


LENGTHS = (2000, 4000)
CONVERGED = 8000  # added, see the description
PLAIN = Method("stock", STOCK, SCRIBBLES, {}, "nnU-Net with its ignore label", steps=(*LENGTHS, CONVERGED))
LONG = replace(PLAIN, steps=LENGTHS[1:])
TDNET_DICE_CE = replace(
    tdnet("Dice CE", "supervised by nnU-Net's own loss", {"tdnet.supervision": "dice_ce"}), steps=LENGTHS
)


def student(name: str, number: int, teacher: Method, about: str, *, body: str = "", **options: Any) -> Method:
    """A training from the start on what a teacher of the same seed says about its own training cases, nearly dense."""
    make = partial(pseudo_labelled, source=SCRIBBLES.number, largest_component=body)
    taught = Dataset(number, f"ACDCTaughtBy{teacher.slug.title()}", make, plans_of=SCRIBBLES, teacher=teacher)
    chosen = {"trainer": STOCK, "family": "full supervision", **options}
    return Method(name, data=taught, description=about, **chosen)


STUDENTS = ("self-training", "taught by TDNet", "TDNet taught by stock")
LONGER, ONE_PIECE = "self-training, longer", "self-training, one piece"
CANDIDATES = ("TDNet", "TDNet Dice CE", *STUDENTS)
TAUGHT = ("self-training", "TDNet taught by stock")
"""Students are compared with a stock training as long as teacher and student together."""

gain = partial(Comparison, theirs="stock", margin=0.01)
gain_in_distance = partial(Comparison, theirs="stock", metric="hd95", margin=0.2, is_relative=True)
DECIDING = (
    *(gain(name, is_primary=True) for name in ("TDNet", "TDNet Dice CE")),
    *(gain(name, is_primary=True, steps=LENGTHS) for name in TAUGHT),
)
DOUBLED = Comparison("stock", "stock", steps=LENGTHS[::-1])
ADDED = (
    Comparison("stock", "stock", steps=(CONVERGED, LENGTHS[1])),
    gain("TDNet Dice CE", steps=(LENGTHS[1], LENGTHS[1])),
    gain(LONGER, steps=(LENGTHS[1], CONVERGED)),
    gain(ONE_PIECE, steps=LENGTHS),
    Comparison(ONE_PIECE, "self-training"),
)

EXPERIMENT = Experiment(
    name="scribbles",
    title="Scribble supervision: real scribbles of the heart",
    description="Right ventricle, myocardium and left ventricle in cine MRI, both phases of each patient, learned from "
    "experts' scribbles and scored against full masks of other patients. Students, whose labels are nearly dense, have "
    "the learning rate that was found for full masks. Added when two seeds had been scored, as stock gains more than "
    "0.01 by 4,000 steps in place of 2,000: `stock` with 8,000, `TDNet Dice CE` with 4,000, `self-training, longer`, "
    "and the students' HD95 beside that of stock trained as long as teacher and student together. Added when four "
    "seeds had been scored, and the scores after removing islands of these had been looked at: the largest component "
    "of each prediction alone, as nnU-Net's postprocessing keeps it, and `self-training, one piece`.",
    originals=(ORIGIN,),
    folds=PatientFolds(scan_groups, pilot_train=4, most_tested=16, pilot_size=16),
    methods=(
        PLAIN,
        Method("TDNet", TDNET, SCRIBBLES, {}, "three decoders of dilation 1, 3 and 6 and their consistency"),
        Method("full supervision", STOCK, DENSE, {}, "nnU-Net on full masks: the bound", steps=LENGTHS),
        TDNET_DICE_CE,
        student("self-training", 860, PLAIN, "nnU-Net on the pseudo labels of `stock` and the scribbles"),
        student(
            "TDNet taught by stock",
            860,
            PLAIN,
            "`TDNet Dice CE` on the pseudo labels of `stock`",
            trainer=TDNET,
            settings=TDNET_DICE_CE.settings,
            family=TDNET_DICE_CE.name,
        ),
        student(LONGER, 880, LONG, "`self-training` with twice the steps, of teacher and student", steps=LENGTHS[1:]),
        student(ONE_PIECE, 890, PLAIN, "`self-training` on pseudo labels without islands", body="foreground"),
        Method("partial CE", "nnUNetTrainerPartialCE", SCRIBBLES, {}, "cross-entropy of the scribbled voxels alone"),
        Method("DMPLS", DMPLS, SCRIBBLES, {}, "two decoders and pseudo labels mixed of both"),
        Method("DMPLS Dice CE", DMPLS, SCRIBBLES, {"dmpls.supervision": "dice_ce"}, "DMPLS supervised by Dice and CE"),
        student("taught by TDNet", 870, TDNET_DICE_CE, "nnU-Net on the pseudo labels of `TDNet Dice CE`"),
        tdnet(
            "short ramp",
            "supervised by nnU-Net's own loss, with consistency at its full weight after a third of the training",
            {**TDNET_DICE_CE.settings, "tdnet.ramp_epochs": lambda epochs: max(1, round(epochs / 3))},
        ),
        tdnet("same dilation", "with dilation 1 in all decoders", {"tdnet.dilations": [1, 1, 1]}),
        tdnet("small dilations", "with dilations 1, 2 and 3, as patches are small", {"tdnet.dilations": [1, 2, 3]}),
        tdnet("without MPCC", "without the consistency of projections", {"tdnet.mpcc_weight": 0.0}),
    ),
    tests=(MASKS_OF_PATIENTS, ONE_HEART),
    columns=(("masks", "dice"), ("masks", "hd95"), ("largest component", "dice"), ("largest component", "hd95")),
    comparisons=(
        *DECIDING,
        *(gain(name) for name in STUDENTS),
        gain("taught by TDNet", steps=LENGTHS),
        *(gain_in_distance(name) for name in CANDIDATES),
        *(Comparison(name, "stock") for name in ("partial CE", "DMPLS", "DMPLS Dice CE")),
        *(gain_in_distance(name, steps=LENGTHS) for name in TAUGHT),
        Comparison("TDNet taught by stock", "self-training"),
        Comparison("TDNet Dice CE", "TDNet"),
        Comparison("TDNet short ramp", "TDNet Dice CE"),
        *(Comparison("TDNet", name) for name in ("partial CE", "TDNet same dilation", "TDNet without MPCC")),
        Comparison("TDNet small dilations", "TDNet"),
        Comparison("full supervision", "stock"),
        Comparison("full supervision", "full supervision", steps=LENGTHS[::-1]),
        DOUBLED,
        *ADDED,
        gain_in_distance(LONGER, steps=(LENGTHS[1], CONVERGED)),
        gain_in_distance("TDNet Dice CE", test=ONE_HEART.name),
        Comparison(ONE_PIECE, "self-training", "hd95"),
        *(replace(one, test=ONE_HEART.name, is_primary=False) for one in (*DECIDING, DOUBLED, *ADDED)),
    ),
    network=COARSE,
    sizes=(None,),
    more_seeds=(3, 4),
    steps=LENGTHS[:1],
    pilot=Pilot(rates=(2.5e-4, 5e-4, 1e-3, 2e-3, 4e-3, 8e-3, 1.6e-2, 3.2e-2), first=4e-3, seeds=(0, 1), steps=1000),
    settings=ADAMW,
    patient_of=patient_of,
)
