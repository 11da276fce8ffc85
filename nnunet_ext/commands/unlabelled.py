"""Make a raw dataset of images without labels, to pre-train on.

nnU-Net's commands want a label map for each case, and stop where no case has any foreground. This writes placeholders:
label 1 wherever there is an image. IMAGES has files named case_0000.nii.gz, such as a dataset's imagesTr or imagesTs;
they stay where they are. Example, of pre-training on dataset 12 with the plans of dataset 5, which is to be learned:

    nnunet_ext unlabelled nnUNet_raw/Dataset005_Lesions/imagesTs -o Dataset012_Unlabelled
    nnUNetv2_plan_and_preprocess -d 12 --no_pp
    nnUNetv2_move_plans_between_datasets -s 5 -t 12 -sp nnUNetPlans -tp nnUNetPlansFrom5
    nnUNetv2_preprocess -d 12 -plans_name nnUNetPlansFrom5 -c 3d_fullres
    nnUNetv2_train 12 3d_fullres all -p nnUNetPlansFrom5 -tr nnUNetTrainerModelsGenesis
    nnunet_ext configure -d 5 -c 3d_fullres --name 3d_fullres_pretrained
    nnUNetv2_train 5 3d_fullres_pretrained 0 -tr nnUNetTrainerDBDMP -pretrained_weights CHECKPOINT

CHECKPOINT is fold_all/checkpoint_final.pth in the folder nnUNetTrainerModelsGenesis__nnUNetPlansFrom5__3d_fullres of
dataset 12's results. The name of a model's folder does not tell that it started from weights, so that such a training
has a configuration of its own. The plans must be those of dataset 5, so that network, spacing and intensities are the
same. nnUNetTrainerVolumeFusion and nnUNetTrainerMAE pre-train in the same way.
"""

import argparse
from pathlib import Path

from nnunet_ext.arguments import add_new_dataset_options
from nnunet_ext.formats.dataset_json import channel_names
from nnunet_ext.messages import counted
from nnunet_ext.nnunet_folders import dataset_number


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("images", type=Path, metavar="IMAGES", help="folder of images")
    add_new_dataset_options(parser)
    channels = "names of the channels, as in the dataset to be learned: nnU-Net normalises by them (default: those of "
    channels += "the dataset.json beside the folder)"
    parser.add_argument("--channels", nargs="+", metavar="NAME", help=channels)


def run(args: argparse.Namespace) -> int:
    from nnunet_ext.preprocessing.raw.next_steps import pretraining_steps
    from nnunet_ext.preprocessing.raw.unlabelled import make_unlabelled_dataset

    source, flat = make_unlabelled_dataset(args.images, args.output, channels=args.channels, force=args.force)
    names = channel_names(source.description)
    number, configuration = dataset_number(args.output), "2d" if flat else "3d_fullres"
    channels = f"channel{'s' * (len(names) != 1)} {', '.join(names)}"
    print(f"Wrote {args.output}: {counted(len(source.cases), 'case')}, {channels}.")
    print("\nNext, with the plans of the dataset to be learned (TARGET):")
    print(*(f"  {command}" for command in pretraining_steps(number, configuration)), sep="\n")
    print("nnUNetTrainerVolumeFusion and nnUNetTrainerMAE pre-train in the same way.")
    return 0
