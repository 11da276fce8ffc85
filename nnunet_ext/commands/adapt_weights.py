"""Turn a trained model into a start for another dataset: other input channels, other labels, other decoders.

Reads a checkpoint of nnU-Net v2 (without running code that may be in it), builds the network that the trainer would
build for the configuration, and writes a file with every weight that network needs. Tensors that the source does not
have, e.g. heads of new labels, stay random. Prints what became of each part. Example:

    nnunet_ext adapt-weights checkpoint_final.pth --to 5 3d_fullres --trainer nnUNetTrainerMixUp -o start.pth
    nnUNetv2_train 5 3d_fullres 0 -tr nnUNetTrainerMixUp -pretrained_weights start.pth
"""

from __future__ import annotations

import argparse
from pathlib import Path

from nnunet_ext.claims import only_run
from nnunet_ext.files import check_new_file, sha256
from nnunet_ext.version import __version__


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", type=Path, metavar="SOURCE", help="checkpoint file of the trained model")
    target = ("DATASET", "CONFIGURATION")
    parser.add_argument("--to", nargs=2, required=True, metavar=target, help="dataset id or name; configuration")
    parser.add_argument("-tr", "--trainer", required=True, help="trainer that will start from the weights")
    parser.add_argument("-p", "--plans", default="nnUNetPlans", help="plans identifier (default: %(default)s)")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="OUT", help="file to write")
    parser.add_argument("--drop-heads", action="store_true", help="leave all segmentation heads random")
    parser.add_argument("--force", action="store_true", help="replace OUT if it exists")


def run(args: argparse.Namespace) -> int:
    with only_run(args.output):
        return adapt_to_target(args)


def adapt_to_target(args: argparse.Namespace) -> int:
    """Read the weights, and write what became of them."""
    check_new_file(args.output, source=args.source, force=args.force)
    from nnunet_ext.checkpoints.adaptation import adapt
    from nnunet_ext.checkpoints.description import planned_model
    from nnunet_ext.checkpoints.networks import build_network, find_trainer
    from nnunet_ext.checkpoints.reading import read_checkpoint
    from nnunet_ext.checkpoints.writing import write_checkpoint

    target = planned_model(*args.to, plans_name=args.plans)
    source = read_checkpoint(args.source)
    network = build_network(find_trainer(args.trainer), target, deep_supervision=True)
    adaptation = adapt(source, network, target, keep_heads=not args.drop_heads)
    origin = {"file": args.source.name, "sha256": sha256(args.source), "trainer": source.get("trainer_name")}
    content = {
        "network_weights": adaptation.weights,
        "init_args": {
            "plans": dict(target.plans),
            "configuration": target.configuration,
            "dataset_json": dict(target.dataset_json),
        },
        "trainer_name": args.trainer,
        "nnunet_ext": {"version": __version__, "adapted_from": origin},
    }
    write_checkpoint(args.output, content)
    print(
        f"{adaptation.table()}\nWrote {args.output}\n"
        "nnU-Net's own -pretrained_weights loads everything but the heads (.seg_layers.), which it leaves random. The "
        "fine-tuning trainers of this package load the heads too: name the file in their setting fine_tuning.source."
    )
    return 0
