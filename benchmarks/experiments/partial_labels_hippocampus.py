"""Labels that are missing in some cases: the hippocampus, as if its cases came from several datasets."""

from functools import partial

from benchmarks.data.folds import PatientFolds
from benchmarks.data.hippocampus import ORIGIN, groups_of_cases, person_of
from benchmarks.data.missing_labels import PretendedSources
from benchmarks.data.raw import linked
from benchmarks.engine.experiment import Comparison, Dataset, Experiment, Pilot, Test
from benchmarks.experiments.partial_labels import comparisons, longer, our_methods, stock_methods

DATA = PretendedSources(
    Dataset(891, "Hippocampus", partial(linked, name=ORIGIN)),
    groups=groups_of_cases,
    folds=PatientFolds(groups_of_cases, pilot_train=4, most_tested=20, pilot_size=20),
    # each label is missing in two fifths of the cases, and a fifth has both
    sources=(("Anterior",), ("Posterior",), ("Anterior",), ("Posterior",), ("Anterior", "Posterior")),
    pattern=".+",
)
STEPS, PARTS = 1000, len(DATA.parts)
AS_LONG = ("background", "whole cases")

EXPERIMENT = Experiment(
    name="partial_labels_hippocampus",
    title="Labels missing in some cases: the hippocampus",
    description=f"{DATA.description} All methods have the learning rate that was found for stock: their network and "
    "optimizer are the same. Added when all others had been scored: `background` and `whole cases` at 2,000 steps, "
    "and later `full labels` beside `whole cases`. "
    "Found later: the two sides of a brain are two cases, so that 3 of the 20 cases that seed 0 tests have their other "
    "side in training, and 3 of the 60 that all seeds test have it among those that the learning rate was searched on; "
    "intervals are over persons.",
    originals=(ORIGIN,),
    folds=DATA.folds,
    methods=(*stock_methods(DATA, STEPS, AS_LONG), *our_methods(DATA, 10, "stock", steps=(STEPS, PARTS * STEPS))),
    tests=(Test("all labels", DATA.complete),),
    comparisons=(
        *comparisons(are_primary=True),
        *longer(STEPS, PARTS, AS_LONG),
        *(Comparison("full labels", "whole cases", steps=(steps, steps)) for steps in (STEPS, PARTS * STEPS)),
    ),
    sizes=(24,),
    steps=(STEPS,),
    pilot=Pilot(first=3e-3, steps=1000),
    patient_of=person_of,
)
