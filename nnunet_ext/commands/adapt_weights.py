"""Turn a trained model into a start for another dataset: other input channels, other labels, other decoders.

Reads a checkpoint of nnU-Net v2 (without running code that may be in it), builds the network that the trainer would
build for the configuration, and writes a file with every weight that network needs. Tensors that the source does not
have, e.g. heads of new labels, stay random. Prints what became of each part. Example:

    nnunet_ext adapt-weights checkpoint_final.pth --to 5 3d_fullres --trainer nnUNetTrainerMixUp -o start.pth
    nnUNetv2_train 5 3d_fullres 0 -tr nnUNetTrainerMixUp -pretrained_weights start.pth

--interpolate A with --tuned CHECKPOINT writes a model between the source and one that was tuned from it, against
forgetting: (1 - A) times the source's weights plus A times the tuned ones. Beside the tuned checkpoint, nnU-Net
predicts with it by -chk. Example:

    nnunet_ext adapt-weights SOURCE --to 5 3d_fullres -tr nnUNetTrainerFineTune --tuned fold_0/checkpoint_final.pth \
        --interpolate 0.5 -o fold_0/checkpoint_half.pth
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from nnunet_ext.arguments import share_or_none
from nnunet_ext.errors import UserError
from nnunet_ext.files import check_new_file, sha256
from nnunet_ext.version import __version__

HEADS_HINT = (
    "nnU-Net's own -pretrained_weights loads everything but the heads (.seg_layers.), which it leaves random. The "
    "fine-tuning trainers of this package load the heads too: name the file in their setting fine_tuning.source."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", type=Path, metavar="SOURCE", help="checkpoint file of the trained model")
    parser.add_argument(
        "--to", nargs=2, required=True, metavar=("DATASET", "CONFIGURATION"), help="dataset id or name; configuration"
    )
    parser.add_argument("-tr", "--trainer", required=True, help="trainer that will start from the weights")
    parser.add_argument("-p", "--plans", default="nnUNetPlans", help="plans identifier (default: %(default)s)")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="OUT", help="file to write")
    parser.add_argument("--drop-heads", action="store_true", help="leave all segmentation heads random")
    between = "a model between SOURCE (0) and --tuned (1)"
    parser.add_argument("--interpolate", type=share_or_none, metavar="A", help=f"write {between}")
    tuned = "for --interpolate: checkpoint of a training of --trainer on --to that started from SOURCE"
    parser.add_argument("--tuned", type=Path, metavar="CHECKPOINT", help=tuned)
    parser.add_argument("--force", action="store_true", help="replace OUT if it exists")


def run(args: argparse.Namespace) -> int:
    if (args.interpolate is None) != (args.tuned is None):
        raise UserError("--interpolate A and --tuned CHECKPOINT need each other: the model lies between two.")
    for source in filter(None, (args.source, args.tuned)):
        check_new_file(args.output, source=source, force=args.force)
    from nnunet_ext.checkpoints.adaptation import adapt
    from nnunet_ext.checkpoints.description import planned_model
    from nnunet_ext.checkpoints.interpolation import interpolated
    from nnunet_ext.checkpoints.networks import build_network, find_trainer
    from nnunet_ext.checkpoints.reading import read_checkpoint
    from nnunet_ext.checkpoints.writing import write_checkpoint

    target = planned_model(*args.to, plans_name=args.plans)
    source = read_checkpoint(args.source)
    network = build_network(find_trainer(args.trainer), target, deep_supervision=True)
    adaptation = adapt(source, network, target, keep_heads=not args.drop_heads)
    origin: dict[str, Any] = {
        "file": args.source.name,
        "sha256": sha256(args.source),
        "trainer": source.get("trainer_name"),
    }
    weights, more, hint = adaptation.weights, {}, HEADS_HINT
    if args.tuned is not None:
        tuned = read_checkpoint(args.tuned)
        weights = interpolated(adaptation, tuned["network_weights"], args.interpolate, tuned_file=args.tuned)
        origin["interpolated"] = {"amount": args.interpolate, "tuned": args.tuned.name, "sha256": sha256(args.tuned)}
        more = {key: tuned[key] for key in ("inference_allowed_mirroring_axes",) if key in tuned}
        hint = "Beside plans.json and dataset.json of the tuned model, nnU-Net predicts with it: -chk NAME.pth"
    content = {
        "network_weights": weights,
        "init_args": {
            "plans": dict(target.plans),
            "configuration": target.configuration,
            "dataset_json": dict(target.dataset_json),
        },
        "trainer_name": args.trainer,
        **more,
        "nnunet_ext": {"version": __version__, "adapted_from": origin},
    }
    write_checkpoint(args.output, content)
    print(f"{adaptation.table()}\nWrote {args.output}\n{hint}")
    return 0
