"""Phantoms as raw datasets of nnU-Net."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import SimpleITK as sitk

from nnunet_ext.demo import phantoms, two_dates
from nnunet_ext.demo.phantoms import Shape
from nnunet_ext.errors import UserError
from nnunet_ext.files import write_json, write_text
from nnunet_ext.preprocessing.pairs.images import write_image

ENDING = ".nii.gz"
# the folders of the scans of one patient, by the columns of the tables that `nnunet_ext pair` reads
COLUMNS = {"current_image": "images", "prior_image": "priors", "prior_label": "priorLabels", "current_label": "labels"}


@dataclass(frozen=True)
class Kind:
    """A kind of dataset."""

    number: int  # nnU-Net's id, if no other is asked for
    name: str  # what follows the number in the folder's name, if no other is asked for
    case: str  # how names of cases begin
    channel: str  # name of the only channel
    labels: Mapping[str, int]
    description: str  # for dataset.json
    # draws the (X, Y, Z) arrays of a case, by the folder that they go to, without Tr or Ts
    draw: Callable[[np.random.Generator, Shape], dict[str, np.ndarray]]
    without_prior: int | None = None  # as many patients have no prior, if no other number is asked for; None: no priors


PHANTOMS = Kind(
    number=900,
    name="Phantoms",
    case="phantom",
    channel="MR0",
    labels=phantoms.LABELS,
    description="Synthetic phantoms: two organs and lesions among unlabelled look-alikes",
    draw=phantoms.make_phantom,
)
FOLLOW_UP = Kind(
    number=901,
    name="FollowUp",
    case="patient",
    channel="MRI",
    labels=two_dates.LABELS,
    description="Synthetic phantoms at two dates: lesions among benign structures that look the same",
    draw=two_dates.make_follow_up,
    without_prior=4,
)


def write_dataset(
    kind: Kind,
    raw_folder: Path,
    *,
    dataset_id: int | None = None,
    name: str | None = None,
    cases: int = 24,
    test_cases: int = 6,
    without_prior: int | None = None,
    seed: int = 0,
) -> Path:
    """Write a raw dataset. Case i of a seed is the same whatever the number of cases.

    `PHANTOMS` have the lesions' numbers in instancesTr. Of `FOLLOW_UP`, the dataset has the current scans; the earlier
    ones lie beside them in priorsTr, priorLabelsTr, priorsTs and priorLabelsTs, and the tables pairsTr.csv and
    pairsTs.csv tell ``nnunet_ext pair`` what belongs together.

    Args:
        kind: `PHANTOMS` or `FOLLOW_UP`.
        raw_folder: what nnUNet_raw points at; made if it does not exist.
        dataset_id: 1..999; by default the kind's.
        name: what follows the number in the folder's name; by default the kind's.
        cases: training cases, at least 1.
        test_cases: cases in imagesTs and labelsTs, which all have a prior.
        without_prior: how many of the training cases, the last ones, have no prior; by default the kind's number.
        seed: of the random numbers.

    Returns:
        The dataset's folder, such as ``<raw_folder>/Dataset900_Phantoms``.

    Raises:
        UserError: if that folder exists and is not empty.
        ValueError: if a number is out of its range.
    """
    dataset_id, name = kind.number if dataset_id is None else dataset_id, name or kind.name
    without_prior = min(kind.without_prior or 0, cases) if without_prior is None else without_prior
    if cases < 1 or test_cases < 0 or not 0 <= without_prior <= cases:
        raise ValueError(
            f"cases ({cases}) must be at least 1, test_cases ({test_cases}) at least 0, and without_prior "
            f"({without_prior}) between 0 and cases."
        )
    if not 1 <= dataset_id <= 999:
        raise ValueError(f"dataset_id is {dataset_id}; nnU-Net takes 1 to 999.")
    folder = Path(raw_folder) / f"Dataset{dataset_id:03d}_{name}"
    if folder.exists() and any(folder.iterdir()):
        raise UserError(f"{folder} is not empty. Choose another folder or dataset number, or remove it first.")
    # a generator for each case, so that it does not depend on the others
    training, test = np.random.default_rng(seed).spawn(2)
    for ending, infix, generators in (("Tr", "", training.spawn(cases)), ("Ts", "_test", test.spawn(test_cases))):
        rows = []
        for number, rng in enumerate(generators):
            case = f"{kind.case}{infix}_{number:03d}"
            # so large that nnU-Net plans a patch that holds a whole case
            shape = int(rng.integers(40, 49)), int(rng.integers(40, 49)), int(rng.integers(32, 41))
            has_prior = ending == "Ts" or number < cases - without_prior
            files = {}
            for part, array in kind.draw(rng, shape).items():
                if (has_prior or not part.startswith("prior")) and (ending == "Tr" or part != "instances"):
                    files[part] = f"{part}{ending}/{case}{'_0000' if part == 'images' else ''}{ENDING}"
                    _write_volume(folder / files[part], array)
            rows.append([case, *(files.get(part) for part in COLUMNS.values())])
        if kind.without_prior is not None:
            table = pd.DataFrame(rows, columns=["patient", *COLUMNS])
            write_text(folder / f"pairs{ending}.csv", table.to_csv(index=False))
    content = {"channel_names": {"0": kind.channel}, "labels": kind.labels, "numTraining": cases}
    content |= {"file_ending": ENDING, "name": name, "description": kind.description}
    write_json(folder / "dataset.json", content)
    return folder


write_phantom_dataset = partial(write_dataset, PHANTOMS)
write_follow_up_dataset = partial(write_dataset, FOLLOW_UP)


def _write_volume(target: Path, array: np.ndarray) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    image = sitk.GetImageFromArray(np.ascontiguousarray(array.transpose(2, 1, 0)))
    image.SetSpacing(phantoms.SPACING)
    write_image(image, target)
