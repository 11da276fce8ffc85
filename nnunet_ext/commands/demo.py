"""Train stock nnU-Net and a technique on small built-in data, and write a report.

Makes a dataset of digital phantoms, runs nnU-Net's own commands on it, showing each, and puts scores, training curves
and pictures into OUT/report.html. Takes about eight minutes on two CPU cores. Nothing outside OUT is written.

The technique dual-encoder gets phantoms at two dates: stock nnU-Net sees their current scans alone, and the dual
encoder predicts with their prior scans and without. With --data, a dataset of `nnunet_ext pair`, stock nnU-Net sees all
channels. Examples:

    nnunet_ext demo
    nnunet_ext demo --technique dual-encoder --out follow_up_demo
    nnunet_ext demo --technique mixup --data nnUNet_raw/Dataset004_Hippocampus --out hippocampus_demo
"""

import argparse
import sys
from pathlib import Path

from nnunet_ext.arguments import DEVICES, positive
from nnunet_ext.claims import only_run

# the technique's name and its trainer
TECHNIQUES = {"mixup": "nnUNetTrainerMixUp", "dual-encoder": "nnUNetTrainerDualEncoder"}
# enough on the phantoms to see all labels learned, and short enough for two CPU cores
PHANTOM_EPOCHS = 6


def add_arguments(parser: argparse.ArgumentParser) -> None:
    technique = "technique to compare with stock nnU-Net (default: %(default)s)"
    parser.add_argument("--technique", choices=sorted(TECHNIQUES), default="mixup", help=technique)
    data = "use this DatasetXXX_Name instead of the phantoms. Evaluated are the cases of imagesTs if labelsTs has "
    data += "their labels, otherwise the validation cases of fold 0"
    parser.add_argument("--data", type=Path, metavar="RAW_DATASET_FOLDER", help=data)
    folder = "folder to write (default: %(default)s)"
    parser.add_argument("-o", "--output", "--out", dest="out", type=Path, default=Path("demo_output"), help=folder)
    device = "device to train and predict on (default: %(default)s)"
    parser.add_argument("--device", choices=DEVICES, default="auto", help=device)
    epochs = f"number of epochs of each training (default: {PHANTOM_EPOCHS}; with --data, the preset's)"
    parser.add_argument("--epochs", type=positive, metavar="N", help=epochs)
    parser.add_argument("--force", action="store_true", help="empty OUT first, if this command made it")


def run(args: argparse.Namespace) -> int:
    from nnunet_ext import trainers
    from nnunet_ext.demo.run import run_demo
    from nnunet_ext.programs import CommandFailed

    trainer = TECHNIQUES[args.technique]
    try:
        with only_run(args.out):
            run_demo(
                args.out,
                trainer=trainer,
                data=args.data,
                needs_prior=getattr(trainers, trainer).needs_prior,
                device=args.device,
                epochs=args.epochs or (PHANTOM_EPOCHS if args.data is None else None),
                force=args.force,
            )
    except CommandFailed as error:
        print(f"nnunet_ext demo: {error}", file=sys.stderr)
        return 1
    return 0
