"""``nnunet_ext merge``: what it writes, and what it refuses."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from nnunet_ext.cli import main
from support.raw_datasets import SPACING, read_array, write_array, write_raw

ABDOMEN = {"background": 0, "liver": 1, "spleen": 2}
KIDNEYS = {"background": 0, "kidney_left": 1, "Leber": 2}
LUNGS = {"background": 0, "lung": 3, "liver": 1, "nodule": 2, "ignore": 4}


def labels_of(names: dict[str, int], seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, max(names.values()) + 1, (4, 5, 6)).astype(np.uint8)


@pytest.fixture
def sources(raw: Path) -> dict[str, Path]:
    """Three datasets with labels, values and channels of their own; images differ from case to case."""
    made = {}
    datasets = (
        ("Dataset001_Abdomen", ABDOMEN, "a"),
        ("Dataset002_Kidneys", KIDNEYS, "k"),
        ("Dataset003_Lungs", LUNGS, "l"),
    )
    for number, (name, names, letter) in enumerate(datasets):
        cases = {
            f"{letter}{patient}_{scan}": labels_of(names, 100 * number + 10 * patient + scan)
            for patient in range(6)
            for scan in range(2)
        }
        channels = ("T1", "FLAIR") if number != 1 else ("flair", "t1")
        folder = write_raw(raw / name, cases, names=names, channels=channels)
        for at, (case, array) in enumerate(cases.items()):
            for channel in range(2):
                image = np.full(array.shape, 1 + 24 * number + at, np.uint8)
                image[0, 0, 0] = channel
                write_array(image, folder / "imagesTr" / f"{case}_{channel:04d}.nii.gz")
        made[name] = folder
    return made


def merge(*options: str) -> int:
    command = ["merge", "1", "2", "3", "-o", "Dataset009_All", "--group", "[akl][0-9]+"]
    return main([*command, "--rename", "2:Leber=liver", *options])


def description(raw: Path) -> dict:
    return json.loads((raw / "Dataset009_All" / "dataset.json").read_text())


def say_of(source: Path, block: dict) -> None:
    """Write this package's entry in the dataset.json of a source."""
    file = source / "dataset.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "nnunet_ext": block}))


def test_labels_go_by_name_and_each_case_says_what_it_was_annotated_for(sources, raw, capsys):
    assert merge() == 0
    content, new = description(raw), raw / "Dataset009_All"
    expected = ["background", "liver", "spleen", "kidney_left", "lung", "nodule", "ignore"]
    assert content["labels"] == {name: value for value, name in enumerate(expected)}
    lists = content["nnunet_ext"]["annotated_labels"]
    assert (lists["a0_0"], lists["k0_0"]) == (["liver", "spleen"], ["liver", "kidney_left"])
    assert lists["l5_1"] == ["liver", "lung", "nodule"]
    assert content["numTraining"] == len(lists) == 36
    for name, names, case in (
        ("Dataset001_Abdomen", ABDOMEN, "a3_1"),
        ("Dataset002_Kidneys", KIDNEYS, "k2_0"),
        ("Dataset003_Lungs", LUNGS, "l1_0"),
    ):
        before = read_array(sources[name] / "labelsTr" / f"{case}.nii.gz")
        after = read_array(new / "labelsTr" / f"{case}.nii.gz")
        for label, value in names.items():
            there = content["labels"]["liver" if label == "Leber" else label]
            assert ((after == there) == (before == value)).all(), label
    words = " ".join(capsys.readouterr().out.split())
    assert "liver 1 12 12 12" in words
    assert "spleen 2 12 - -" in words
    assert "nnUNetTrainerPartialLabels" in words


def test_images_stay_where_they_are_in_the_order_of_the_first_sources_channels(sources, raw):
    assert merge() == 0
    files = description(raw)["dataset"]
    assert files["a0_0"]["images"] == [f"../Dataset001_Abdomen/imagesTr/a0_0_000{channel}.nii.gz" for channel in (0, 1)]
    assert files["k0_0"]["images"] == [f"../Dataset002_Kidneys/imagesTr/k0_0_000{channel}.nii.gz" for channel in (1, 0)]
    assert description(raw)["channel_names"] == {"0": "T1", "1": "FLAIR"}
    assert not (raw / "Dataset009_All" / "imagesTr").exists()


def test_copies_do_not_need_the_sources_and_names_can_have_the_sources_number(sources, raw):
    assert merge("--copy", "--prefix") == 0
    before = read_array(sources["Dataset002_Kidneys"] / "imagesTr" / "k0_0_0001.nii.gz")
    for folder in sources.values():
        shutil.rmtree(folder)
    content, new = description(raw), raw / "Dataset009_All"
    assert content["dataset"]["D002_k0_0"]["images"] == [
        f"imagesTr/D002_k0_0_000{channel}.nii.gz" for channel in (0, 1)
    ]
    assert (read_array(new / "imagesTr" / "D002_k0_0_0000.nii.gz") == before).all()
    assert "D001_a0_0" in content["nnunet_ext"]["annotated_labels"]


def test_force_never_replaces_images_that_a_source_lists(sources, raw, capsys):
    assert merge("--copy") == 0
    listed = raw / "Dataset010_Lists"
    listed.mkdir()
    content = description(raw)
    for files in content["dataset"].values():
        files["images"] = [f"../Dataset009_All/{image}" for image in files["images"]]
    (listed / "dataset.json").write_text(json.dumps(content))
    shutil.copytree(raw / "Dataset009_All" / "labelsTr", listed / "labelsTr")
    command = ["merge", "10", "4", "-o", "Dataset009_All", "--force"]
    write_raw(raw / "Dataset004_More", {"m": labels_of(ABDOMEN, 1)}, names=ABDOMEN, channels=("T1", "FLAIR"))
    before = sorted(raw.rglob("*"))
    capsys.readouterr()
    assert main(command) == 2
    assert "Dataset009_All would replace what contains the input" in capsys.readouterr().err
    assert sorted(raw.rglob("*")) == before


def test_copies_of_tiff_volumes_keep_their_spacing_whatever_they_are_called(raw):
    for number, case in ((1, "one"), (2, "two"), (4, "four")):
        folder = write_raw(raw / f"Dataset00{number}_T", {case: np.ones((2, 3, 4 + number), np.uint8)}, ending=".tif")
        for part in ("imagesTr", "labelsTr"):
            (folder / part / f"{case}.json").write_text(json.dumps({"spacing": [10, number, 2]}))
    # its cases have other names than their images, which stay where they are
    assert main(["merge", "1", "2", "-o", "Dataset003_Prefixed", "--prefix"]) == 0
    assert main(["merge", "3", "4", "-o", "Dataset009_All", "--copy"]) == 0
    for case, number in (("D001_one", 1), ("D002_two", 2), ("four", 4)):
        for part in ("imagesTr", "labelsTr"):
            spacing = json.loads((raw / "Dataset009_All" / part / f"{case}.json").read_text())["spacing"]
            assert spacing == [10, number, 2], (case, part)


def test_orientation_and_spacing_of_labels_stay(sources, raw):
    file = sources["Dataset001_Abdomen"] / "labelsTr" / "a0_0.nii.gz"
    image = sitk.ReadImage(str(file))
    image.SetDirection((0, 1, 0, 1, 0, 0, 0, 0, -1))
    image.SetOrigin((5, -3, 2))
    sitk.WriteImage(image, str(file))
    assert merge() == 0
    after = sitk.ReadImage(str(raw / "Dataset009_All" / "labelsTr" / "a0_0.nii.gz"))
    assert after.GetDirection() == pytest.approx(image.GetDirection())
    assert after.GetOrigin() == pytest.approx((5, -3, 2))
    assert after.GetSpacing() == pytest.approx(SPACING)


def test_folds_have_whole_patients_and_a_share_of_each_source(sources, raw):
    assert merge() == 0
    folds = json.loads((raw / "Dataset009_All" / "splits_final.json").read_text())
    assert len(folds) == 5
    tested = [case for fold in folds for case in fold["val"]]
    assert sorted(tested) == sorted(description(raw)["dataset"])
    for fold in folds:
        assert {case[0] for case in fold["val"]} == {case[0] for case in fold["train"]} == set("akl")
        assert not {case[:2] for case in fold["val"]} & {case[:2] for case in fold["train"]}


def test_cases_without_any_annotation_are_for_training_alone(sources, raw):
    block = {"annotated_labels": {"a0_0": [], "a0_1": [], "a1_0": []}, "default": ["liver", "spleen"]}
    say_of(sources["Dataset001_Abdomen"], block)
    for case in ("a0_0", "a0_1", "a1_0"):
        write_array(np.zeros((4, 5, 6), np.uint8), sources["Dataset001_Abdomen"] / "labelsTr" / f"{case}.nii.gz")
    assert merge() == 0
    folds = json.loads((raw / "Dataset009_All" / "splits_final.json").read_text())
    assert len(folds) == 5
    assert all({"a0_0", "a0_1"} <= set(fold["train"]) for fold in folds)
    (tested,) = [fold["val"] for fold in folds if "a1_0" in fold["val"]]
    assert "a1_1" in tested, "it is of a patient who has annotated scans"


def test_roles_of_the_channels_follow_their_channels(sources, raw, capsys):
    for name, prior in (("Dataset001_Abdomen", 1), ("Dataset002_Kidneys", 0), ("Dataset003_Lungs", 1)):
        roles = {"current": [1 - prior], "prior_labels": [prior]}
        say_of(sources[name], {"longitudinal": roles})
    assert merge() == 0
    expected = {"current": [0], "prior_image": [], "prior_labels": [1]}
    assert description(raw)["nnunet_ext"]["longitudinal"] == expected
    say_of(sources["Dataset003_Lungs"], {})
    assert merge("--force") == 2
    assert "The roles of the channels in Dataset001_Abdomen and Dataset003_Lungs differ" in capsys.readouterr().err
    assert merge("--force", "--channels", "T1") == 2


def test_what_is_known_to_be_absent_counts_as_annotated(sources, raw):
    assert merge("--only-annotated", "1:lung,nodule", "2") == 0
    lists = description(raw)["nnunet_ext"]["annotated_labels"]
    assert lists["a0_0"] == ["liver", "spleen", "lung", "nodule"]
    assert lists["k0_0"] == ["liver", "spleen", "kidney_left", "lung", "nodule"]
    assert lists["l0_0"] == ["liver", "lung", "nodule"]


def test_lists_of_a_source_are_taken_over(sources, raw):
    block = {"annotated_labels": {"a0_0": ["spleen"], "a0_1": []}, "default": ["liver", "spleen"]}
    say_of(sources["Dataset001_Abdomen"], block)
    assert merge() == 0
    lists = description(raw)["nnunet_ext"]["annotated_labels"]
    assert (lists["a0_0"], lists["a0_1"], lists["a1_0"]) == (["spleen"], [], ["liver", "spleen"])


def test_a_label_that_a_case_was_annotated_for_in_part_is_unknown_and_removed(sources, raw):
    block = {"annotated_labels": {"l0_0": ["lung", "liver"]}, "default": ["lung", "liver", "nodule"]}
    say_of(sources["Dataset003_Lungs"], block)
    assert merge("3:nodule=lung") == 0
    content = description(raw)
    assert content["nnunet_ext"]["annotated_labels"]["l0_0"] == ["liver"]
    assert content["nnunet_ext"]["annotated_labels"]["l0_1"] == ["liver", "lung"]
    value = content["labels"]["lung"]
    assert not (read_array(raw / "Dataset009_All" / "labelsTr" / "l0_0.nii.gz") == value).any()
    assert (read_array(raw / "Dataset009_All" / "labelsTr" / "l0_1.nii.gz") == value).any()


def test_aliases_hold_for_every_source_and_two_labels_can_become_one(sources, raw, tmp_path):
    table = tmp_path / "aliases.json"
    table.write_text(json.dumps({"liver": ["Leber"], "lung": ["nodule"]}))
    assert main(["merge", "1", "2", "3", "-o", "Dataset009_All", "--aliases", str(table)]) == 0
    content = description(raw)
    assert list(content["labels"]) == ["background", "liver", "spleen", "kidney_left", "lung", "ignore"]
    before = read_array(sources["Dataset003_Lungs"] / "labelsTr" / "l0_0.nii.gz")
    after = read_array(raw / "Dataset009_All" / "labelsTr" / "l0_0.nii.gz")
    assert ((after == content["labels"]["lung"]) == np.isin(before, [2, 3])).all()


def refusal(capsys: pytest.CaptureFixture[str], raw: Path, *command: str) -> str:
    before = sorted(raw.iterdir())
    assert main(["merge", *command, "-o", "Dataset009_All"]) == 2
    assert sorted(raw.iterdir()) == before
    return " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["1"], "Two datasets or more are merged"),
        (["1", "001"], "Two datasets or more are merged, each once"),
        (["1", "2", "--rename", "3:a=b"], "3 is none of the datasets that are merged: 1, 2"),
        (["1", "2", "--rename", "1:lung=b"], "has no label 'lung' to rename. It has: liver, spleen"),
        (["1", "2", "--rename", "1:liver=ignore"], "cannot be named 'ignore'"),
        (
            ["1", "2", "--rename", "2:Leber=Liver"],
            "Are 'liver' of Dataset001_Abdomen, 'Liver' of Dataset002_Kidneys the same",
        ),
        (["1", "2", "--only-annotated", "1:lung"], "names lung; labels of other datasets: kidney_left, Leber"),
        (["1", "2", "--channels", "T1", "CT"], "has the channels T1, FLAIR; wanted are T1, CT. Every dataset"),
        (["1", "2", "--group", "a[0-9]+"], "finds no patient in the names of 12 of 12 cases"),
    ],
)
def test_what_does_not_go_together_is_named(sources, raw, capsys, command, message):
    assert message in refusal(capsys, raw, *command)


def test_other_channels_endings_and_readers_are_named(sources, raw, capsys):
    write_raw(raw / "Dataset004_T1", {"x": labels_of(ABDOMEN, 0)}, names=ABDOMEN, channels=("T1",))
    found = refusal(capsys, raw, "1", "4")
    assert "Dataset004_T1 has the channels T1; wanted are T1, FLAIR. Where they are the same" in found
    assert "name those to take with --channels" in found
    assert main(["merge", "1", "4", "-o", "Dataset009_All", "--channels", "T1"]) == 0
    assert description(raw)["channel_names"] == {"0": "T1"}
    assert len(description(raw)["dataset"]["a0_0"]["images"]) == 1
    shutil.rmtree(raw / "Dataset009_All")
    write_raw(raw / "Dataset005_Nrrd", {"x": labels_of(ABDOMEN, 0)}, names=ABDOMEN, channels=("T1",), ending=".nrrd")
    assert "differ in file_ending (Dataset004_T1: .nii.gz; Dataset005_Nrrd: .nrrd)" in refusal(capsys, raw, "4", "5")
    reader = {"overwrite_image_reader_writer": "NibabelIO"}
    write_raw(raw / "Dataset006_Reader", {"x": labels_of(ABDOMEN, 0)}, names=ABDOMEN, channels=("T1",), **reader)
    assert "differ in overwrite_image_reader_writer" in refusal(capsys, raw, "4", "6")


def test_folds_that_are_not_kept_are_told_of(sources, raw, capsys):
    first = sources["Dataset001_Abdomen"]
    names = sorted({file.name[: -len("_0000.nii.gz")] for file in (first / "imagesTr").glob("*_0000.nii.gz")})
    own = [{"train": names[1:], "val": names[:1]}]
    (first / "splits_final.json").write_text(json.dumps(own))
    assert main(["merge", "1", "2", "-o", "Dataset050_Merged"]) == 0
    assert f"{first / 'splits_final.json'} has folds of its own, which are not kept" in capsys.readouterr().err
    known = {"cases": {name: {"patient": name} for name in names}}
    (first / "pairs.json").write_text(json.dumps(known))
    assert main(["merge", "1", "2", "-o", "Dataset050_Merged", "--force"]) == 0
    assert "folds of its own" not in capsys.readouterr().err, "each case is known to be a patient"
    patients = {"cases": {name: {"patient": f"MRN/{name.partition('_')[0]}"} for name in names}}
    (first / "pairs.json").write_text(json.dumps(patients))
    assert main(["merge", "1", "2", "-o", "Dataset050_Merged", "--force"]) == 0
    assert "folds of its own" not in capsys.readouterr().err
    folds = json.loads((raw / "Dataset050_Merged" / "splits_final.json").read_text())
    for fold in folds:
        apart = [{name.partition("_")[0] for name in fold[part] if name in names} for part in ("train", "val")]
        assert not set.intersection(*apart)


def test_a_case_without_all_channels_is_named(sources, raw, capsys):
    (sources["Dataset001_Abdomen"] / "imagesTr" / "a0_1_0001.nii.gz").unlink()
    assert "a0_1 of Dataset001_Abdomen does not have 2 channels" in refusal(capsys, raw, "1", "2")


def test_a_patient_in_two_forms_of_unicode_is_one(raw, capsys):
    """Otherwise the folds of one source would validate on what those of the other train on."""
    for number, case in ((1, "zo\u00eb_1"), (2, "zoe\u0308_2")):
        write_raw(raw / f"Dataset00{number}_One", {case: labels_of(ABDOMEN, 0)}, names=ABDOMEN, channels=("T1",))
    assert "both have the patient zo\u00eb." in refusal(capsys, raw, "1", "2", "--group", "^[^_]+")


def test_a_case_a_patient_or_an_image_in_two_sources_is_named(sources, raw, capsys):
    write_raw(raw / "Dataset004_Same", {"a0_0": labels_of(ABDOMEN, 0)}, names=ABDOMEN, channels=("T1", "FLAIR"))
    assert "both have the case a0_0. If they are others, add --prefix" in refusal(capsys, raw, "1", "4")
    write_raw(raw / "Dataset007_Case", {"A0_0": labels_of(ABDOMEN, 0)}, names=ABDOMEN, channels=("T1", "FLAIR"))
    assert "both have the case A0_0. If they are others" in refusal(capsys, raw, "1", "7"), "one file for both on macOS"
    write_raw(raw / "Dataset005_Patient", {"a0_7": labels_of(ABDOMEN, 0)}, names=ABDOMEN, channels=("T1", "FLAIR"))
    found = refusal(capsys, raw, "1", "5", "--group", "a[0-9]+")
    assert "both have the patient a0." in found
    shutil.copytree(sources["Dataset001_Abdomen"], raw / "Dataset006_Copy")
    found = refusal(capsys, raw, "1", "6", "--prefix")
    assert "of Dataset006_Copy and a0_0 of Dataset001_Abdomen are the same image" in found


def test_regions_wrong_values_and_wrong_tables_are_named(sources, raw, capsys, tmp_path):
    names = {"background": 0, "whole": [1, 2], "core": [2]}
    write_raw(raw / "Dataset004_Regions", {"x": labels_of(ABDOMEN, 0)}, names=names, channels=("T1", "FLAIR"))
    assert "has regions (whole, core)" in refusal(capsys, raw, "1", "4")
    write_array(np.full((4, 5, 6), 7, np.uint8), sources["Dataset001_Abdomen"] / "labelsTr" / "a0_1.nii.gz")
    assert "a0_1.nii.gz has the value 7, but the labels are 0, 1, 2" in refusal(capsys, raw, "1", "2")
    table = tmp_path / "aliases.json"
    for content, message in (
        ({"liver": "Leber"}, "must be a list"),
        ({"liver": ["Leber"], "lung": ["Leber"]}, "has 'Leber' under 'liver' and 'lung'"),
        ({"liver": ["foie"]}, "No dataset has the labels foie"),
    ):
        table.write_text(json.dumps(content))
        assert message in refusal(capsys, raw, "1", "2", "--aliases", str(table))


@pytest.mark.parametrize("option", [["--rename", "1:a"], ["--rename", "liver=b"], ["--only-annotated", "1:"]])
def test_wrong_options_are_wrong_usage(sources, raw, option):
    with pytest.raises(SystemExit) as stopped:
        main(["merge", "1", "2", "-o", "Dataset009_All", *option])
    assert stopped.value.code == 2


def write_unlabelled(folder: Path) -> None:
    """Dataset 4: a case without labels."""
    folder.mkdir()
    for channel in range(2):
        write_array(np.full((4, 5, 6), 200 + channel, np.uint8), folder / f"new_{channel:04d}.nii.gz")
    assert main(["unlabelled", str(folder), "-o", "Dataset004_New", "--channels", "T1", "FLAIR"]) == 0


def test_what_uses_unlabelled_cases_beside_dense_ones_is_for_the_advice_to_say(sources, raw, capsys, tmp_path):
    """nnUNetTrainerMixedSupervision would leave all cases without labels out."""
    write_unlabelled(tmp_path / "images")
    assert main(["merge", "1", "4", "-o", "Dataset009_All"]) == 0
    assert capsys.readouterr().out.endswith("\nNext:\n  nnunet_ext advise -d 9\n")
    assert main(["advise", "-d", "9", "--no-times"]) == 0
    assert "nnUNetTrainerModelsGenesis" in capsys.readouterr().out
    assert main(["merge", "1", "2", "4", "-o", "Dataset010_Partial"]) == 0
    assert "0 -tr nnUNetTrainerMixedSupervision" in capsys.readouterr().out


def test_scribbles_and_unlabelled_images_become_cases_of_their_kind(sources, raw, capsys, tmp_path):
    write_unlabelled(tmp_path / "images")
    assert main(["simulate", "scribbles", "1", "-o", "Dataset005_Scribbles"]) == 0
    assert main(["merge", "2", "4", "5", "-o", "Dataset009_All", "--rename", "2:Leber=liver"]) == 0
    content = description(raw)
    block = content["nnunet_ext"]
    assert block["annotated_labels"]["new"] == []
    assert sorted(block["scribbled"]) == sorted(case for case in content["dataset"] if case.startswith("a"))
    assert "image" not in content["labels"]
    assert not read_array(raw / "Dataset009_All" / "labelsTr" / "new.nii.gz").any()
    assert "0 -tr nnUNetTrainerMixedSupervision" in capsys.readouterr().out
    main(["check", "-d", "9", "-tr", "nnUNetTrainerMixedSupervision"])
    assert "0 dense, 12 scribbled, 12 partial, 1 unlabelled." in " ".join(capsys.readouterr().out.split())
