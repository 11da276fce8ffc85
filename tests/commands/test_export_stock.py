"""``nnunet_ext export-stock`` on models as nnU-Net leaves them on disk; tests/contract/ has it for every trainer."""

from __future__ import annotations

import json
import os
import pickle
import re
import shlex
import zipfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.model_sharing.model_import import install_model_from_zip_file
from nnunetv2.postprocessing.remove_connected_components import remove_all_but_largest_component_from_segmentation

from nnunet_ext.checkpoints import stock_export
from nnunet_ext.checkpoints.networks import build_network
from nnunet_ext.checkpoints.stock_export import Export
from nnunet_ext.cli import main
from nnunet_ext.commands.export_stock import export_summary
from nnunet_ext.files import sha256
from nnunet_ext.trainers import nnUNetTrainerConfigurable, nnUNetTrainerPartialLabels, nnUNetTrainerTDNet
from support.models import description

MODEL = description(dataset="Dataset004_Source")
STARTED_FROM = {"file": "start.pth", "reader": "nnssl", "citation": "@openmind", "licence": "CC BY 4.0"}
NAME = "nnUNetTrainerTDNet__nnUNetPlans__tiny"


def plans_with_channels() -> dict[str, Any]:
    """The plans, with what nnU-Net needs of them to know the network's inputs."""
    plans = json.loads(json.dumps(MODEL.plans))
    plans["configurations"]["base"]["normalization_schemes"] = ["ZScoreNormalization"]
    return plans


LABELS = [name for name in MODEL.dataset_json["labels"] if name not in ("background", "ignore")]


def write_model(
    folder: Path,
    trainer: Any = nnUNetTrainerTDNet,
    *,
    folds: tuple[Any, ...] = (0, 1),
    annotated: Sequence[str] = LABELS,
    **more: Any,
) -> Path:
    """What a training leaves: plans, dataset.json, and a checkpoint of each fold with an optimizer's state."""
    plans = plans_with_channels()
    dataset_json = {
        **MODEL.dataset_json,
        "file_ending": ".nii.gz",
        "numTraining": 2,
        "dataset": {"Jane_Doe": {"images": ["/secret/Jane_Doe_0000.nii.gz"], "label": "labelsTr/Jane_Doe.nii.gz"}},
        "nnunet_ext": {"annotated_labels": {"Jane_Doe": list(annotated)}, "sources": {"D": ["Jane_Doe"]}, **more},
    }
    folder.mkdir(parents=True)
    (folder / "plans.json").write_text(json.dumps(plans))
    (folder / "dataset.json").write_text(json.dumps(dataset_json))
    (folder / "dataset_fingerprint.json").write_text("{}")
    for fold in folds:
        network = build_network(trainer, MODEL.__class__(plans, "tiny", dataset_json), deep_supervision=True)
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.copy_(0.3 * torch.randn_like(parameter))
        optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
        for parameter in network.parameters():
            parameter.grad = torch.ones_like(parameter)
        optimizer.step()
        content = {
            "network_weights": network.state_dict(),
            "optimizer_state": optimizer.state_dict(),
            "grad_scaler_state": None,
            "logging": {"train_losses": [np.float32(0.5)]},
            "_best_ema": np.float64(0.4),
            "current_epoch": 7,
            "init_args": {
                "plans": plans,
                "configuration": "tiny",
                "fold": fold,
                "dataset_json": dataset_json,
                "device": torch.device("cpu"),
            },
            "trainer_name": trainer.__name__,
            "inference_allowed_mirroring_axes": (0, 1, 2),
            "nnunet_ext": {"version": "0.0.1", "settings": {"num_epochs": 7}, "source": STARTED_FROM},
        }
        (folder / f"fold_{fold}").mkdir()
        torch.save(content, folder / f"fold_{fold}" / "checkpoint_final.pth")
    return folder


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_model(tmp_path / "results ü" / "Dataset004_Source" / NAME)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "an exported model é"


def refusal(capsys: pytest.CaptureFixture[str], *arguments: str | os.PathLike[str], status: int = 2) -> str:
    assert main(["export-stock", *map(os.fspath, arguments)]) == status
    return capsys.readouterr().err


def loaded(folder: Path, folds: tuple[Any, ...] = (0,)) -> nnUNetPredictor:
    predictor = nnUNetPredictor(device=torch.device("cpu"), allow_tqdm=False)
    predictor.initialize_from_trained_model_folder(str(folder), folds)
    return predictor


def test_nnunet_loads_the_stock_network_with_the_same_logits(model, out, capsys):
    assert main(["export-stock", str(model), "-o", str(out)]) == 0
    assert "nnUNetTrainerTDNet -> nnUNetTrainer" in capsys.readouterr().out
    data = torch.randn(1, 1, 16, 16, 16)
    for fold in (0, 1):
        before, after = loaded(model, (fold,)), loaded(out, (fold,))
        assert after.trainer_name == "nnUNetTrainer"
        assert after.allowed_mirroring_axes == (0, 1, 2)
        assert type(after.network).__name__ == "PlainConvUNet"
        for predictor in (before, after):
            predictor.network.load_state_dict(predictor.list_of_parameters[0])
        with torch.no_grad():
            assert torch.equal(before.network.eval()(data), after.network.eval()(data))


def test_what_only_training_needs_is_gone_and_the_sizes_are_told(model, out, capsys):
    assert main(["export-stock", str(model), "-o", str(out)]) == 0
    sizes = [(path / "fold_0" / "checkpoint_final.pth").stat().st_size for path in (model, out)]
    told = capsys.readouterr().out
    assert f"fold_0: {sizes[0] / 1e6:.1f} -> {sizes[1] / 1e6:.1f} MB, without auxiliary_decoders (" in told
    assert sizes[1] < sizes[0] / 3
    content = torch.load(out / "fold_0" / "checkpoint_final.pth", weights_only=True)
    assert not {"optimizer_state", "grad_scaler_state", "logging"} & set(content)


def check_names_no_training_case(folder: Path) -> None:
    for file in folder.rglob("*"):
        if file.is_file():
            assert b"Jane" not in file.read_bytes()
            assert b"secret" not in file.read_bytes()


def test_no_training_case_is_named(model, out):
    assert main(["export-stock", str(model), "-o", str(out)]) == 0
    check_names_no_training_case(out)
    assert json.loads((out / "dataset.json").read_text())["numTraining"] == 2


@pytest.mark.parametrize("folder", ["/secret/Jane Doe/", "C:\\secret\\Jane Doe\\"])
def test_no_folder_of_the_image_that_others_were_matched_to_is_named(tmp_path, out, folder):
    pairing = {"modality": "MRI", "match_histogram": f"{folder}like ü.nii.gz"}
    model = write_model(tmp_path / NAME, pairing=pairing)
    assert main(["export-stock", str(model), "-o", str(out)]) == 0
    exported = json.loads((out / "dataset.json").read_text())
    assert exported["nnunet_ext"]["pairing"] == {**pairing, "match_histogram": "like ü.nii.gz"}
    check_names_no_training_case(out)
    content = torch.load(out / "fold_1" / "checkpoint_final.pth", weights_only=True)
    assert content["init_args"]["dataset_json"] == exported


def test_pairs_that_were_matched_to_no_image_stay_as_they_are(tmp_path, out):
    pairing = {"modality": "MRI", "match_histogram": None}
    assert main(["export-stock", str(write_model(tmp_path / NAME, pairing=pairing)), "-o", str(out)]) == 0
    assert json.loads((out / "dataset.json").read_text())["nnunet_ext"]["pairing"] == pairing


@pytest.mark.parametrize(
    ("trainer", "said"), [(nnUNetTrainerTDNet, {"missing_labels": "background"}), (nnUNetTrainerPartialLabels, {})]
)
def test_what_was_learned_of_missing_labels_is_said(tmp_path, trainer, said):
    model = write_model(tmp_path / f"{trainer.__name__}__nnUNetPlans__tiny", trainer, annotated=[])
    assert main(["export-stock", str(model), "-o", str(tmp_path / "out")]) == 0
    assert json.loads((tmp_path / "out" / "dataset.json").read_text())["nnunet_ext"] == said


def test_where_it_comes_from_is_in_the_checkpoint_and_beside_it(model, out):
    assert main(["export-stock", str(model), "-o", str(out)]) == 0
    record = json.loads((out / "nnunet_ext_export.json").read_text())
    assert record["trainer"] == "nnUNetTrainerTDNet"
    assert record["versions"]["torch"] == torch.__version__.partition("+")[0]
    about = torch.load(out / "fold_1" / "checkpoint_final.pth", weights_only=True)["nnunet_ext"]["exported_from"]
    source = model / "fold_1" / "checkpoint_final.pth"
    for found in (about, record["folds"]["1"]):
        assert found["sha256"] == sha256(source)
        assert found["settings"] == {"num_epochs": 7}
        assert found["epochs"] == 7
        assert found["started_from"] == STARTED_FROM
        assert found["trained_with"] == {"nnunet_ext": "0.0.1"}
    assert record["folds"]["1"]["exported"]["sha256"] == sha256(out / "fold_1" / "checkpoint_final.pth")


def test_chosen_folds_and_another_checkpoint(model, out):
    (model / "fold_1" / "checkpoint_final.pth").rename(model / "fold_1" / "checkpoint_best.pth")
    arguments = ["export-stock", str(model), "-o", str(out), "-f", "1", "--checkpoint", "checkpoint_best.pth"]
    assert main(arguments) == 0
    assert [path.name for path in out.glob("fold_*/*")] == ["checkpoint_final.pth"]
    assert (out / "fold_1").is_dir()


def test_a_fold_that_has_not_ended_is_told(model, out, capsys):
    (model / "fold_1" / "checkpoint_final.pth").rename(model / "fold_1" / "checkpoint_best.pth")
    message = refusal(capsys, model, "-o", out)
    assert f"{Path('fold_1') / 'checkpoint_final.pth'} does not exist" in message
    assert "fold_0/checkpoint_final.pth, fold_1/checkpoint_best.pth" in message
    assert not out.exists()


def test_the_fold_of_all_cases(tmp_path, out):
    model = write_model(tmp_path / "model", folds=("all",))
    assert main(["export-stock", str(model), "-o", str(out)]) == 0
    assert loaded(out, ("all",)).trainer_name == "nnUNetTrainer"


def test_nothing_is_replaced_unless_asked(model, out, capsys):
    assert main(["export-stock", str(model), "-o", str(out)]) == 0
    assert "--force" in refusal(capsys, model, "-o", out)
    (out / "fold_0" / "stale").touch()
    assert main(["export-stock", str(model), "-o", str(out), "--force"]) == 0
    assert not (out / "fold_0" / "stale").exists()
    assert "is the input" in refusal(capsys, model, "-o", model, "--force")
    assert (model / "fold_0" / "checkpoint_final.pth").is_file()


def test_other_logits_leave_nothing_behind(model, out, capsys, monkeypatch):
    stock_weights = stock_export.stock_weights

    def wrong(weights: Any, stock: Any) -> Any:
        kept, left_out = stock_weights(weights, stock)
        kept["decoder.seg_layers.1.bias"] = kept["decoder.seg_layers.1.bias"] + 1e-3
        return kept, left_out

    monkeypatch.setattr(stock_export, "stock_weights", wrong)
    assert "gives other logits (largest difference 0.00" in refusal(capsys, model, "-o", out)
    assert list(out.parent.glob("*export*")) == []


def test_a_full_disk_leaves_nothing_behind(model, out, capsys, monkeypatch):
    def full(*arguments: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    message = refusal(capsys, model, "-o", out, status=1)
    assert f"{out / 'fold_0' / 'checkpoint_final.pth'}: No space left on device. " in message
    assert list(out.parent.glob("*export*")) == []


class Bomb:
    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.file),)


def test_code_in_a_checkpoint_is_refused_and_not_run(model, out, capsys, tmp_path):
    file = model / "fold_0" / "checkpoint_final.pth"
    content = torch.load(file, weights_only=False)
    torch.save({**content, "logging": Bomb(tmp_path / "ran")}, file)
    message = refusal(capsys, model, "-o", out)
    assert "posix.mkdir" in message or "nt.mkdir" in message
    assert not (tmp_path / "ran").exists()
    assert not out.exists()
    torch.load(file, weights_only=False)  # the attack is real: this is how nnU-Net reads
    assert (tmp_path / "ran").exists()


def test_folds_of_different_trainings_are_refused(model, out, capsys):
    file = model / "fold_1" / "checkpoint_final.pth"
    content = torch.load(file, weights_only=False)
    torch.save({**content, "trainer_name": "nnUNetTrainerDMPLS"}, file)
    message = refusal(capsys, model, "-o", out)
    assert "is of nnUNetTrainerDMPLS with tiny, the first fold of nnUNetTrainerTDNet with tiny" in message


def test_weights_of_another_network_are_refused(model, out, capsys):
    file = model / "fold_0" / "checkpoint_final.pth"
    content = torch.load(file, weights_only=False)
    del content["network_weights"]["decoder.seg_layers.0.bias"]
    torch.save(content, file)
    assert "does not fit the network that nnUNetTrainerTDNet builds" in refusal(capsys, model, "-o", out)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"patch_size": None}, "has no patch_size, which nnU-Net always writes"),
        ({"patch_size": [15, 15, 15]}, "has a patch_size of 15 x 15 x 15 voxels, which the network cannot take"),
        ({"patch_size": [100_000] * 3}, "or the memory cannot hold"),
        ({"architecture": {"arch_kwargs": {}}}, "has no network_class_name"),
    ],
)
def test_plans_that_lack_what_is_needed_are_named(model, out, capsys, change, told):
    file = model / "plans.json"
    plans = json.loads(file.read_text())
    plans["configurations"]["base"].update(change)
    file.write_text(json.dumps(plans))
    assert told in refusal(capsys, model, "-o", out)
    assert not out.exists()


def test_restored_images_are_no_segmentation(model, out, capsys):
    file = model / "fold_0" / "checkpoint_final.pth"
    content = torch.load(file, weights_only=False)
    content["nnunet_ext"]["outputs"] = "images"
    torch.save(content, file)
    assert "restore images" in refusal(capsys, model, "-o", out)


def test_a_network_that_is_not_stock_is_refused(tmp_path, out, capsys, monkeypatch):
    class Wider(nnUNetTrainerConfigurable):
        @staticmethod
        def build_network_architecture(plans_manager, configuration_manager, inputs, outputs, deep_supervision=True):
            return nnUNetTrainerConfigurable.build_network_architecture(
                plans_manager, configuration_manager, inputs, outputs + 1, deep_supervision
            )

    monkeypatch.setattr(stock_export, "find_trainer", lambda name: Wider)
    message = refusal(capsys, write_model(tmp_path / "model", Wider), "-o", out)
    assert "The network of Wider is not the one that plain nnU-Net builds" in message
    assert "seg_layers" in message


def test_what_is_no_model_is_told(tmp_path, out, capsys):
    assert "does not exist" in refusal(capsys, tmp_path / "nothing", "-o", out)
    (tmp_path / "empty").mkdir()
    assert "has no plans.json" in refusal(capsys, tmp_path / "empty", "-o", out)
    (tmp_path / "text.zip").write_text("text")
    assert "no zip archive" in refusal(capsys, tmp_path / "text.zip", "-o", out)


def test_the_archive_is_installed_by_nnunet(model, tmp_path, monkeypatch, capsys):
    archive = tmp_path / "heart ü.zip"
    assert main(["export-stock", str(model), "-o", str(archive), "--zip"]) == 0
    told = capsys.readouterr().out
    assert f"nnUNetv2_install_pretrained_model_from_zip '{archive}'" in told
    assert "This overwrites Dataset004_Source/nnUNetTrainer__nnUNetPlans__tiny where" in told
    assert "Predict: nnUNetv2_predict -d Dataset004_Source -tr nnUNetTrainer -p nnUNetPlans -c tiny -i IN" in told
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.setenv("nnUNet_results", str(elsewhere))
    install_model_from_zip_file(str(archive))
    installed = elsewhere / "Dataset004_Source" / "nnUNetTrainer__nnUNetPlans__tiny"
    assert loaded(installed, (0, 1)).trainer_name == "nnUNetTrainer"

    assert "--force" in refusal(capsys, model, "-o", archive, "--zip")
    assert main(["export-stock", str(model), "-o", str(archive), "--zip", "--force"]) == 0
    assert "ends in .zip" in refusal(capsys, model, "-o", tmp_path / "model", "--zip")
    other = zipped(tmp_path / "other.zip", model)
    before = other.read_bytes()
    assert "does not say that this command made it" in refusal(capsys, model, "-o", other, "--zip", "--force")
    assert other.read_bytes() == before
    assert [path.name for path in tmp_path.glob(".*")] == []


def zipped(file: Path, *folders: Path) -> Path:
    with zipfile.ZipFile(file, "w") as archive:
        for folder in folders:
            for path in folder.rglob("*"):
                archive.write(path, Path(folder.parent.name, folder.name, path.relative_to(folder)))
    return file


def test_a_model_is_taken_out_of_an_archive(model, out, tmp_path):
    archive = zipped(tmp_path / "from elsewhere.zip", model)
    assert main(["export-stock", str(archive), "-o", str(out)]) == 0
    assert loaded(out, (0, 1)).trainer_name == "nnUNetTrainer"


def test_one_of_several_models_in_an_archive_is_named(model, out, tmp_path, capsys):
    other = write_model(model.with_name("nnUNetTrainerConfigurable__nnUNetPlans__tiny"), nnUNetTrainerConfigurable)
    archive = zipped(tmp_path / "several.zip", model, other)
    message = refusal(capsys, archive, "-o", out)
    assert f"- Dataset004_Source/{NAME}" in message
    assert f"- Dataset004_Source/{other.name}" in message
    assert main(["export-stock", str(archive), "-o", str(out), "--inside", f"Dataset004_Source/{other.name}"]) == 0
    assert json.loads((out / "nnunet_ext_export.json").read_text())["trainer"] == "nnUNetTrainerConfigurable"
    assert "is a folder" in refusal(capsys, model, "-o", out, "--inside", "x", "--force")


def test_a_malicious_archive_is_refused(model, out, tmp_path, capsys):
    archive = zipped(tmp_path / "evil.zip", model)
    with zipfile.ZipFile(archive, "a") as handle:
        handle.writestr("Dataset004_Source/../../../evil.pth", b"x")
    assert "leads out of the folder" in refusal(capsys, archive, "-o", out)
    assert not out.exists()
    assert not list(tmp_path.rglob("evil.pth"))


def write_postprocessing(model: Path) -> str:
    """What nnU-Net's search for the best configuration leaves; returns the folder's name."""
    name = "crossval_results_folds_0_1"
    (model / name).mkdir()
    text = {
        "postprocessing_fns": ["remove_all_but_largest_component_from_segmentation"],
        "postprocessing_kwargs": [{"labels_or_regions": [1, 2]}],
    }
    (model / name / "postprocessing.json").write_text(json.dumps(text))
    return name


@pytest.mark.parametrize("annotated", [LABELS, []])
def test_postprocessing_that_took_missing_labels_for_background_is_told(tmp_path, out, capsys, annotated):
    model = write_model(tmp_path / NAME, annotated=annotated)
    write_postprocessing(model)
    assert main(["export-stock", str(model), "-o", str(out)]) == 0
    assert ("labels that nobody looked for counted as background" in capsys.readouterr().out) == (annotated == [])
    assert main(["export-stock", str(model), "-o", str(out), "-f", "0", "--force"]) == 0
    assert "counted as background" not in capsys.readouterr().out, "without postprocessing there is nothing to tell"


def test_postprocessing_of_the_same_folds_goes_along(model, out, capsys):
    name = write_postprocessing(model)
    assert main(["export-stock", str(model), "-o", str(out)]) == 0
    assert f"Postprocessing: {name}" in capsys.readouterr().out
    functions, kwargs = pickle.loads((out / name / "postprocessing.pkl").read_bytes())
    assert functions == [remove_all_but_largest_component_from_segmentation]
    assert kwargs == [{"labels_or_regions": [1, 2]}]
    # nnU-Net's name has the folds in the order that they were searched in
    assert main(["export-stock", str(model), "-o", str(out), "-f", "1", "0", "--force"]) == 0
    assert (out / name / "postprocessing.pkl").is_file()
    capsys.readouterr()
    # that of other folds does not fit
    assert main(["export-stock", str(model), "-o", str(out), "-f", "0", "--force"]) == 0
    assert not (out / name).exists()
    assert f"Postprocessing: none for these folds; there is {name}" in capsys.readouterr().out


@pytest.mark.parametrize("is_zip", [False, True])
def test_the_second_stage_of_a_cascade_says_whose_predictions_it_needs(is_zip):
    """And the command that is printed is one of nnU-Net's."""
    exported = Export(
        trainer="nnUNetTrainerMixUp",
        exported_trainer="nnUNetTrainer",
        configuration="3d_cascade_fullres",
        dataset="Dataset004_Source",
        plans="nnUNetPlans",
        folds={},
        has_trainer_file=False,
        postprocessing=None,
        other_postprocessing=(),
        previous_stage="3d_lowres",
    )
    *_, before, command = export_summary(exported, Path("made"), is_zip=is_zip).splitlines()
    assert "export 3d_lowres too, and predict IN with that first" in before
    assert command.endswith(" -prev_stage_predictions PREDICTIONS_OF_3d_lowres")
    alone = export_summary(replace(exported, previous_stage=None), Path("made"), is_zip=is_zip)
    assert "cascade:" not in alone
    assert "prev_stage" not in alone


@pytest.mark.parametrize("is_zip", [False, True])
def test_printed_lines_do_what_they_say_whatever_the_names(is_zip):
    """The names come from a model that may be anybody's."""
    names = {"configuration": "$(touch x)", "dataset": "Dataset004_a; touch x", "plans": "`touch x`"}
    empty = {"folds": {}, "postprocessing": None, "other_postprocessing": (), "previous_stage": None}
    about = Export(trainer="A", exported_trainer="B", has_trainer_file=True, **names, **empty)
    lines = export_summary(about, Path("made $(touch x)"), is_zip=is_zip).splitlines()
    told = {line.partition(": ")[0]: line.partition(": ")[2] for line in lines}
    for line in ("Where it predicts", "Predict"):
        words = shlex.split(told[line])  # in double quotes and without any, a shell would run what $ and ` begin
        assert "`" not in re.sub("'[^']*'", "", told[line])
        assert re.sub("'[^']*'", "", told[line]).count("$") == ("$nnUNet_results" in told[line])
        assert not [word for word in words if word.startswith("touch")]


@pytest.mark.parametrize("key", ["dataset_name", "plans_name"])
def test_names_that_lead_out_of_the_archive_are_refused(model, tmp_path, capsys, key):
    plans = json.loads((model / "plans.json").read_text())
    (model / "plans.json").write_text(json.dumps({**plans, key: "../../x"}))
    assert main(["export-stock", str(model), "--zip", "-o", str(tmp_path / "out.zip")]) == 2
    assert "'../../x' cannot be the name of a folder" in capsys.readouterr().err


def test_a_read_only_model_is_exported(model, out):
    for path in [model, *model.rglob("*")]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    try:
        assert main(["export-stock", str(model), "-o", str(out)]) == 0
    finally:
        for path in [model, *model.rglob("*")]:
            path.chmod(0o755)
    assert all(path.stat().st_mode & 0o200 for path in [out, *out.rglob("*")]), "it can be replaced"


def test_help_has_examples(capsys):
    with pytest.raises(SystemExit):
        main(["export-stock", "--help"])
    assert "nnUNetv2_predict_from_modelfolder -m OUT" in capsys.readouterr().out
