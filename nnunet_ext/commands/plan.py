"""Derive a configuration from planned ones: a preset of this package, or one that fits public weights.

``--preset quick`` is a small configuration that two CPU cores train in minutes, for trying things out. It goes on top
of any existing plans and uses their preprocessed data. Example:

    nnUNetv2_plan_and_preprocess -d 4
    nnunet_ext plan -d 4 --preset quick
    nnUNetv2_train 4 3d_fullres_quick 0 -tr nnUNetTrainerMixUp -device cpu

``--like CHECKPOINT`` is one with the architecture, patch, spacing and normalisation of a trained model, so that a
training can start from its weights: a checkpoint of nnU-Net v2, a model's folder, a checkpoint of nnssl, or the name of
a source that has no plans in its file (vocomni). Example:

    nnunet_ext plan --like checkpoint_final.pth -d 5
    nnUNetv2_preprocess -d 5 -plans_name nnUNetPlans -c 3d_fullres_like
    nnunet_ext adapt-weights checkpoint_final.pth --to 5 3d_fullres_like -tr nnUNetTrainerFineTune -o start.pth
"""

import argparse
import json
import shlex
from pathlib import Path
from typing import Any

from nnunet_ext.arguments import add_plans_options, add_source_options, positive
from nnunet_ext.claims import only_run
from nnunet_ext.commands.configure import tell_vanished
from nnunet_ext.errors import UserError
from nnunet_ext.files import write_json
from nnunet_ext.messages import some
from nnunet_ext.nnunet_folders import dataset_number, preprocessed_folder
from nnunet_ext.plans import plans_file
from nnunet_ext.plans.plans_file import check_configuration_name


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_plans_options(parser)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--preset", choices=["quick"], help="preset to derive")
    what.add_argument("--like", type=Path, metavar="CHECKPOINT", help="trained model whose weights shall fit")
    parser.add_argument(
        "-c",
        "--configuration",
        help="what to derive it from (default: 3d_fullres, or 2d without one or for a 2D model)",
    )
    parser.add_argument("--epochs", type=int, help="for --preset: epochs of 50 steps (default: 20)")
    parser.add_argument("--name", help="for --like: name of the configuration (default: that of -c with _like)")
    patch = "for --like: patch size in voxels (default: the model's)"
    parser.add_argument("--patch", type=positive, nargs="+", metavar="N", help=patch)
    spacing = "for --like: spacing of the model or of the dataset (default: the model's where it is known)"
    parser.add_argument("--spacing", choices=["like", "data"], help=spacing)
    copy = "for --like: write the configuration into new plans of this name, with the model's intensities for CT "
    copy += "normalisation (default: into the dataset's plans, whose intensities stay)"
    parser.add_argument("--new-plans", metavar="PLANS", help=copy)
    add_source_options(parser)
    parser.add_argument("--force", action="store_true", help="replace a configuration of that name and other content")


def run(args: argparse.Namespace) -> int:
    file = preprocessed_folder(args.dataset) / f"{args.plans}.json"
    plans = plans_file.read_plans(file)
    if args.like and args.epochs is not None:
        raise UserError("--epochs is for --preset. Set the epochs of a configuration with nnunet_ext configure.")
    of_like = {"name": args.name, "patch": args.patch, "spacing": args.spacing, "new-plans": args.new_plans}
    of_like |= {"source": args.reader, "parts": args.parts, "stem": args.stem}
    if args.preset and (given := [option for option, value in of_like.items() if value is not None]):
        raise UserError(
            f"{', '.join(f'--{option}' for option in given)}: for --like, not for --preset. Leave out what is named."
        )
    return _preset(args, file, plans) if args.preset else _like(args, file, plans)


def _preset(args: argparse.Namespace, file: Path, plans: dict[str, Any]) -> int:
    from nnunet_ext.plans.settings import KEY, merged, validated_settings

    base = args.configuration or ("3d_fullres" if "3d_fullres" in plans["configurations"] else "2d")
    plans_file.check_configuration(plans, base, file=file)

    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    from nnunet_ext.formats.plans import require
    from nnunet_ext.plans.quick import quick_configuration

    resolved = PlansManager(plans).get_configuration(base).configuration
    needed = ("patch_size", "spacing", "batch_size", "architecture")
    require(resolved, needed, where=f"Configuration {base!r} in {file}")
    content = quick_configuration(plans, base, resolved)
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


def _like(args: argparse.Namespace, file: Path, plans: dict[str, Any]) -> int:
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    from nnunet_ext.checkpoints.allowed_code import check_named_code
    from nnunet_ext.checkpoints.description import ModelDescription
    from nnunet_ext.checkpoints.fit import check_consistent, source_text
    from nnunet_ext.checkpoints.sources import built_in_source, read_source
    from nnunet_ext.formats.dataset_json import channel_names, read_dataset_json
    from nnunet_ext.formats.plans import require
    from nnunet_ext.plans.like import (
        OF_BASE,
        dimensions_of,
        intensities_of,
        like_configuration,
        matching_channels,
        with_intensities,
    )

    source = built_in_source(args.like) or read_source(args.like, reader=args.reader, parts=args.parts, stem=args.stem)
    check_consistent(source, file=args.like)
    origin = ModelDescription.of(source.checkpoint)
    if origin is None:
        raise UserError(
            f"{args.like} does not say which network it is of, so that no configuration can be made for it. "
            "Name a checkpoint that nnU-Net has written, with its plans."
        )
    manager = PlansManager(dict(origin.plans))
    configuration = manager.get_configuration(origin.configuration)
    check_named_code(manager, configuration)
    theirs = configuration.configuration

    base = args.configuration or ("2d" if dimensions_of(theirs) == 2 else "3d_fullres")
    plans_file.check_configuration(plans, base, file=file)
    resolved = PlansManager(plans).get_configuration(base).configuration
    require(resolved, OF_BASE, where=f"Configuration {base!r} in {file}")
    name = args.name or f"{base}_like"
    check_configuration_name(name)
    channels = channel_names(read_dataset_json(file.with_name("dataset.json")))
    source_channels = origin.input_channels()
    plans_name = args.new_plans or args.plans
    content = like_configuration(
        *(base, resolved, theirs),
        channels=channels,
        source_channels=source_channels,
        identifier=f"{plans_name}_{name}",
        patch_size=args.patch,
        spacing=args.spacing,
    )
    if args.new_plans:
        check_configuration_name(args.new_plans, "plans")
        if args.new_plans == args.plans:
            raise UserError(f"--new-plans {args.plans} are the dataset's plans. Choose another name, or leave it out.")
        whole = {**resolved, **content, "data_identifier": f"{plans_name}_{name}"}
        del whole["inherits_from"]
        matching = matching_channels(channels, source_channels)
        options: dict[str, Any] = {"name": plans_name, "configuration": name, "content": whole, "matching": matching}
        _write_plans(file.with_name(f"{plans_name}.json"), with_intensities(plans, origin.plans, **options), args.force)
    else:
        command = ["nnunet_ext", "plan", "-d", args.dataset, "--like", str(args.like), "-p", args.plans, "-c", base]
        for option, value in (
            *(("--name", args.name), ("--spacing", args.spacing)),
            *(("--source", args.reader), ("--parts", args.parts)),
        ):
            command += [] if value is None else [option, value]
        command += [] if args.stem is None else ["--stem", args.stem]
        command += [] if args.patch is None else ["--patch", *map(str, args.patch)]
        plans_file.add_configurations(file, {name: content}, command=shlex.join(command), force=args.force)
        tell_vanished(plans_file.vanished_configurations(file))
    print(source_text(source))
    print(_summary(name, content, file.with_name(f"{plans_name}.json"), source_channels, channels))
    if "CTNormalization" in content["normalization_schemes"]:
        if not intensities_of(origin.plans):
            print("CTNormalization takes the intensities of this dataset: the source does not say its own.")
        elif not args.new_plans:
            print("CTNormalization takes the intensities of this dataset; the model's need new plans: --new-plans NAME")
    theirs, ours = (one.get("transpose_forward") for one in (origin.plans, plans))
    if theirs is not None and theirs != ours:
        print(f"The source's axes are in the order {theirs}, this dataset's in {ours}: kernels see other axes.")
    is_new = args.new_plans or "data_identifier" in content
    target = [args.dataset, name, "-p", plans_name]
    number = dataset_number(args.dataset)
    preprocess = ["nnUNetv2_preprocess", "-d", number, "-plans_name", plans_name, "-c", name]
    weights = "FILE" if built_in_source(args.like) else str(args.like)  # a description has no weights
    adapt = ["nnunet_ext", "adapt-weights", weights, "--to", *target, "-tr", "nnUNetTrainerFineTune"]
    for option, value in (("--source", args.reader), ("--parts", args.parts), ("--stem", args.stem)):
        adapt += [] if value is None else [option, value]
    steps = [*([shlex.join(preprocess)] if is_new else []), shlex.join([*adapt, "-o", "start.pth"])]
    print("\n  ".join(["Next:", *steps]))
    return 0


def _summary(
    name: str, content: dict[str, Any], file: Path, source_channels: tuple[str, ...], channels: list[str]
) -> str:
    architecture = content["architecture"]
    network = (
        f"{architecture['network_class_name'].rpartition('.')[2]} of {architecture['arch_kwargs']['n_stages']} stages"
    )
    lines = [f"{name} ({network}, patch {content['patch_size']}, spacing {content['spacing']}) in {file}"]
    if len(channels) != len(source_channels):
        lines.append(
            f"The dataset has {len(channels)} channels ({', '.join(channels)}), the model {len(source_channels)} "
            f"({', '.join(source_channels)}): adapt-weights fits the first convolution (--channels)."
        )
    return "\n".join(lines)


def _write_plans(file: Path, plans: dict[str, Any], force: bool) -> None:
    plans = json.loads(json.dumps(plans))
    with only_run(file, patience_s=plans_file.PATIENCE_S):
        present = plans_file.read_plans(file) if file.is_file() else plans
        if others := sorted(set(present["configurations"]) - set(plans["configurations"])):
            raise UserError(
                f"{file} has other configurations ({some(others)}), which would be lost. Choose another name for "
                "--new-plans."
            )
        if present != plans and not force:
            raise UserError(f"{file} exists with other content. Choose another name, or add --force to replace it.")
        write_json(file, plans)
