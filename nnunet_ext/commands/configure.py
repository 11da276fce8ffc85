"""Write a configuration with settings into a plans file.

The new configuration inherits everything else from an existing one; its results get a folder of their own. Values are
JSON (numbers, true, "text"; plain words need no quotes). Example:

    nnunet_ext configure -d 4 -c 3d_fullres --name 3d_fullres_short num_epochs=50 mixup.alpha=0.2
    nnUNetv2_train 4 3d_fullres_short 0 -tr nnUNetTrainerMixUp

A cascade's stages name each other, so that a configuration of one of them gets the other as well: -c
3d_cascade_fullres --name mine writes mine_lowres and mine, -c 3d_lowres --name mine writes mine and mine_cascade.

Without --name it lists the plans file's configurations and their settings, and says which of them have gone since they
were written.
"""

import argparse
import json
import shlex
import sys
from pathlib import Path

from nnunet_ext.arguments import add_plans_options, parse_settings
from nnunet_ext.errors import UserError
from nnunet_ext.nnunet_folders import preprocessed_folder
from nnunet_ext.plans.cascades import derived
from nnunet_ext.plans.plans_file import (
    add_configurations,
    check_configuration_name,
    read_plans,
    vanished_configurations,
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_plans_options(parser)
    parser.add_argument(
        "-c", "--configuration", default="3d_fullres", help="what to inherit from (default: %(default)s)"
    )
    parser.add_argument("--name", help="name of the new configuration")
    parser.add_argument("--force", action="store_true", help="replace a configuration of that name")
    parser.add_argument("settings", nargs="*", metavar="KEY=VALUE", help="a setting; a dot leads into a section")


def run(args: argparse.Namespace) -> int:
    from nnunet_ext.plans.settings import KEY, configured_settings, merged, validated_settings

    file = preprocessed_folder(args.dataset) / f"{args.plans}.json"
    plans = read_plans(file)
    if args.name is None and args.settings:
        raise UserError("Settings are given but no --name for the configuration that is to hold them. Add --name.")
    if args.name is None:
        if args.force:
            raise UserError("--force replaces a configuration. Add its --name, or leave --force out.")
        list_configurations(file)
        return 0
    if args.name == args.configuration:
        raise UserError(
            f"A configuration cannot inherit from itself: --name and -c are both {args.name!r}. Choose another name."
        )
    check_configuration_name(args.name)
    settings = parse_settings(args.settings)
    inherited = configured_settings(plans, args.configuration)
    validated_settings(merged(inherited, settings), where=f"configuration {args.name!r}")

    command = ["nnunet_ext", "configure", "-d", args.dataset, "-p", args.plans, "-c", args.configuration]
    command += ["--name", args.name, *args.settings]
    added = derived(plans["configurations"], args.configuration, args.name, {KEY: settings})
    is_new = add_configurations(file, added, command=shlex.join(command), force=args.force)
    if merged(inherited, settings).get("optimizer") == "adamw" and (unused := {"momentum", "nesterov"} & set(settings)):
        print(f"Note: {' and '.join(sorted(unused))}: AdamW has no such setting, so that this changes nothing.")
    for name in added:
        print(f"{'Wrote' if is_new else 'Already there:'} configuration {name} in {file}")
    if len(added) > 1:
        print(f"They are the stages of a cascade. Train them in this order, by the same trainer: {', '.join(added)}.")
    tell_vanished(vanished_configurations(file))
    return 0


def list_configurations(file: Path) -> None:
    """Print every configuration of a plans file with the settings it would train with."""
    from nnunet_ext.plans.settings import configured_settings

    plans = read_plans(file)
    for name in plans["configurations"]:
        settings = configured_settings(plans, name)
        print(f"{name}: {json.dumps(settings) if settings else 'no settings'}")
    tell_vanished(vanished_configurations(file))


def tell_vanished(vanished: dict[str, str]) -> None:
    """Say which configurations have gone, and how to have them back."""
    for name, command in vanished.items():
        message = f"Configuration {name} was written here earlier and has gone. To have it back: {command}"
        print(message, file=sys.stderr)
