"""``nnunet_ext pair``: from scans with priors to a dataset, and to images for prediction."""

import json
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from nnunet_ext.cli import main
from support.bodies import drawn, grid, intensities, organs, rigid, transformed
from support.raw_datasets import read_array
from support.scan_pairs import box, scan, textured, write_pair, write_table

NAME = "Dataset811_Heart"
LABELS = ("--labels", "left=1", "right=2")
FAR = {"origin": (500.0, -7.0, 11.0)}


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Three pairs, the last without a prior."""
    folder = tmp_path / "scans ä b"
    rows = [write_pair(folder, name) for name in ("ann", "bob")]
    rows.append(write_pair(folder, "zoë", prior_image=None, prior_label=None))
    return write_table(folder / "pairs.csv", rows)


def pair(*options: str) -> int:
    return main(["pair", "-o", NAME, *options])


def refusal(capsys: pytest.CaptureFixture[str], raw: Path, *options: str) -> str:
    """What it says when it leaves nothing."""
    assert pair(*options) == 2
    assert list(raw.iterdir()) == []
    return capsys.readouterr().err


def test_table_becomes_a_dataset(table, raw, capsys):
    assert pair("--table", str(table), *LABELS, "--modality", "CT") == 0
    folder = raw / NAME
    description = json.loads((folder / "dataset.json").read_text())
    assert description["channel_names"] == {"0": "CT", "1": "prior CT", "2": "noNorm", "3": "noNorm"}
    assert description["nnunet_ext"]["longitudinal"] == {"current": [0], "prior_image": [1], "prior_labels": [2, 3]}
    assert (read_array(folder / "imagesTr" / "ann_0002.nii.gz") == box({1: (2, 5)})).all()
    assert not read_array(folder / "imagesTr" / "zoë_0002.nii.gz").any()
    shown = capsys.readouterr().out
    assert "Cases: 3 of 3 patients." in shown
    assert "Channels: current CT, prior image, prior left, prior right." in shown
    assert "Prior: image and labels in 2, missing in 1." in shown
    assert "Folds: 3, patients apart (fewer than 5 patients)." in shown
    assert "nnUNetv2_plan_and_preprocess -d 811" in shown


def test_images_can_get_the_intensities_of_another_one(table, raw, tmp_path):
    like = tmp_path / "like ü.nii.gz"
    sitk.WriteImage(scan(textured(5) + 5000), str(like))
    assert pair("--table", str(table), *LABELS, "--match-histogram", str(like)) == 0
    for channel in ("0000", "0001"):
        image = read_array(raw / NAME / "imagesTr" / f"ann_{channel}.nii.gz")
        assert 4900 < image[image > 0].min() <= image.max() < 5300
    assert not read_array(raw / NAME / "imagesTr" / "zoë_0001.nii.gz").any(), "there is no prior scan"


def test_folders_give_the_same_as_a_table(table, raw, tmp_path):
    assert pair("--table", str(table), *LABELS) == 0
    from_table = {file.name: read_array(file) for file in (raw / NAME / "imagesTr").iterdir()}
    columns = {
        "current_image": "current",
        "prior_image": "prior",
        "prior_label": "prior-segmentations",
        "current_label": "current-segmentations",
    }
    options = []
    for column, option in columns.items():
        folder = tmp_path / option
        folder.mkdir()
        for file in table.parent.glob(f"{column} *"):
            file.rename(folder / file.name.removeprefix(f"{column} "))
        options += [f"--{option}", str(folder)]
    assert pair(*options, *LABELS, "--force") == 0
    from_folders = {file.name: read_array(file) for file in (raw / NAME / "imagesTr").iterdir()}
    assert from_folders.keys() == from_table.keys()
    assert all((from_folders[name] == from_table[name]).all() for name in from_table)


def test_patients_of_folders_are_found_in_the_names(table, raw, tmp_path):
    current, labels = tmp_path / "current", tmp_path / "labels"
    for folder in (current, labels):
        folder.mkdir()
        source = "current_image" if folder == current else "current_label"
        for name in ("p1_a", "p1_b", "p2_a"):
            (folder / f"{name}.nii.gz").write_bytes((table.parent / f"{source} ann.nii.gz").read_bytes())
    prior = tmp_path / "prior"
    prior.mkdir()
    (prior / "p1_a.nii.gz").write_bytes((table.parent / "prior_image ann.nii.gz").read_bytes())
    where = ("--current", str(current), "--prior", str(prior), "--current-segmentations", str(labels))
    assert pair(*where, "--no-prior-labels", "--group", "^(p[0-9])", *LABELS) == 0
    folds = json.loads((raw / NAME / "splits_final.json").read_text())
    assert sorted(fold["val"] for fold in folds) == [["p1_a", "p1_b"], ["p2_a"]]


def test_new_pairs_are_prepared_like_a_dataset(table, raw, tmp_path, capsys):
    assert pair("--table", str(table), *LABELS, "--no-prior-image") == 0
    new = write_table(tmp_path / "new" / "new.csv", [write_pair(tmp_path / "new", "ann", current_label=None)])
    out = tmp_path / "new images"
    capsys.readouterr()
    assert main(["pair", "--predict", "--like", "811", "--table", str(new), "-o", str(out)]) == 0
    names = [f"ann_{channel:04d}.nii.gz" for channel in range(3)]
    assert sorted(file.name for file in out.glob("*.nii.gz")) == names
    for name in names:
        assert (read_array(out / name) == read_array(raw / NAME / "imagesTr" / name)).all()
    expected = (
        f"nnUNetv2_predict -d {NAME} -tr nnUNetTrainerDualEncoder -c CONFIGURATION -i '{out}' -o PREDICTIONS -f 0"
    )
    assert expected in capsys.readouterr().out


@pytest.mark.parametrize("inside", ["table", "scan"])
def test_force_never_replaces_what_is_read(table, raw, tmp_path, capsys, inside):
    """Neither in a dataset nor in images for prediction, though this command made what is there."""
    out = tmp_path / "new images"
    dataset = ["pair", *LABELS, "-o", NAME, "--table"]
    prediction = ["pair", "--predict", "--like", "811", "-o", str(out), "--table"]
    assert main([*dataset, str(table)]) == main([*prediction, str(table)]) == 0
    for made, command in ((raw / NAME, dataset), (out, prediction)):
        cells = {name: cell and str(table.parent / cell) for name, cell in write_pair(table.parent, "ann").items()}
        cells["patient"] = "ann"
        if inside == "scan":
            cells["current_image"] = shutil.move(cells["current_image"], made / "kept.nii.gz")
        new = write_table((made if inside == "table" else tmp_path) / "new.csv", [cells])
        before = sorted(made.rglob("*"))
        capsys.readouterr()
        assert main([*command, str(new), "--force"]) == 2
        assert "would replace what contains the input" in capsys.readouterr().err
        assert sorted(made.rglob("*")) == before


def test_images_never_replace_the_dataset_that_they_are_like(table, raw, capsys):
    assert pair("--table", str(table), *LABELS) == 0
    before = sorted((raw / NAME).rglob("*"))
    command = ["pair", "--predict", "--like", "811", "--table", str(table), "-o", str(raw / NAME), "--force"]
    assert main(command) == 2
    assert "is the input" in capsys.readouterr().err
    assert sorted((raw / NAME).rglob("*")) == before


def test_new_pairs_are_prepared_like_a_dataset_whose_labels_have_become_regions(table, raw, tmp_path, capsys):
    assert pair("--table", str(table), *LABELS) == 0
    file = raw / NAME / "dataset.json"
    content = json.loads(file.read_text())
    content["labels"] = {"background": 0, "whole": [1, 2], "core": 2}
    file.write_text(json.dumps(content))
    new = write_table(tmp_path / "new" / "new.csv", [write_pair(tmp_path / "new", "ann", current_label=None)])
    command = ["pair", "--predict", "--like", "811", "--table", str(new), "-o"]
    assert main([*command, str(tmp_path / "out")]) == 0
    for channel in range(4):
        name = f"ann_{channel:04d}.nii.gz"
        assert (read_array(tmp_path / "out" / name) == read_array(raw / NAME / "imagesTr" / name)).all()
    del content["nnunet_ext"]["pairing"]["labels"]  # of an earlier version
    file.write_text(json.dumps(content))
    assert main([*command, str(tmp_path / "other")]) == 2
    assert "has the regions whole and does not say what the labels of the prior scan were" in capsys.readouterr().err


def test_new_scan_without_a_prior_is_prepared_like_a_model(table, raw, tmp_path, capsys):
    assert pair("--table", str(table), *LABELS) == 0
    model = tmp_path / "results" / NAME / "nnUNetTrainerDualEncoderMixUp__nnUNetPlans__3d_fullres"
    model.mkdir(parents=True)
    (model / "dataset.json").write_bytes((raw / NAME / "dataset.json").read_bytes())
    for file in ("plans.json", "fold_2/checkpoint_final.pth"):
        (model / file).parent.mkdir(exist_ok=True)
        (model / file).touch()
    scans = tmp_path / "scans"
    cells = write_pair(scans, "new", prior_image=None, prior_label=None, current_label=None)
    (scans / "new.csv").write_text(f"patient,current_image\nnew,{cells['current_image']}\n")
    out = tmp_path / "out"
    capsys.readouterr()
    assert main(["pair", "--predict", "--like", str(model), "--table", str(scans / "new.csv"), "-o", str(out)]) == 0
    found = [read_array(out / f"new_{channel:04d}.nii.gz") for channel in range(4)]
    assert [bool(np.any(channel)) for channel in found] == [True, False, False, False]
    shown = capsys.readouterr().out
    assert "Warning: no case has a prior." in shown
    command = ["nnUNetv2_predict_from_modelfolder", "-m", str(model), "-i", str(out), "-o", "PREDICTIONS", "-f", "2"]
    assert f"\n  {shlex.join(command)}\n" in shown


def test_grids_that_differ_are_told(table, raw, capsys):
    elsewhere = {"origin": (4.0, -7.0, 11.0)}
    images = {"prior_image": scan(textured(2), **elsewhere), "prior_label": scan(box({1: (4, 6)}), **elsewhere)}
    write_pair(table.parent, "bob", **images)
    assert pair("--table", str(table), *LABELS) == 0
    assert "Resampled by their headers, because prior and current grids differ: 1 (bob)." in capsys.readouterr().out


def test_misregistered_prior_is_brought_back(table, raw, capsys):
    """A body whose prior was scanned 6, -4 and 5 mm off and turned by 5 to 8 degrees."""
    placed = transformed(rigid((6, -5, 8), (6, -4, 5)))
    current, truth = drawn(grid(), intensities, noise=4), drawn(grid(), organs)
    prior = drawn(grid(), intensities, placed=placed, noise=4, seed=1)
    labels = drawn(grid(), organs, placed=placed)
    images = {"current_image": current, "current_label": truth, "prior_image": prior, "prior_label": labels}
    rows = [write_pair(table.parent, "mis registered", **images)]
    write_table(table, rows)
    named = ("--labels", "beside=1", "shell=2", "ball=3")
    assert pair("--table", str(table), *named, "--registration", "rigid") == 0
    shown = capsys.readouterr().out
    assert "Registration (rigid): median similarity 0." in shown
    folder = raw / NAME
    record = json.loads((folder / "pairs.json").read_text())["cases"]["mis registered"]
    assert record["similarity_after"] > 2 * record["similarity_before"]
    assert (folder / record["picture"]).is_file()

    def centre(mask):
        return np.argwhere(mask).mean(axis=0) * 2.0  # voxels of 2 mm

    for channel, value in ((2, 1), (3, 2), (4, 3)):
        true = read_array(folder / "labelsTr" / "mis registered.nii.gz") == value
        moved = read_array(folder / "imagesTr" / f"mis registered_{channel:04d}.nii.gz") == 1
        before = np.linalg.norm(centre(sitk.GetArrayFromImage(labels) == value) - centre(true))
        after = np.linalg.norm(centre(moved) - centre(true))
        print(f"label {value}: centre off by {before:.2f} mm before, {after:.2f} mm after")
        assert before > 8
        assert after < 0.5  # a quarter of a voxel


def test_priors_that_cannot_be_placed_are_a_problem_and_nothing_is_lost(table, raw, capsys):
    write_pair(table.parent, "bob", prior_image=scan(textured(2), **FAR), prior_label=scan(box({1: (4, 6)}), **FAR))
    assert pair("--table", str(table), *LABELS) == 1
    message = capsys.readouterr().err
    assert "1 of 3 priors could not be brought onto their current scans:\n  bob: " in message
    assert "Nothing is lost" in message
    assert not (raw / NAME).exists()
    assert pair("--table", str(table), *LABELS, "--if-diverged", "without-prior") == 0
    assert "Diverged, and taken as without-prior: 1 (bob)." in capsys.readouterr().out


def test_warnings_are_told_by_case(table, raw, capsys):
    write_pair(table.parent, "bob", current_label=scan(box({})))
    assert pair("--table", str(table), *LABELS) == 0
    assert "Warning, bob: the current label map is empty." in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ((), "Where are the scans?"),
        (("--table", "TABLE", "--current", "x", *LABELS), "leave --current out"),
        (("--table", "TABLE"), "--labels is needed"),
        (("--table", "TABLE", *LABELS, "--no-prior-image", "--no-prior-labels"), "leave nothing of the prior"),
        (("--table", "TABLE", *LABELS, "--like", "811"), "--like belongs to --predict"),
        (("--current", "x", *LABELS), "Missing: --prior, --prior-segmentations, --current-segmentations."),
        (("--table", "TABLE", "--predict"), "--predict needs --like"),
        (("--table", "TABLE", "--predict", "--like", "811", *LABELS), "leave --labels out"),
        (("--table", "TABLE", "--predict", "--like", "811", "--crop-to-body", "0"), "leave --crop-to-body out"),
        (
            ("--current", "x", "--predict", "--like", "811", "--current-segmentations", "y"),
            "takes no labels of the current",
        ),
        (("--table", "TABLE", "--predict", "--like", "811"), "Dataset 811 is not in"),
        (("--table", "TABLE", "--labels", "a=1", "b=3"), "--labels a=1 b=3: nnU-Net needs"),
        (("--table", "TABLE", "--labels", "a=1", "a=2"), "--labels a=1 a=2: nnU-Net needs"),
        (("--table", "TABLE", "--labels", "ignore=1", "a=2"), "ignore needs the highest value"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(table, raw, capsys, options, told):
    assert told in refusal(capsys, raw, *(str(table) if option == "TABLE" else option for option in options))


@pytest.mark.parametrize("text", ["left", "=1", "left=x", "left=-1"])
def test_labels_need_a_name_and_a_value(table, raw, capsys, text):
    with pytest.raises(SystemExit) as stop:
        pair("--table", str(table), "--labels", text)
    assert stop.value.code == 2
    assert "is not NAME=VALUE" in capsys.readouterr().err


def test_background_may_be_named(table, raw):
    assert pair("--table", str(table), "--labels", "background=0", "left=1", "right=2") == 0
    assert json.loads((raw / NAME / "dataset.json").read_text())["labels"] == {"background": 0, "left": 1, "right": 2}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"sharpen": True}, "has keys that are not known: sharpen. Update nnunet_ext"),
        ({"registration": "deformable"}, "registration: Input should be 'none', 'rigid', 'affine' or 'bspline'"),
        ({"crop_to_body": "5"}, "crop_to_body: must be a number"),
        ({"labels": {"left": [1]}}, "labels.left: must be a whole number"),
        ({"labels": None}, None),  # as if an early version had made it
    ],
)
def test_a_preparation_that_cannot_be_repeated_is_named(table, raw, tmp_path, capsys, change, told):
    assert pair("--table", str(table), *LABELS) == 0
    file = raw / NAME / "dataset.json"
    content = json.loads(file.read_text())
    content["nnunet_ext"]["pairing"].update(change)
    file.write_text(json.dumps(content))
    command = ["pair", "--predict", "--like", "811", "--table", str(table), "-o", str(tmp_path / "out")]
    assert main(command) == (2 if told else 0)
    assert (told or "") in capsys.readouterr().err


def test_the_matched_image_of_an_exported_model_is_named_again(table, raw, tmp_path, capsys):
    like = tmp_path / "mr ü.nii.gz"
    sitk.WriteImage(scan(textured(5) + 5000), str(like))
    assert pair("--table", str(table), *LABELS, "--match-histogram", str(like)) == 0
    file = raw / NAME / "dataset.json"
    content = json.loads(file.read_text())
    content["nnunet_ext"]["pairing"]["match_histogram"] = like.name
    file.write_text(json.dumps(content))
    command = ["pair", "--predict", "--like", "811", "--table", str(table), "-o", str(tmp_path / "out")]
    for more, told in (
        ([], "which is not there. Name the file"),
        (["--match-histogram", "other.nii.gz"], "Name that image"),
    ):
        assert main([*command, *more]) == 2
        assert told in capsys.readouterr().err
    assert main([*command, "--match-histogram", str(like)]) == 0
    name = "ann_0000.nii.gz"
    assert (read_array(tmp_path / "out" / name) == read_array(raw / NAME / "imagesTr" / name)).all()


def test_folder_without_dataset_json_is_no_example(table, raw, tmp_path, capsys):
    options = ("--predict", "--like", str(tmp_path), "--table", str(table))
    assert "has no dataset.json" in refusal(capsys, raw, *options)


def test_file_that_cannot_be_used_is_named_and_nothing_is_left_of_the_dataset(table, raw, capsys):
    write_pair(table.parent, "bob", prior_label=scan(box({1: (4, 6)}).astype(np.float32) / 2))
    assert pair("--table", str(table), *LABELS) == 2
    message = capsys.readouterr().err
    assert "prior_label bob.nii.gz holds values that are no labels: 0.5" in message
    assert not (raw / NAME).exists()
