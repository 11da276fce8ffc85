"""Turn a trained model into a start for another dataset: other input channels, other labels, other decoders.

Reads a checkpoint of nnU-Net v2 (without running code that may be in it), builds the network that the trainer would
build for the configuration, and writes a file with every weight that network needs. Tensors that the source does not
have, e.g. heads of new labels, stay random. Prints what became of each part. Example:

    nnunet_ext adapt-weights checkpoint_final.pth --to 5 3d_fullres --trainer nnUNetTrainerMixUp -o start.pth
    nnUNetv2_train 5 3d_fullres 0 -tr nnUNetTrainerMixUp -pretrained_weights start.pth
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import inspect
import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nnunet_ext.errors import UserError
from nnunet_ext.registry import TRAINERS
from nnunet_ext.version import __version__

if TYPE_CHECKING:
    from torch import nn

    from nnunet_ext.checkpoints.description import ModelDescription


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", type=Path, metavar="SOURCE", help="checkpoint file of the trained model")
    parser.add_argument(
        "--to", nargs=2, required=True, metavar=("DATASET", "CONFIGURATION"), help="dataset id or name; configuration"
    )
    parser.add_argument("-tr", "--trainer", required=True, help="trainer that will start from the weights")
    parser.add_argument("-p", "--plans", default="nnUNetPlans", help="plans identifier (default: %(default)s)")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="OUT", help="file to write")
    parser.add_argument("--drop-heads", action="store_true", help="leave all segmentation heads random")
    parser.add_argument("--force", action="store_true", help="replace OUT if it exists")


def run(args: argparse.Namespace) -> int:
    check_output(args.output, source=args.source, force=args.force)
    target = target_description(*args.to, plans_identifier=args.plans)

    from nnunet_ext.checkpoints.adaptation import adapt
    from nnunet_ext.checkpoints.reading import read_checkpoint

    source = read_checkpoint(args.source)
    network = build_network(find_trainer(args.trainer), target)
    adaptation = adapt(source, network, target, keep_heads=not args.drop_heads)
    content = {
        "network_weights": adaptation.weights,
        "init_args": {
            "plans": dict(target.plans),
            "configuration": target.configuration,
            "dataset_json": dict(target.dataset_json),
        },
        "trainer_name": args.trainer,
        "nnunet_ext": {
            "version": __version__,
            "adapted_from": {
                "file": args.source.name,
                "sha256": sha256(args.source),
                "trainer": source.get("trainer_name"),
            },
        },
    }
    write_weights(args.output, content)
    print(adaptation.table())
    print(f"Wrote {args.output}")
    print(
        "nnU-Net's own -pretrained_weights loads everything but the heads (.seg_layers.), which it leaves random. The "
        "fine-tuning trainers of this package load the heads too: name the file in their setting fine_tuning.source."
    )
    return 0


def check_output(output: Path, *, source: Path, force: bool) -> None:
    """See that the result can be written, before any work is done.

    Raises:
        UserError: if it is there and `force` is off, if it is the source, or if its folder is missing.
    """
    if output.is_dir():
        raise UserError(f"{output} is a folder; a file name is needed behind -o, e.g. {output / 'start.pth'}")
    if not output.parent.is_dir():
        raise UserError(f"The folder {output.parent} does not exist. Make it, or choose another for -o.")
    if output.exists():
        if source.exists() and output.samefile(source):
            raise UserError(f"{output} is the source itself. Choose another name for -o.")
        if not force:
            raise UserError(f"{output} exists. Choose another name, or add --force to replace it.")


def target_description(dataset: str, configuration: str, *, plans_identifier: str) -> ModelDescription:
    """Plans and dataset.json of a preprocessed dataset.

    Raises:
        UserError: if the dataset, the plans or the configuration is missing.
    """
    from nnunet_ext.files import read_json
    from nnunet_ext.plans.plans_file import preprocessed_folder, read_plans

    folder = preprocessed_folder(dataset)
    file = folder / f"{plans_identifier}.json"
    plans = read_plans(file)
    if configuration not in plans["configurations"]:
        raise UserError(f"{file} has no configuration {configuration!r}; it has: {', '.join(plans['configurations'])}.")
    dataset_json = read_json(folder / "dataset.json")

    from nnunet_ext.checkpoints.description import ModelDescription

    return ModelDescription(plans, configuration, dataset_json)


def find_trainer(name: str) -> Any:
    """The trainer's class: one of ours, or one that nnU-Net finds.

    Raises:
        UserError: if there is none of that name.
    """
    for entry in TRAINERS:
        if entry.name == name:
            return entry.load()

    from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name

    try:
        with contextlib.redirect_stdout(io.StringIO()):  # it tells where it looks
            return recursive_find_trainer_class_by_name(name)
    except RuntimeError as error:
        if name not in str(error):  # a module on the way is broken; that is no matter of the name
            raise
        raise UserError(
            f"There is no trainer {name!r}. This package has: {', '.join(entry.name for entry in TRAINERS)}; nnU-Net "
            "has nnUNetTrainer and its variants, and those in the folders that nnUNet_extTrainer names."
        ) from None


def build_network(trainer: Any, target: ModelDescription) -> nn.Module:
    """The network that a trainer would train, freshly initialised, on the CPU; built as nnU-Net's trainer does it."""
    from nnunetv2.utilities.label_handling.label_handling import determine_num_input_channels
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    plans = dict(target.plans)
    if hasattr(trainer, "resolved_plans"):
        plans = trainer.resolved_plans(plans, target.configuration, target.dataset_json)
    plans_manager = PlansManager(plans)
    configuration_manager = plans_manager.get_configuration(target.configuration)
    channels = determine_num_input_channels(plans_manager, configuration_manager, target.dataset_json)
    heads = plans_manager.get_label_manager(target.dataset_json).num_segmentation_heads
    if "plans_manager" in inspect.signature(trainer.build_network_architecture).parameters:
        return trainer.build_network_architecture(plans_manager, configuration_manager, channels, heads, True)
    # the signature before nnU-Net 2.8, which nnU-Net still accepts
    return trainer.build_network_architecture(
        configuration_manager.network_arch_class_name,
        configuration_manager.network_arch_init_kwargs,
        configuration_manager.network_arch_init_kwargs_req_import,
        channels,
        heads,
        True,
    )


def sha256(file: Path) -> str:
    """The file's checksum, in hexadecimal."""
    digest = hashlib.sha256()
    with file.open("rb") as handle:
        for block in iter(lambda: handle.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def write_weights(output: Path, content: dict[str, Any]) -> None:
    """Write a torch file, whole or not at all.

    Raises:
        UserError: if it cannot be written.
    """
    import torch

    from nnunet_ext.files import written_whole

    try:
        # opened here and not by torch, whose errors do not say what is wrong
        with written_whole(output) as temporary, temporary.open("wb") as handle:
            torch.save(content, handle)
    except OSError as error:
        raise UserError(f"{output} cannot be written ({error.strerror}).") from None
