"""Print the folder that nnUNet_extTrainer must hold.

A value that the variable has already is kept and extended. It holds for one shell; `nnunet_ext register` sets it for
good. Example:

    export nnUNet_extTrainer=$(nnunet_ext path)
"""

import argparse
import os

from nnunet_ext.registration import VARIABLE, discovery_folder, extended_value


def add_arguments(parser: argparse.ArgumentParser) -> None:
    alone = "print this package's folder alone, nothing of the present value"
    parser.add_argument("--only", action="store_true", help=alone)


def run(args: argparse.Namespace) -> int:
    print(discovery_folder() if args.only else extended_value(os.environ.get(VARIABLE)))
    return 0
