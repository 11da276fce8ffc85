"""Labels that are missing in some cases: the hippocampus, as if its cases came from several datasets."""

from functools import partial

from benchmarks.data.folds import PatientFolds
from benchmarks.data.hippocampus import ORIGIN, groups
from benchmarks.data.missing_labels import PretendedSources
from benchmarks.data.raw import linked
from benchmarks.engine.experiment import Dataset
from benchmarks.experiments.partial_labels import experiment

EXPERIMENT = experiment(
    PretendedSources(
        Dataset(891, "Hippocampus", partial(linked, name=ORIGIN)),
        groups=groups,
        folds=PatientFolds(groups, pilot_train=4, most_tested=20, pilot_size=20),
        # each label is missing in two fifths of the cases, and a fifth has both
        sources=(("Anterior",), ("Posterior",), ("Anterior",), ("Posterior",), ("Anterior", "Posterior")),
        pattern=".+",
    ),
    name="partial_labels_hippocampus",
    title="Labels missing in some cases: the hippocampus",
    originals=(ORIGIN,),
    steps=1000,
)
