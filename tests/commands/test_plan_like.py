"""``nnunet_ext plan --like`` on a file of each source, up to nnU-Net's own preprocessing, training and prediction."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from nnunetv2.experiment_planning.plan_and_preprocess_entrypoints import preprocess_entry
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor, predict_entry_point
from nnunetv2.run.run_training import run_training_entry

from nnunet_ext.checkpoints.reading import read_checkpoint
from nnunet_ext.checkpoints.stock_export import TRAINER_FOLDER
from nnunet_ext.cli import main
from nnunet_ext.plans.plans_file import MEMORY
from support.nnunet_runs import build_trainer, call_entry_point, train
from support.public_weights import GEOMETRY, LAYOUTS, OPTIONS, nnssl, nnunet, use_small_descriptions
from support.tiny_data import dataset_name


@pytest.fixture
def plans_file(workspace: Any, results: Path) -> Any:
    """Plans of tiny data, put back afterwards."""
    file = workspace.preprocessed / dataset_name("labels") / "nnUNetPlans.json"
    before = file.read_bytes()
    yield file
    file.write_bytes(before)
    file.with_name(MEMORY).unlink(missing_ok=True)
    file.with_name("mine.json").unlink(missing_ok=True)


@pytest.fixture
def small_descriptions(monkeypatch: pytest.MonkeyPatch) -> None:
    use_small_descriptions(monkeypatch)


def configuration(file: Path, name: str = "3d_fullres_like") -> dict[str, Any]:
    return json.loads(file.read_text())["configurations"][name]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_weights_fit_the_configuration_that_is_made(
    layout: str, plans_file: Path, tmp_path: Path, small_descriptions: None, capsys: pytest.CaptureFixture[str]
) -> None:
    file, _ = LAYOUTS[layout](tmp_path)
    options = OPTIONS.get(layout, [])
    patch = ["--patch", "16", "16", "16"] if layout == "weights" else []
    assert main(["plan", "--like", str(file), "-d", "901", *patch, *options]) == 0
    said = capsys.readouterr().out
    assert "nnUNetv2_preprocess -d 901 -plans_name nnUNetPlans -c 3d_fullres_like" in said or layout in (
        "nnssl",
        "weights",
    )  # same images
    assert configuration(plans_file)["patch_size"] == [16, 16, 16]
    to = ["--to", "901", "3d_fullres_like"]
    assert main(["adapt-weights", str(file), *to, "--dry-run", "--json", *options]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["fits"]
    assert report["would_raise_it"] == {}
    encoder = [part for part in report["parts"] if part["part"].startswith("encoder")]
    assert {part["outcome"] for part in encoder} == {"copied"}
    assert report["parameters"]["share"] > (0.5 if layout == "nnssl" else 0.99)


@pytest.mark.full
@pytest.mark.parametrize("layout", LAYOUTS)
def test_start_to_prediction_by_nnunets_commands(
    layout: str,
    plans_file: Path,
    workspace: Any,
    results: Path,
    tmp_path: Path,
    small_descriptions: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    file, _ = LAYOUTS[layout](tmp_path)
    options = OPTIONS.get(layout, [])
    name = f"3d_like_{layout.replace(' ', '_')}"
    patch = ["--patch", "16", "16", "16"] if layout == "weights" else []
    assert main(["plan", "--like", str(file), "-d", "901", "--name", name, *patch, *options]) == 0
    call_entry_point(preprocess_entry, ["-d", "901", "-plans_name", "nnUNetPlans", "-c", name, "-np", "1"])
    start = tmp_path / "start.pth"
    tuning = ["-tr", "nnUNetTrainerFineTune", "-o", str(start)]
    assert main(["adapt-weights", str(file), "--to", "901", name, *tuning, *options]) == 0
    length = ["num_epochs=3", "num_iterations_per_epoch=2", "num_val_iterations_per_epoch=1", "save_every=1", "seed=1"]
    configure = ["configure", "-d", "901", "-c", name, "--name", f"{name}_tuned", *length]
    assert main([*configure, f"fine_tuning.source={start}"]) == 0
    stopped = build_trainer("nnUNetTrainerFineTune", f"{name}_tuned")
    stopped.num_epochs, stopped.on_train_end = 2, lambda: None
    stopped.run_training()
    start.rename(tmp_path / "kept.pth")  # to go on, nothing but the model's folder is needed
    if layout == "nnunet":
        arguments = ["901", f"{name}_tuned", "0", "-tr", "nnUNetTrainerFineTune", "-device", "cpu", "--c"]
        call_entry_point(run_training_entry, arguments)
    else:  # the same without the validation, whose processes take long
        assert train("nnUNetTrainerFineTune", f"{name}_tuned", resume=True).current_epoch == 3
    start = tmp_path / "kept.pth"
    folder = results / dataset_name("labels") / f"nnUNetTrainerFineTune__nnUNetPlans__{name}_tuned" / "fold_0"
    trained = read_checkpoint(folder / "checkpoint_final.pth")
    about = json.loads(json.dumps(trained["nnunet_ext"]["source"]))
    assert about["file"] == "start.pth"
    assert about["reader"] == layout.split()[0]
    before, after = (one["network_weights"] for one in (read_checkpoint(start), trained))
    key = next(key for key in before if key.endswith(("convs.0.conv.weight", "conv1.conv.weight", "conv1.weight")))
    assert 0 < float((before[key] - after[key]).abs().max()) < 0.5 * float(before[key].abs().max())
    images, out = workspace.raw / dataset_name("labels") / "imagesTs", tmp_path / "out"
    predict = ["-i", str(images), "-o", str(out), "-d", "901", "-c", f"{name}_tuned", "-f", "0"]
    predict += ["-tr", "nnUNetTrainerFineTune", "-device", "cpu", "-npp", "1", "-nps", "1", "--disable_progress_bar"]
    call_entry_point(predict_entry_point, predict)
    (prediction,) = out.glob("*.nii.gz")
    found = np.unique(sitk.GetArrayFromImage(sitk.ReadImage(str(prediction))))
    assert set(found) <= {0, 1, 2}
    exported = tmp_path / "exported"
    assert main(["export-stock", str(folder.parent), "-o", str(exported)]) == 0
    stock = read_checkpoint(exported / "fold_0" / "checkpoint_final.pth")
    is_plain = not layout.startswith("stunet")
    assert stock["trainer_name"] == ("nnUNetTrainer" if is_plain else "nnUNetTrainerSTUNetInference")
    assert (exported / TRAINER_FOLDER).is_dir() != is_plain
    if not is_plain:
        monkeypatch.setenv("nnUNet_extTrainer", str(exported / TRAINER_FOLDER))
    assert stock["nnunet_ext"]["exported_from"]["started_from"] == about
    again = tmp_path / "again"
    again.mkdir()
    predictor = nnUNetPredictor(device=torch.device("cpu"), allow_tqdm=False)
    predictor.initialize_from_trained_model_folder(str(exported), use_folds=(0,))
    predictor.predict_from_files_sequential(str(images), str(again))
    (same,) = again.glob("*.nii.gz")
    assert np.array_equal(*(sitk.GetArrayFromImage(sitk.ReadImage(str(file))) for file in (prediction, same)))


def test_options_change_patch_spacing_and_name(plans_file: Path, tmp_path: Path) -> None:
    file, _ = nnunet(tmp_path)
    options = ["--patch", "8", "12", "16", "--spacing", "data", "--name", "mine"]
    assert main(["plan", "--like", str(file), "-d", "901", *options]) == 0
    made = configuration(plans_file, "mine")
    assert (made["patch_size"], made["spacing"]) == ([8, 12, 16], [1.0, 1.0, 1.0])
    assert made["data_identifier"] == "nnUNetPlans_mine"
    assert made["normalization_schemes"] == ["CTNormalization"]


def test_command_that_makes_it_again_is_remembered(plans_file: Path, tmp_path: Path) -> None:
    file, _ = nnunet(tmp_path)
    assert main(["plan", "--like", str(file), "-d", "901", "--patch", "8", "8", "8"]) == 0
    made = configuration(plans_file)
    command = json.loads(plans_file.with_name(MEMORY).read_text())["nnUNetPlans"]["3d_fullres_like"]
    plans = json.loads(plans_file.read_text())
    del plans["configurations"]["3d_fullres_like"]
    plans_file.write_text(json.dumps(plans))
    import shlex

    assert main(shlex.split(command)[1:]) == 0
    assert configuration(plans_file) == made


def test_new_plans_have_the_models_intensities(plans_file: Path, tmp_path: Path) -> None:
    file, _ = nnunet(tmp_path)
    command = ["plan", "--like", str(file), "-d", "901", "--new-plans", "mine"]
    assert main(command) == 0
    plans = json.loads(plans_file.with_name("mine.json").read_text())
    assert plans["plans_name"] == "mine"
    assert plans["foreground_intensity_properties_per_channel"]["0"]["mean"] == 100.0
    assert list(plans["configurations"]) == ["3d_fullres_like"]
    assert plans["configurations"]["3d_fullres_like"]["data_identifier"] == "mine_3d_fullres_like"
    assert plans["configurations"]["3d_fullres_like"]["resampling_fn_data"] == "resample_data_or_seg_to_shape"
    assert "3d_fullres_like" not in json.loads(plans_file.read_text())["configurations"]
    assert main(command) == 0
    assert main([*command, "--patch", "8", "8", "8"]) == 2
    assert main([*command, "--patch", "8", "8", "8", "--force"]) == 0


def test_new_plans_never_replace_what_nnunet_planned(
    plans_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, _ = nnunet(tmp_path)
    before = plans_file.read_bytes()
    plans_file.with_name("mine.json").write_bytes(before)  # as nnU-Net's other planners name theirs
    command = ["plan", "--like", str(file), "-d", "901", "--force", "--new-plans"]
    for name, message in (("nnUNetPlans", "are the dataset's plans"), ("mine", "mine.json has other configurations")):
        assert main([*command, name]) == 2
        assert message in capsys.readouterr().err
        assert plans_file.read_bytes() == plans_file.with_name("mine.json").read_bytes() == before


def test_built_in_description_needs_no_file(
    plans_file: Path, small_descriptions: None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plan", "--like", "vocomni", "-d", "901"]) == 0
    assert configuration(plans_file)["spacing"] == GEOMETRY["spacing"]
    assert "huggingface.co/Luffy503/VoCo" in capsys.readouterr().out


def test_dataset_of_other_channels_is_told(
    plans_file: Path, workspace: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, _ = nnssl(tmp_path)
    regions = workspace.preprocessed / dataset_name("regions") / "nnUNetPlans.json"
    before = regions.read_bytes()
    try:
        assert main(["plan", "--like", str(file), "-d", "903"]) == 0
        assert configuration(regions)["normalization_schemes"] == ["ZScoreNormalization"] * 3
    finally:
        regions.write_bytes(before)
        regions.with_name(MEMORY).unlink(missing_ok=True)
    assert "The dataset has 3 channels (MRI, MRI, MRI), the model 1 (channel 0)" in capsys.readouterr().out


def test_licence_and_citation_are_said(plans_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--like", str(LAYOUTS["totalsegmentator"](tmp_path)[0]), "-d", "901"]) == 0
    said = capsys.readouterr().out
    assert "Licence: Apache-2.0 for the models" in said
    assert "See that it allows what you plan." in said
    assert "Wasserthal" in said


def test_checkpoint_of_another_framework_is_refused(
    plans_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = plans_file.read_bytes()
    file = tmp_path / "model.pt"
    torch.save({"state_dict": {"swinViT.patch_embed.proj.weight": torch.zeros(1)}}, file)
    assert main(["plan", "--like", str(file), "-d", "901"]) == 2
    assert "SwinUNETR" in capsys.readouterr().err
    file.write_bytes(b"\x89HDF\r\n\x1a\n")
    assert main(["plan", "--like", str(file), "-d", "901"]) == 2
    assert "torch has not written it" in capsys.readouterr().err
    assert plans_file.read_bytes() == before


def test_plans_that_name_code_are_refused(plans_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, _ = nnunet(tmp_path)
    content = torch.load(file, weights_only=True)
    content["init_args"]["plans"]["configurations"]["3d_fullres"]["architecture"]["network_class_name"] = "os.system"
    torch.save(content, file)
    assert main(["plan", "--like", str(file), "-d", "901"]) == 2
    assert "network_class_name 'os.system'" in capsys.readouterr().err


def test_options_of_the_other_kind_are_refused(
    plans_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, _ = nnunet(tmp_path)
    assert main(["plan", "--like", str(file), "-d", "901", "--epochs", "3"]) == 2
    assert "--epochs is for --preset" in capsys.readouterr().err
    assert main(["plan", "--preset", "quick", "-d", "901", "--patch", "8", "--name", "x"]) == 2
    assert "--name, --patch: for --like" in capsys.readouterr().err
