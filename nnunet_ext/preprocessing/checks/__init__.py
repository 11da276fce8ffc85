"""Is a raw dataset right for a trainer? Each technique names the checks here that it needs, or its own."""

from collections.abc import Iterable
from pkgutil import resolve_name

from tqdm import tqdm

from nnunet_ext.errors import UserError
from nnunet_ext.findings import Finding
from nnunet_ext.preprocessing.checks.dataset_check import DatasetCheck
from nnunet_ext.preprocessing.checks.general import FileCheck, check_description, check_folds, check_names_of_files
from nnunet_ext.preprocessing.checks.partial_labels import PartialLabelsCheck, missing_labels
from nnunet_ext.preprocessing.raw.raw_dataset import RawDataset


def check_dataset(dataset: RawDataset, checks: Iterable[str | type | DatasetCheck]) -> list[Finding]:
    """Look at every case of a dataset once.

    `checks` are what is looked at beyond the files, as `nnunet_ext.techniques.Technique` declares it, or checks that
    were made already. The findings about files come first. Nothing more is looked at if nnU-Net does not take the
    dataset.json or cannot read the first image.
    """
    description = check_description(dataset)
    if description.severity == "problem":
        return [description]
    try:
        files = FileCheck(dataset)
    except UserError as error:
        return [description, Finding("problem", "images", str(error))]
    wanted = [resolve_name(one) if isinstance(one, str) else one for one in checks]
    shown: list[DatasetCheck] = [one(dataset) if isinstance(one, type) else one for one in wanted]
    for case in tqdm(dataset.cases, desc="Checking", unit="case", disable=None):
        labels = files.read(case)
        if labels is not None:
            for check in shown:
                check.look_at(case, labels)
    findings = [description, *check_names_of_files(dataset), *files.findings(), *check_folds(dataset)]
    if PartialLabelsCheck not in wanted:
        findings += missing_labels(dataset)
    return findings + [finding for check in shown for finding in check.findings()]
