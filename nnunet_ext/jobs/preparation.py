"""What must be there before several trainings begin at the same time."""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nnunet_ext.claims import only_run
from nnunet_ext.errors import UserError
from nnunet_ext.files import write_json
from nnunet_ext.formats.own_key import KEY
from nnunet_ext.formats.splits import check_has_folds, read_splits
from nnunet_ext.jobs.sweep import SweepRequest, seeded_name
from nnunet_ext.nnunet_names import SPLITS
from nnunet_ext.plans.cascades import NEXT, PREVIOUS, inherited_value
from nnunet_ext.plans.plans_file import PATIENCE_S, add_configurations, read_plans
from nnunet_ext.plans.settings import configured_settings, merged, validated_settings
from nnunet_ext.preprocessing.raw.splits import FOLDS, cross_validation, find_dataset, preprocessed_cases


def prepare(request: SweepRequest) -> None:
    """Write the configurations of the seeds, and the folds; a UserError says what they lack."""
    prepare_configurations(request)
    numbers = [int(fold) for fold in request.folds if fold != "all"]
    if numbers:
        folder = _preprocessed(request)
        prepare_splits(folder)
        check_folds(folder, numbers)


def prepare_configurations(request: SweepRequest) -> None:
    """Write a configuration for each seed into the plans, by what ``nnunet_ext configure`` would write.

    A UserError says if the plans or the configuration are not there, its settings are wrong, a configuration of that
    name and other content is, or it is a stage of a cascade.
    """
    file = _preprocessed(request) / f"{request.plans}.json"
    plans = read_plans(file)
    base = request.configuration
    inherited = configured_settings(plans, base)
    seeds = {seeded_name(base, seed): seed for seed in request.seeds or []}
    validated_settings(inherited, where=f"configuration {base!r}")
    if seeds:
        check_is_no_stage(request, plans["configurations"])
    contents: dict[str, Any] = {name: {"inherits_from": base, KEY: {"seed": seed}} for name, seed in seeds.items()}
    for name, content in contents.items():
        validated_settings(merged(inherited, content[KEY]), where=f"configuration {name!r}")
        if plans["configurations"].get(name, content) != content:
            raise UserError(
                f"{file} has a configuration {name!r} that is not {base!r} with the seed {seeds[name]}. Rename it, or "
                "use another seed."
            )
    for name, content in contents.items():
        command = ["nnunet_ext", "configure", "-d", request.dataset, "-p", request.plans, "-c", base]
        command += ["--name", name, f"seed={seeds[name]}"]
        add_configurations(file, {name: content}, command=shlex.join(command))


def check_is_no_stage(request: SweepRequest, configurations: Mapping[str, Any]) -> None:
    """Raise a UserError if the configuration is a stage of a cascade, which a seed alone would tear from the other."""
    base = request.configuration
    if inherited_value(configurations, base, PREVIOUS) is not None:
        stage, derive_from = "second stage of a cascade, which reads the predictions of a first stage", base
    elif following := inherited_value(configurations, base, NEXT):
        stage = "first stage of a cascade, whose predictions are for a second stage"
        derive_from = base if isinstance(following, str) else following[0]  # of several, configure asks for the second
    else:
        return
    command = f"nnunet_ext configure -d {request.dataset} -p {request.plans} -c {derive_from} --name NAME seed=N"
    raise UserError(
        f"Configuration {base!r} is the {stage} of its own. Write a pair for each seed ({command}), sweep the first "
        "stages, then the second ones, without --seeds."
    )


def check_folds(folder: Path, numbers: Sequence[int]) -> None:
    """Raise a UserError for a fold that splits_final.json in a dataset's preprocessed folder does not have.

    nnU-Net would draw one at random, by cases: with several scans of a patient, some would be in both of its parts.
    """
    splits = folder / SPLITS
    if not splits.is_file():
        return
    add = "Name folds that are there, or add some with nnunet_ext split --append."
    check_has_folds(read_splits(splits), numbers, file=splits, advice=add)


def prepare_splits(folder: Path) -> None:
    """Write nnU-Net's own folds into a dataset's preprocessed folder if there are none.

    Trainings that begin together would all write them.
    """
    splits = folder / SPLITS
    with only_run(splits, patience_s=PATIENCE_S):
        cases = preprocessed_cases(folder) or find_dataset(folder.name)[1]
        if splits.is_file() or len(cases) < FOLDS:
            return  # nnU-Net's training says what it thinks of too few

        write_json(splits, cross_validation({case: [case] for case in cases}))


def _preprocessed(request: SweepRequest) -> Path:
    """The dataset's folder for this sweep; the variables of this shell may name others."""
    return Path(request.folders["nnUNet_preprocessed"]) / request.dataset
