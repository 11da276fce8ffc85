"""Turn a trained model into a start for another dataset: other input channels, other labels, other decoders.

Reads weights of nnU-Net v2, TotalSegmentator, MultiTalent, nnssl (OpenMind), VoComni, STU-Net, or bare ones, without
running code that may be in the file; builds the network that the trainer would build for the configuration; and writes
a file with every weight that network needs. Tensors that the source does not have, e.g. heads of new labels, stay
random. Prints what became of each part. --dry-run prints alone, and writes nothing. Example:

    nnunet_ext adapt-weights checkpoint_final.pth --to 5 3d_fullres --trainer nnUNetTrainerMixUp --dry-run
    nnunet_ext adapt-weights checkpoint_final.pth --to 5 3d_fullres --trainer nnUNetTrainerMixUp -o start.pth
    nnunet_ext configure -d 5 -c 3d_fullres --name 3d_fullres_pretrained
    nnUNetv2_train 5 3d_fullres_pretrained 0 -tr nnUNetTrainerMixUp -pretrained_weights start.pth

The name of a model's folder does not tell that it started from weights, so that such a training has a configuration of
its own.

--interpolate A with --tuned CHECKPOINT writes a model between the source and one that was tuned from it, against
forgetting: (1 - A) times the source's weights plus A times the tuned ones. Beside the tuned checkpoint, nnU-Net
predicts with it by -chk. Example:

    nnunet_ext adapt-weights SOURCE --to 5 3d_fullres -tr nnUNetTrainerFineTune --tuned fold_0/checkpoint_final.pth \\
        --interpolate 0.5 -o fold_0/checkpoint_half.pth
"""

import argparse
import json
import sys
from collections.abc import Mapping
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

from nnunet_ext.arguments import add_source_options, fraction
from nnunet_ext.claims import only_run
from nnunet_ext.errors import UserError
from nnunet_ext.files import check_new_file, sha256
from nnunet_ext.formats.own_key import KEY
from nnunet_ext.nnunet_names import PLANS, TRAINER
from nnunet_ext.version import __version__

ADAPTED_FROM = "adapted_from"
"""The key of a checkpoint, among those of this package, that only this command writes."""
HEADS_HINT = (
    "nnU-Net's own -pretrained_weights loads everything but the heads (.seg_layers.), which it leaves random. The "
    "fine-tuning trainers of this package load the heads too: name the file in their setting fine_tuning.source."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", type=Path, metavar="SOURCE", help="checkpoint of the trained model, or its folder")
    parser.add_argument("--to", nargs=2, metavar=("DATASET", "CONFIGURATION"), help="dataset id or name; configuration")
    parser.add_argument(
        "-tr", "--trainer", default=TRAINER, help="trainer that will start from them (default: %(default)s)"
    )
    parser.add_argument("-p", "--plans", default=PLANS, help="plans identifier (default: %(default)s)")
    parser.add_argument(
        "-o", "--output", "--out", type=Path, metavar="OUT", help="file to write, ending in .pth or .pt"
    )
    only = "report how the weights fit and write nothing; without --to, check the source against its own plans. The "
    only += "exit status is 1 if it fits with --partial alone"
    parser.add_argument("--dry-run", action="store_true", help=only)
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    add_source_options(parser)
    channels = "where the numbers of channels differ: mean of the source's channels (mean), or channels of the same "
    channels += "name, the others random (name) (default: %(default)s)"
    parser.add_argument("--channels", choices=["mean", "name"], default="mean", help=channels)
    partial = "where the architectures differ, take what fits and leave the rest random"
    parser.add_argument("--partial", action="store_true", help=partial)
    parser.add_argument("--drop-heads", action="store_true", help="leave all segmentation heads random")
    between = "a model between SOURCE (0) and --tuned (1)"
    parser.add_argument("--interpolate", type=fraction, metavar="A", help=f"write {between}")
    tuned = "for --interpolate: checkpoint of a training of --trainer on --to that started from SOURCE"
    parser.add_argument("--tuned", type=Path, metavar="CHECKPOINT", help=tuned)
    parser.add_argument("--force", action="store_true", help="replace OUT, if this command made it")


def run(args: argparse.Namespace) -> int:
    with only_run(args.output) if args.output else nullcontext():
        _check(args)
        return adapt_to_target(args)


def adapt_to_target(args: argparse.Namespace) -> int:
    """Read the weights, and report how they fit or write what became of them."""
    from nnunet_ext.checkpoints.adaptation import KNOWN, adapt
    from nnunet_ext.checkpoints.description import planned_model
    from nnunet_ext.checkpoints.fit import Fit, check_consistent
    from nnunet_ext.checkpoints.interpolation import interpolated
    from nnunet_ext.checkpoints.networks import build_network, find_trainer
    from nnunet_ext.checkpoints.reading import checkpoint_in, read_checkpoint
    from nnunet_ext.checkpoints.sources import read_source
    from nnunet_ext.checkpoints.writing import write_checkpoint

    given = read_source(args.source, reader=args.reader, parts=args.parts, stem=args.stem)
    check_consistent(given, file=args.source)
    trainer = find_trainer(args.trainer)
    target = planned_model(*args.to, plans_name=args.plans) if args.to else _itself(given, args.source)
    network = build_network(trainer, target, deep_supervision=True)
    tuned = None if args.tuned is None else read_checkpoint(args.tuned)
    has_own_heads = tuned is not None and _has_own_heads(args, tuned)
    options: dict[str, Any] = {"keep_heads": not (args.drop_heads or has_own_heads), "channel_rule": args.channels}
    needs_partial = False
    try:
        adaptation = adapt(given.checkpoint, network, target, partial=args.partial, **options)
    except UserError:
        if not args.dry_run:
            raise
        needs_partial = True
        adaptation = adapt(given.checkpoint, network, target, partial=True, **options)
    fit = Fit.of(given, adaptation, target, file=str(args.source))
    if args.dry_run:
        print(json.dumps({**fit.record(), "fits": not needs_partial}, indent=4) if args.json else fit.text())
        if needs_partial:
            print("The architectures differ: this needs --partial, and is refused without it.", file=sys.stderr)
        return int(needs_partial)

    file = checkpoint_in(args.source)[0]
    origin: dict[str, Any] = {
        "file": file.name,
        "sha256": sha256(file),
        "trainer": given.checkpoint.get("trainer_name"),
    }
    origin |= given.about()
    weights, more, hint = adaptation.weights, {}, HEADS_HINT
    if tuned is not None:
        weights = interpolated(adaptation, tuned["network_weights"], args.interpolate, tuned_file=args.tuned)
        origin["interpolated"] = {"amount": args.interpolate, "tuned": args.tuned.name, "sha256": sha256(args.tuned)}
        more = {key: tuned[key] for key in ("inference_allowed_mirroring_axes",) if key in tuned}
        hint = "Beside plans.json and dataset.json of the tuned model, nnU-Net predicts with it: -chk NAME.pth"
        if has_own_heads and not args.drop_heads:
            hint += "\nThe tuned model began with heads of its own, as by -pretrained_weights or "
            hint += "fine_tuning.keep_heads=false: they stay as they are."
    content = {
        "network_weights": weights,
        "init_args": {
            "plans": dict(target.plans),
            "configuration": target.configuration,
            "dataset_json": dict(target.dataset_json),
        },
        "trainer_name": args.trainer,
        **more,
        KEY: {
            "version": __version__,
            ADAPTED_FROM: origin,
            KNOWN: {key: one for key, one in adaptation.known.items() if not one.all()} if args.tuned is None else {},
        },
    }
    write_checkpoint(args.output, content)
    print(json.dumps(fit.record(), indent=4) if args.json else f"{fit.text()}\nWrote {args.output}\n{hint}")
    return 0


def _check(args: argparse.Namespace) -> None:
    """See that the options go together, and that the output can be written."""
    if (args.interpolate is None) != (args.tuned is None):
        raise UserError("--interpolate A and --tuned CHECKPOINT need each other: the model lies between two.")
    if args.dry_run and args.output:
        raise UserError("--dry-run writes nothing: leave it or -o out.")
    if not args.dry_run and not (args.to and args.output):
        raise UserError("--to DATASET CONFIGURATION and -o OUT are needed, or --dry-run to write nothing.")
    if args.output is not None:
        from nnunet_ext.checkpoints.reading import checkpoint_in

        sources = [checkpoint_in(one)[0] for one in (args.source, args.tuned) if one is not None]
        check_new_file(args.output, ending=(".pth", ".pt"), sources=sources, force=args.force, is_own=_is_adapted)


def _is_adapted(file: Path) -> bool:
    """Whether this command has written a checkpoint."""
    from nnunet_ext.checkpoints.reading import load_file

    with suppress(UserError):
        content = load_file(file, is_mapped=True)
        about = content.get(KEY) if isinstance(content, Mapping) else None
        return isinstance(about, Mapping) and ADAPTED_FROM in about
    return False


def _has_own_heads(args: argparse.Namespace, tuned: dict[str, Any]) -> bool:
    """Whether a tuned model began with random heads, between which and the source's there is no model.

    Raises:
        UserError: if it says that it began with another file, or otherwise than the options say.
    """
    from nnunet_ext.checkpoints.reading import checkpoint_in

    began = tuned.get(KEY, {}).get("source")
    if began is None:  # -pretrained_weights
        return True
    file = checkpoint_in(args.source)[0]
    if began.get("sha256", sha256(file)) != sha256(file):
        raise UserError(
            f"{args.tuned} began with another file than {file}, one that was called {began.get('file')}. A model lies "
            "between what a training began with and what it gave: name the file of its fine_tuning.source."
        )
    if args.channels != "mean":
        raise UserError(
            f"{args.tuned} began by fine_tuning.source, which gives other channels the mean of the source's: leave "
            "--channels out."
        )
    return not began.get("keep_heads", True)


def _itself(given: Any, file: Path) -> Any:
    """The source's own model, as the target of a check without one."""
    from nnunet_ext.checkpoints.description import ModelDescription

    origin = ModelDescription.of(given.checkpoint)
    if origin is None:
        raise UserError(f"{file} does not say which plans it is of. Name a target with --to.")
    return origin
