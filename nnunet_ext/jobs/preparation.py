"""What must be there before several trainings begin at the same time."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from nnunet_ext.errors import UserError
from nnunet_ext.files import write_json
from nnunet_ext.jobs.sweep import Request, seeded_name
from nnunet_ext.plans.plans_file import add_configuration, read_plans
from nnunet_ext.plans.settings import KEY, configured_settings, merged, validated_settings


def prepare_configurations(request: Request) -> None:
    """Write a configuration for each seed into the plans, by what ``nnunet_ext configure`` would write.

    Raises:
        UserError: if the plans or the configuration are not there, its settings are wrong, or a configuration of that
            name and other content is.
    """
    file = Path(request.folders["nnUNet_preprocessed"]) / request.dataset / f"{request.plans}.json"
    plans = read_plans(file)
    base = request.configuration
    inherited = configured_settings(plans, base)
    seeded = {seeded_name(base, seed): {"seed": seed} for seed in request.seeds or []}
    validated_settings(inherited, where=f"configuration {base!r}")
    for name, settings in seeded.items():
        validated_settings(merged(inherited, settings), where=f"configuration {name!r}")
        if plans["configurations"].get(name, content := {"inherits_from": base, KEY: settings}) != content:
            raise UserError(
                f"{file} has a configuration {name!r} that is not {base!r} with the seed {settings['seed']}. Rename it, "
                "or use another seed."
            )
    for name, settings in seeded.items():
        command = ["nnunet_ext", "configure", "-d", request.dataset, "-p", request.plans, "-c", base]
        command += ["--name", name, f"seed={settings['seed']}"]
        add_configuration(file, name, {"inherits_from": base, KEY: settings}, command=shlex.join(command))


def prepare_splits(folder: Path, cases: Sequence[str]) -> None:
    """Write nnU-Net's own five folds if there are no folds, so that trainings that begin together do not all write them.

    Args:
        folder: of the dataset in nnUNet_preprocessed.
        cases: of the dataset, in order. With fewer than five nnU-Net's training has its say.
    """
    splits = folder / "splits_final.json"
    if splits.is_file() or len(cases) < 5:
        return

    from nnunetv2.utilities.crossval_split import generate_crossval_split

    write_json(splits, generate_crossval_split(list(cases), seed=12345, n_splits=5))
