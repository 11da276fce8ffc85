"""Is a raw dataset right for a trainer? Each technique names the checks here that it needs, or its own."""

from collections.abc import Iterable
from pkgutil import resolve_name

from tqdm import tqdm

from nnunet_ext.errors import UserError
from nnunet_ext.findings import Finding
from nnunet_ext.preprocessing.checks.copied_cases import check_same_images
from nnunet_ext.preprocessing.checks.dataset_check import DatasetCheck, known_folds
from nnunet_ext.preprocessing.checks.general import FileCheck, check_description, check_folds, check_names_of_files
from nnunet_ext.preprocessing.checks.partial_labels import PartialLabelsCheck, missing_labels
from nnunet_ext.preprocessing.raw.raw_dataset import RawDataset, raw_test_cases


def check_dataset(
    dataset: RawDataset, checks: Iterable[str | type | DatasetCheck], *, with_test: bool = True
) -> list[Finding]:
    """Look at every case of a dataset once.

    Args:
        dataset: to look at.
        checks: what is looked at beyond the files, as `nnunet_ext.techniques.Technique` declares it, or checks that
            were made already.
        with_test: whether the cases of imagesTs are read, too.

    Returns:
        What was found, about files first. Nothing more is looked at if nnU-Net does not take the dataset.json or cannot
        read the first image.
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
    test_files = FileCheck(dataset, raw_test_cases(dataset.folder, dataset.description) if with_test else {})
    for case in tqdm(dataset.cases, desc="Checking", unit="case", disable=None):
        labels = files.read(case)
        if labels is not None:
            for check in shown:
                check.look_at(case, labels)
    for case in tqdm(test_files.cases, desc="Checking imagesTs", unit="case", disable=None):
        test_files.read(case)
    findings = [description, *check_names_of_files(dataset), *files.findings(), *test_files.findings()]
    findings += check_folds(dataset)
    findings += check_same_images(files.contents, test_files.contents, known_folds(dataset))
    if PartialLabelsCheck not in wanted:
        findings += missing_labels(dataset)
    return findings + [finding for check in shown for finding in check.findings()]
