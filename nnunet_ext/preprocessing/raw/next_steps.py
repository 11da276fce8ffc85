"""What to do with a raw dataset that has been written."""

from nnunet_ext.formats.dataset_json import read_dataset_json
from nnunet_ext.nnunet_folders import dataset_number, raw_folder
from nnunet_ext.preprocessing.raw.raw_dataset import training_cases
from nnunet_ext.preprocessing.raw.splits import FOLDS, splits_files

PLANS_OF_TARGET = "nnUNetPlansFromTARGET"


def pretraining_steps(number: str, configuration: str, device: str = "") -> list[str]:
    """The commands that pre-train on a dataset without labels with the plans of TARGET, which is to be learned.

    `device` is an option of nnU-Net's that names the device, if one is needed.
    """
    return [
        f"nnUNetv2_plan_and_preprocess -d {number} --no_pp",
        f"nnUNetv2_move_plans_between_datasets -s TARGET -t {number} -sp nnUNetPlans -tp {PLANS_OF_TARGET}",
        f"nnUNetv2_preprocess -d {number} -plans_name {PLANS_OF_TARGET} -c {configuration}",
        f"nnUNetv2_train {number} {configuration} all -p {PLANS_OF_TARGET} -tr nnUNetTrainerModelsGenesis{device}",
    ]


def next_steps(
    name: str, trainer: str = "TRAINER", *, configuration: str = "CONFIGURATION", fold: str | None = None
) -> str:
    """The commands that follow.

    Args:
        name: of the dataset, ``DatasetXXX_Name``, in nnUNet_raw.
        trainer: to train with.
        configuration: to train.
        fold: to train. By default 0, which is drawn first where there are no folds and too few cases for nnU-Net to
            draw them; a single case can only be trained on as a whole.

    Returns:
        Lines of text, of which the first is empty.

    Raises:
        UserError: if the dataset is not there, or its dataset.json cannot be read.
    """
    number, raw = dataset_number(name), raw_folder(name)
    commands = [f"nnunet_ext check -d {number} --trainer {trainer}", f"nnUNetv2_plan_and_preprocess -d {number}"]
    if fold is None:
        cases = len(training_cases(raw, read_dataset_json(raw / "dataset.json")))
        fold = "0"
        if cases < FOLDS and not splits_files(raw):
            if cases == 1:
                fold = "all"
            else:
                commands.append(f"nnunet_ext split -d {number} --shots {cases - 1}")
    commands.append(f"nnUNetv2_train {number} {configuration} {fold} -tr {trainer}")
    return "\n".join(["", "Next:", *(f"  {command}" for command in commands)])
