"""Is a raw dataset right for a trainer? One module for each technique that asks something of its data."""

from __future__ import annotations

from collections.abc import Mapping

from tqdm import tqdm

from nnunet_ext.errors import UserError
from nnunet_ext.findings import Finding
from nnunet_ext.preprocessing.checks.dataset_check import DatasetCheck
from nnunet_ext.preprocessing.checks.foreground import ForegroundCheck
from nnunet_ext.preprocessing.checks.general import FileCheck, check_description, check_folds
from nnunet_ext.preprocessing.checks.longitudinal import LongitudinalCheck
from nnunet_ext.preprocessing.checks.partial_instances import PartialInstancesCheck
from nnunet_ext.preprocessing.checks.pretraining import PlaceholderCheck
from nnunet_ext.preprocessing.checks.scribbles import IgnoreLabelCheck, ScribbleCheck
from nnunet_ext.preprocessing.raw.raw_dataset import RawDataset

USUAL: tuple[type[DatasetCheck], ...] = (ForegroundCheck,)
CHECKS: Mapping[str, tuple[type[DatasetCheck], ...]] = {
    "nnUNetTrainerConfigurable": (*USUAL, IgnoreLabelCheck),
    "nnUNetTrainerDBDMP": (*USUAL, PartialInstancesCheck),
    "nnUNetTrainerDualEncoder": (*USUAL, LongitudinalCheck),
    "nnUNetTrainerDualEncoderMixUp": (*USUAL, LongitudinalCheck),
    "nnUNetTrainerModelsGenesis": (PlaceholderCheck,),
    "nnUNetTrainerTDNet": (ScribbleCheck,),
    "nnUNetTrainerDMPLS": (ScribbleCheck,),
    "nnUNetTrainerPartialCE": (ScribbleCheck,),
}
"""What is looked at beyond the files themselves, by trainer; others have `USUAL`."""


def check_dataset(dataset: RawDataset, trainer: str) -> list[Finding]:
    """Look at every case of a dataset once.

    Args:
        dataset: the dataset.
        trainer: name of the trainer that is to learn from it.

    Returns:
        What was found: of the files first, then what the trainer needs. Nothing more is looked at if nnU-Net does not
        take the dataset.json or cannot read the first image.
    """
    description = check_description(dataset)
    if description.severity == "problem":
        return [description]
    try:
        files = FileCheck(dataset)
    except UserError as error:
        return [description, Finding("problem", "images", str(error))]
    checks = [check(dataset) for check in CHECKS.get(trainer, USUAL)]
    for case in tqdm(dataset.cases, desc="Checking", unit="case", disable=None):
        labels = files.read(case)
        if labels is not None:
            for check in checks:
                check.look_at(case, labels)
    findings = [description, *files.findings(), *check_folds(dataset)]
    return findings + [finding for check in checks for finding in check.findings()]


__all__ = ["CHECKS", "check_dataset"]
