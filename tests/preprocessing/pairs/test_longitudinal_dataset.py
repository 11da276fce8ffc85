"""Datasets of pairs: what is in them, that nnU-Net takes them, and what an interruption leaves."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import SimpleITK as sitk
from nnunetv2.experiment_planning.verify_dataset_integrity import verify_dataset_integrity

from nnunet_ext.errors import UserError
from nnunet_ext.plans.channel_roles import roles_of_dataset
from nnunet_ext.preprocessing.pairs import longitudinal_dataset
from nnunet_ext.preprocessing.pairs.image_registration import Registration
from nnunet_ext.preprocessing.pairs.longitudinal_dataset import (
    Diverged,
    description_of,
    make_longitudinal_dataset,
    make_prediction_images,
    pairing_of,
)
from nnunet_ext.preprocessing.pairs.paired_case import Pairing, make_case
from nnunet_ext.preprocessing.pairs.pairing import Pair
from support.raw_datasets import read_array
from support.scan_pairs import box, scan, textured, write_pair

NAME = "Dataset811_Heart"
PAIRING = Pairing({"left": 1, "right": 2}, modality="CT")
FAR = {"origin": (500.0, -7.0, 11.0)}


@pytest.fixture
def raw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = tmp_path / "raw ü x"
    root.mkdir()
    monkeypatch.setenv("nnUNet_raw", str(root))
    monkeypatch.delenv("nnUNet_preprocessed", raising=False)
    monkeypatch.delenv("nnUNet_results", raising=False)
    return root


@pytest.fixture
def pairs(tmp_path: Path) -> list[Pair]:
    """Seven cases of six patients, the last without a prior."""
    folder = tmp_path / "scans ä"
    made = []
    for number, patient in enumerate(("ann", "ann", "bob", "cleo", "dan", "eve", "zoë")):
        missing = {"prior_image": None, "prior_label": None} if patient == "zoë" else {}
        case = f"{patient}_{number}"
        cells = write_pair(folder, case, **missing)
        files = {column: folder / cell for column, cell in cells.items() if cell and column != "patient"}
        made.append(Pair(case, patient, **files))
    return made


def make(pairs, pairing=PAIRING, *, if_diverged="stop", force=False):
    return make_longitudinal_dataset(pairs, NAME, pairing, if_diverged=if_diverged, force=force)


def read(file: Path):
    return json.loads(file.read_text(encoding="utf-8"))


@pytest.fixture
def far_away(pairs: list[Pair]) -> list[Pair]:
    """The third pair has a prior that does not overlap its current scan."""
    folder = pairs[2].current_image.parent
    write_pair(folder, pairs[2].case, prior_image=scan(textured(2), **FAR), prior_label=scan(box({1: (2, 5)}), **FAR))
    return pairs


def test_dataset_is_one_of_nnunet_with_roles(raw, pairs):
    make(pairs)
    folder = raw / NAME
    description = read(folder / "dataset.json")
    assert description["channel_names"] == {"0": "CT", "1": "prior CT", "2": "noNorm", "3": "noNorm"}
    assert description["labels"] == {"background": 0, "left": 1, "right": 2}
    roles = roles_of_dataset(description)
    assert (roles.current, roles.prior_image, roles.prior_labels) == ([0], [1], [2, 3])
    assert len(list((folder / "imagesTr").iterdir())) == 7 * 4
    assert (read_array(folder / "imagesTr" / "ann_0_0003.nii.gz") == box({1: (5, 8)})).all()
    assert not read_array(folder / "imagesTr" / "zoë_6_0001.nii.gz").any()
    verify_dataset_integrity(str(folder), num_processes=1)
    assert sorted(path.name for path in folder.iterdir()) == [
        ".made_by_nnunet_ext",
        "dataset.json",
        "imagesTr",
        "labelsTr",
        "pairs.json",
        "splits_final.json",
    ]


def test_patients_are_in_one_part_of_each_fold(raw, pairs):
    outcome = make(pairs)
    folds = read(raw / NAME / "splits_final.json")
    assert len(folds) == 5
    assert folds == outcome.folds
    assert sorted(case for fold in folds for case in fold["val"]) == [pair.case for pair in pairs]
    for fold in folds:
        assert sorted(fold["train"] + fold["val"]) == [pair.case for pair in pairs]
        assert len({"ann_0", "ann_1"} & set(fold["val"])) in (0, 2)


def test_one_patient_has_no_folds(raw, pairs):
    assert make(pairs[:2]).folds == []
    assert not (raw / NAME / "splits_final.json").exists()


def test_record_says_what_was_done_to_each_case(raw, pairs):
    make(pairs)
    record = read(raw / NAME / "pairs.json")
    assert (record["registration"], record["modality"], record["if_diverged"]) == ("none", "CT", "stop")
    assert list(record["cases"]) == [pair.case for pair in pairs]
    case = record["cases"]["ann_1"]
    assert case["patient"] == "ann"
    assert case["files"]["prior_label"] == str(pairs[1].prior_label.resolve())
    assert case["seconds"] >= 0
    assert record["cases"]["zoë_6"]["prior"] == "missing"


def test_prediction_is_prepared_as_the_training_was(raw, pairs, tmp_path):
    pairing = replace(PAIRING, prior_image=False, labels={"left": 1, "right": 2, "ignore": 3})
    make(pairs, pairing)
    read_back = pairing_of(read(raw / NAME / "dataset.json"), where=raw / NAME / "dataset.json")
    assert read_back == pairing
    folder = tmp_path / "to predict"
    new = [replace(pairs[0], current_label=None), replace(pairs[6], current_label=None)]
    make_prediction_images(new, folder, read_back, if_diverged="stop", force=False)
    for file in sorted(folder.glob("*.nii.gz")):
        assert (read_array(file) == read_array(raw / NAME / "imagesTr" / file.name)).all()
    assert len(list(folder.glob("*.nii.gz"))) == 2 * 3
    assert sorted(path.name for path in folder.iterdir() if not path.name.endswith(".nii.gz")) == [
        ".made_by_nnunet_ext",
        "pairs.json",
    ]


def test_dataset_of_another_make_is_no_example(tmp_path):
    with pytest.raises(UserError, match="is not of a dataset that `nnunet_ext pair` made"):
        pairing_of({"labels": {"background": 0}, "channel_names": {"0": "CT"}}, where=tmp_path / "dataset.json")


def test_roles_of_what_a_training_has_read_by_itself():
    description = {"channel_names": {"0": "CT", "1": "prior CT"}, "nnunet_ext": None}
    assert roles_of_dataset(description).prior_image == [1]
    with pytest.raises(UserError, match=r'dataset\.json, "nnunet_ext": \[1\] was found, and an object'):
        roles_of_dataset({**description, "nnunet_ext": [1]})


def test_description_names_channels_that_there_are():
    description = description_of(NAME, replace(PAIRING, prior_labels=False), cases=3)
    assert description["channel_names"] == {"0": "CT", "1": "prior CT"}
    assert roles_of_dataset(description).prior_labels == []


def test_diverged_priors_stop_when_the_others_are_done(raw, far_away):
    with pytest.raises(Diverged) as error:
        make(far_away)
    message = str(error.value)
    assert "1 of 7 priors" in message
    assert "bob_2: by their headers, prior and current scan do not overlap" in message
    assert "--if-diverged without-prior" in message
    assert not (raw / NAME).exists()


def test_choice_after_divergence_goes_on_where_it_stopped(raw, far_away, monkeypatch):
    with pytest.raises(Diverged):
        make(far_away)
    made = []

    def counted(pair, pairing, *, if_diverged):
        made.append(pair.case)
        return make_case(pair, pairing, if_diverged=if_diverged)

    monkeypatch.setattr(longitudinal_dataset, "make_case", counted)
    outcome = make(far_away, if_diverged="without-prior")
    assert made == ["bob_2"]
    assert outcome.records["bob_2"]["if_diverged"] == "without-prior"
    assert len(list((raw / NAME / "imagesTr").iterdir())) == 7 * 4


def test_diverged_case_can_be_left_out_of_the_next_run(raw, far_away):
    with pytest.raises(Diverged):
        make(far_away)
    left = [pair for pair in far_away if pair.case not in ("bob_2", "eve_5")]
    make(left)
    folder = raw / NAME
    assert sorted(file.name for file in (folder / "labelsTr").iterdir()) == [f"{pair.case}.nii.gz" for pair in left]
    assert len(list((folder / "imagesTr").iterdir())) == 5 * 4
    assert read(folder / "dataset.json")["numTraining"] == 5


def test_interrupted_work_goes_on_and_changed_files_are_read_anew(raw, pairs, monkeypatch):
    made = []

    def interrupted(pair, pairing, *, if_diverged):
        made.append(pair.case)
        if len(made) == 3:
            raise KeyboardInterrupt
        return make_case(pair, pairing, if_diverged=if_diverged)

    monkeypatch.setattr(longitudinal_dataset, "make_case", interrupted)
    with pytest.raises(KeyboardInterrupt):
        make(pairs)
    assert not (raw / NAME).exists()
    write_pair(pairs[0].current_image.parent, "ann_0", current_label=scan(box({1: (1, 9)})))
    made[:] = ["", "", ""]
    make(pairs)
    assert made[3:] == [pair.case for pair in pairs if pair.case != "ann_1"]
    assert (read_array(raw / NAME / "labelsTr" / "ann_0.nii.gz") == box({1: (1, 9)})).all()


def test_other_pairing_does_not_go_on_with_unfinished_work(raw, far_away):
    with pytest.raises(Diverged):
        make(far_away)
    other = replace(PAIRING, prior_image=False)
    with pytest.raises(UserError, match="differ in: prior_image"):
        make(far_away, other, if_diverged="without-prior")
    make(far_away, other, if_diverged="without-prior", force=True)
    assert len(list((raw / NAME / "imagesTr").iterdir())) == 7 * 3


def test_nothing_is_replaced_without_force(raw, pairs, tmp_path):
    make(pairs)
    with pytest.raises(UserError, match="--force"):
        make(pairs)
    make(pairs[:2], force=True)
    assert len(list((raw / NAME / "imagesTr").iterdir())) == 2 * 4
    folder = tmp_path / "to predict"
    make_prediction_images(pairs, folder, PAIRING, if_diverged="stop", force=False)
    with pytest.raises(UserError, match="--force"):
        make_prediction_images(pairs, folder, PAIRING, if_diverged="stop", force=False)
    make_prediction_images(pairs[:1], folder, PAIRING, if_diverged="stop", force=True)
    assert len(list(folder.glob("*.nii.gz"))) == 4


def test_prediction_that_stops_leaves_nothing(far_away, tmp_path):
    folder = tmp_path / "to predict"
    with pytest.raises(Diverged, match="Nothing was written"):
        make_prediction_images(far_away, folder, PAIRING, if_diverged="stop", force=False)
    assert not folder.exists()


FOUND = Registration(sitk.Transform(3, sitk.sitkIdentity), "rigid", "rigid", 0.1, 0.4, 7.0, 11.5, 0.97, None)


def test_registrations_are_drawn(raw, pairs, monkeypatch):
    def registered(pair, pairing, *, if_diverged):
        case = make_case(pair, pairing, if_diverged=if_diverged)
        return replace(case, views=case.channels[:3], registration=FOUND) if pair.prior_image else case

    def picture(current, prior_before, prior_after, file, registration):
        assert registration is FOUND
        file.write_text(
            f"{file.stem} " + " ".join(str(image.GetSize()) for image in (current, prior_before, prior_after))
        )

    monkeypatch.setattr(longitudinal_dataset, "make_case", registered)
    pictures = SimpleNamespace(registration_picture=picture)
    monkeypatch.setitem(sys.modules, "nnunet_ext.preprocessing.pairs.registration_pictures", pictures)
    outcome = make(pairs)
    folder = raw / NAME / "pictures"
    assert sorted(file.name for file in folder.iterdir()) == [f"{pair.case}.png" for pair in pairs[:-1]]
    assert outcome.records["ann_0"]["picture"] == "pictures/ann_0.png"
    assert (folder / "ann_0.png").read_text() == "ann_0 (12, 10, 6) (12, 10, 6) (12, 10, 6)"
    assert "picture" not in outcome.records["zoë_6"]
