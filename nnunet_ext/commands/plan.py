"""Derive a configuration from planned ones: the presets of this package.

``quick`` is a small configuration that two CPU cores train to a useful result in minutes, for trying things out. It
goes on top of any existing plans and uses their preprocessed data. Prints the name of what it made. Example:

    nnUNetv2_plan_and_preprocess -d 4
    nnunet_ext plan -d 4 --preset quick
    nnUNetv2_train 4 3d_fullres_quick 0 -tr nnUNetTrainerMixUp -device cpu
"""

from __future__ import annotations

import argparse
import shlex

from nnunet_ext.arguments import add_plans_options
from nnunet_ext.commands.configure import tell_vanished
from nnunet_ext.plans import plans_file


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_plans_options(parser)
    parser.add_argument("--preset", choices=["quick"], required=True, help="what to derive")
    parser.add_argument("-c", "--configuration", help="what to derive it from (default: 3d_fullres, or 2d without one)")
    parser.add_argument("--epochs", type=int, help="epochs of 50 steps (default: 20)")
    parser.add_argument("--force", action="store_true", help="replace a configuration of that name and other content")


def run(args: argparse.Namespace) -> int:
    from nnunet_ext.plans.settings import KEY, merged, validated_settings

    file = plans_file.preprocessed_folder(args.dataset) / f"{args.plans}.json"
    plans = plans_file.read_plans(file)
    base = args.configuration or ("3d_fullres" if "3d_fullres" in plans["configurations"] else "2d")
    plans_file.check_configuration(plans, base, file=file)

    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    from nnunet_ext.plans.quick import quick_configuration

    content = quick_configuration(plans, base, PlansManager(plans).get_configuration(base).configuration)
    if args.epochs is not None:
        content[KEY] = merged(content[KEY], {"num_epochs": args.epochs})
    name = f"{base}_{args.preset}"
    validated_settings(content[KEY], where=f"configuration {name!r}")
    command = ["nnunet_ext", "plan", "-d", args.dataset, "--preset", args.preset, "-p", args.plans, "-c", base]
    command += [] if args.epochs is None else ["--epochs", str(args.epochs)]
    plans_file.add_configurations(file, {name: content}, command=shlex.join(command), force=args.force)
    tell_vanished(plans_file.vanished_configurations(file))
    features = content["architecture"]["arch_kwargs"]["features_per_stage"]
    print(f"{name} (patch {content['patch_size']}, batch {content['batch_size']}, features {features}) in {file}")
    return 0
