"""The commands that are printed when a raw dataset has been written."""

import pytest

from nnunet_ext.files import write_json
from nnunet_ext.preprocessing.raw.next_steps import next_steps


@pytest.fixture
def dataset(tmp_path, monkeypatch):
    """Make a dataset of some cases."""
    monkeypatch.setenv("nnUNet_raw", str(tmp_path))
    monkeypatch.delenv("nnUNet_preprocessed", raising=False)
    folder = tmp_path / "Dataset007_Few"

    def make(cases):
        for part in ("imagesTr", "labelsTr"):
            (folder / part).mkdir(parents=True)
        for number in range(cases):
            (folder / "imagesTr" / f"case_{number}_0000.nii.gz").touch()
            (folder / "labelsTr" / f"case_{number}.nii.gz").touch()
        labels = {"background": 0, "organ": 1}
        description = {"channel_names": {"0": "CT"}, "labels": labels, "numTraining": cases, "file_ending": ".nii.gz"}
        write_json(folder / "dataset.json", description)
        return folder

    return make


def test_they_take_the_number_of_the_dataset(dataset):
    dataset(5)
    assert next_steps("Dataset007_Few", "nnUNetTrainerTDNet", configuration="2d").splitlines()[2:] == [
        "  nnunet_ext check -d 7 --trainer nnUNetTrainerTDNet",
        "  nnUNetv2_plan_and_preprocess -d 7",
        "  nnUNetv2_train 7 2d 0 -tr nnUNetTrainerTDNet",
    ]


def test_few_cases_get_a_fold_that_nnunet_could_not_draw(dataset):
    folder = dataset(4)
    assert next_steps("Dataset007_Few").splitlines()[-2:] == [
        "  nnunet_ext split -d 7 --shots 3",
        "  nnUNetv2_train 7 CONFIGURATION 0 -tr TRAINER",
    ]
    assert next_steps("Dataset007_Few", fold="all").endswith("nnUNetv2_train 7 CONFIGURATION all -tr TRAINER")
    write_json(folder / "splits_final.json", [{"train": ["case_0"], "val": ["case_1"]}])
    assert "split" not in next_steps("Dataset007_Few")


def test_a_single_case_is_trained_on_as_a_whole(dataset):
    dataset(1)
    assert next_steps("Dataset007_Few").endswith("nnUNetv2_train 7 CONFIGURATION all -tr TRAINER")
