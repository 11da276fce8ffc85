"""``nnunet_ext adapt-weights`` between datasets as nnU-Net plans them, up to nnU-Net's own loading of the result."""

from __future__ import annotations

import hashlib
import json
import math
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from nnunetv2.run.load_pretrained_weights import load_pretrained_weights
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from nnunet_ext.checkpoints.description import planned_model
from nnunet_ext.checkpoints.networks import build_network, find_trainer
from nnunet_ext.checkpoints.reading import read_checkpoint
from nnunet_ext.checkpoints.sources.nnunet import NNUNET
from nnunet_ext.cli import main
from nnunet_ext.files import sha256
from nnunet_ext.registry import TRAINERS
from support.public_weights import LAYOUTS, model, nnssl, nnunet
from support.tiny_data import dataset_name

RESENC = "nnUNetResEncUNetMPlans"
FIRST = "encoder.stages.0.0.convs.0.conv.weight"


@pytest.fixture
def preprocessed(workspace: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Plans and dataset.json of the tiny datasets in a folder of this test's own."""
    root = tmp_path / "pre processed ü"
    for kind in ("labels", "ignore", "regions"):
        folder = root / dataset_name(kind)
        folder.mkdir(parents=True)
        for file in (workspace.preprocessed / folder.name).glob("*.json"):
            shutil.copy(file, folder)
    monkeypatch.setenv("nnUNet_preprocessed", str(root))
    return root


def network_for(dataset: str, configuration: str, plans: str = "nnUNetPlans") -> torch.nn.Module:
    return build_network(nnUNetTrainer, planned_model(dataset, configuration, plans_name=plans), deep_supervision=True)


def write_source(file: Path, *, dataset: str = "901", plans: str = "nnUNetPlans") -> torch.nn.Module:
    """Write what nnU-Net would for a model trained on the configuration 3d_tiny; returns its network."""
    model = planned_model(dataset, "3d_tiny", plans_name=plans)
    network = build_network(nnUNetTrainer, model, deep_supervision=True)
    with torch.no_grad():
        for parameter in network.parameters():  # nnU-Net's initial norms and biases are the same in every network
            parameter.copy_(0.3 * torch.randn_like(parameter))
    content = {
        "network_weights": network.state_dict(),
        "init_args": {
            "plans": model.plans,
            "configuration": "3d_tiny",
            "fold": 0,
            "dataset_json": model.dataset_json,
            "device": torch.device("cpu"),
        },
        "trainer_name": "nnUNetTrainer",
    }
    torch.save(content, file)
    return network


@pytest.fixture
def source(preprocessed: Path, tmp_path: Path) -> Path:
    file = tmp_path / "checkpoint final é.pth"
    write_source(file)
    return file


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "start weights.pth"


def adapt_weights(source: Path, out: Path, *options: str, to: tuple[str, str] = ("902", "3d_tiny")) -> int:
    trainer = () if "--trainer" in options else ("--trainer", "nnUNetTrainerMixUp")
    return main(["adapt-weights", str(source), "--to", *to, "-o", str(out), *trainer, *options])


def test_residual_encoder_goes_from_one_to_three_channels_by_the_advised_commands(
    preprocessed: Path, tmp_path: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "resenc.pth"
    network = write_source(source, plans=RESENC).double()
    assert adapt_weights(source, out, to=("903", "3d_tiny")) == 2
    message = capsys.readouterr().err
    assert "network_class_name" in message
    assert not out.exists()

    plan = next(line for line in message.splitlines() if "plan --like" in line)
    command = plan.replace("SOURCE", shlex.quote(str(source))).partition("nnunet_ext ")[2]
    assert main(shlex.split(command)) == 0
    assert "nnUNetv2_preprocess -d 903 -plans_name nnUNetPlans -c 3d_fullres_like" in message
    capsys.readouterr()
    assert adapt_weights(source, out, to=("903", "3d_fullres_like")) == 0
    table = capsys.readouterr().out
    assert "encoder.stem.convs.0.conv.weight" in table
    assert "1 -> 3 input channels" in table
    assert "sigmoid head, but the source's is softmax" in table

    start = network_for("903", "3d_fullres_like")
    start.load_state_dict(read_checkpoint(out)["network_weights"], strict=True)
    channel = torch.randn(1, 1, 16, 16, 16, dtype=torch.float64)
    features = start.double().encoder(channel.expand(-1, 3, -1, -1, -1))
    for new, old in zip(features, network.encoder(channel), strict=True):
        torch.testing.assert_close(new, old, rtol=1e-5, atol=1e-5)


def test_nnunet_accepts_the_file(source: Path, out: Path) -> None:
    assert adapt_weights(source, out) == 0
    network = network_for("902", "3d_tiny")
    load_pretrained_weights(network, str(out))
    given = torch.load(source, weights_only=False)["network_weights"]
    for key, value in network.state_dict().items():
        assert torch.equal(value, given[key]) == (".seg_layers." not in key)


def test_heads_of_known_labels_are_in_the_file_and_dropped_on_request(source: Path, out: Path) -> None:
    given = read_checkpoint(source)["network_weights"]
    assert adapt_weights(source, out) == 0
    assert torch.equal(
        read_checkpoint(out)["network_weights"]["decoder.seg_layers.0.weight"], given["decoder.seg_layers.0.weight"]
    )
    assert adapt_weights(source, out, "--drop-heads", "--force") == 0
    assert not torch.equal(
        read_checkpoint(out)["network_weights"]["decoder.seg_layers.0.weight"], given["decoder.seg_layers.0.weight"]
    )


def test_file_says_what_it_is_and_where_it_comes_from(source: Path, out: Path) -> None:
    assert adapt_weights(source, out) == 0
    content = read_checkpoint(out)
    folder = dataset_name("ignore")
    assert content["trainer_name"] == "nnUNetTrainerMixUp"
    assert content["init_args"]["plans"]["dataset_name"] == folder
    assert content["init_args"]["configuration"] == "3d_tiny"
    assert "ignore" in content["init_args"]["dataset_json"]["labels"]
    assert content["nnunet_ext"]["adapted_from"] == {
        "file": source.name,
        "sha256": hashlib.sha256(source.read_bytes()).hexdigest(),
        "trainer": "nnUNetTrainer",
        "reader": "nnunet",
        "kind": "segmentation",
        "citation": NNUNET,
    }


def test_result_can_be_a_source_itself(source: Path, out: Path, tmp_path: Path) -> None:
    again = tmp_path / "again.pth"
    assert adapt_weights(source, out) == 0
    assert adapt_weights(out, again, to=("901", "3d_tiny")) == 0
    given, result = read_checkpoint(source)["network_weights"], read_checkpoint(again)["network_weights"]
    for key, value in given.items():
        assert torch.equal(result[key], value)


def test_output_tells_how_the_heads_are_loaded(source: Path, out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert adapt_weights(source, out) == 0
    said = capsys.readouterr().out
    assert f"Wrote {out}" in said
    assert "-pretrained_weights loads everything but the heads" in said
    assert "fine_tuning.source" in said


def test_nothing_is_overwritten_without_force(source: Path, out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert adapt_weights(source, out) == 0
    before = out.read_bytes()
    assert adapt_weights(source, out) == 2
    assert "add --force to replace it" in capsys.readouterr().err
    assert out.read_bytes() == before
    assert adapt_weights(source, out, "--drop-heads", "--force") == 0
    assert out.read_bytes() != before
    assert "network_weights" in read_checkpoint(out)


def test_what_this_command_did_not_write_is_kept_even_with_force(
    source: Path, out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trained = Path(shutil.copy(source, tmp_path / "checkpoint_final.pth"))
    tuned = torch.load(source, weights_only=False)
    torch.save({**tuned, "nnunet_ext": {"version": "1", "source": {}}}, tmp_path / "tuned.pth")
    (tmp_path / "text.pth").write_text("mine")
    for file in (trained, tmp_path / "tuned.pth", tmp_path / "text.pth"):
        before = file.read_bytes()
        assert adapt_weights(source, file, "--force") == 2
        assert "does not say that this command made it" in capsys.readouterr().err
        assert file.read_bytes() == before
    splits = tmp_path / "splits_final.json"
    splits.write_text("[]")
    assert adapt_weights(source, splits, "--force") == 2
    assert "ends in .pth" in capsys.readouterr().err
    out.touch()
    assert adapt_weights(source, out, "--force") == 0, "an empty file is nobody's work"


def test_source_is_never_replaced(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = source.read_bytes()
    model = source.parent / "a model's folder"
    (model / "fold_0").mkdir(parents=True)
    for name in ("plans.json", "dataset.json"):
        (model / name).write_text("{}")
    checkpoint = Path(shutil.copy(source, model / "fold_0" / "checkpoint_final.pth"))
    for given, file in ((source, source), (model, checkpoint)):
        assert adapt_weights(given, file, "--force") == 2
        assert "is the source itself" in capsys.readouterr().err
        assert file.read_bytes() == before


def test_interrupted_writing_leaves_what_was_there(source: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert adapt_weights(source, out) == 0
    before = out.read_bytes()

    def interrupted(content: Any, handle: Any) -> None:
        handle.write(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", interrupted)
    assert adapt_weights(source, out, "--force") == 130
    assert out.read_bytes() == before
    assert not list(out.parent.glob(".*tmp"))


def test_disk_that_is_full_is_named(
    source: Path, out: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(content: Any, handle: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    assert adapt_weights(source, out) == 1
    assert f"{out}: No space left on device. Make room" in capsys.readouterr().err
    assert not out.exists()


def test_output_that_cannot_be(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert adapt_weights(source, tmp_path) == 2
    assert "is a folder" in capsys.readouterr().err
    assert adapt_weights(source, tmp_path / "missing" / "start.pth") == 2
    assert "missing does not exist" in capsys.readouterr().err


def test_folder_as_source_names_its_files(source: Path, out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert adapt_weights(source.parent, out) == 2
    message = capsys.readouterr().err
    assert "is a folder" in message
    assert source.name in message


def test_unknown_trainer_lists_ours(source: Path, out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert adapt_weights(source, out, "--trainer", "nnUNetTrainerMixup") == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    for entry in TRAINERS:
        assert entry.name in captured.err


def test_trainer_of_nnunet_is_found(source: Path, out: Path) -> None:
    assert adapt_weights(source, out, "--trainer", "nnUNetTrainerNoDeepSupervision") == 0
    assert find_trainer("nnUNetTrainerNoDeepSupervision").__name__ == "nnUNetTrainerNoDeepSupervision"


def test_our_trainer_is_found_without_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("nnUNet_extTrainer", raising=False)
    assert find_trainer("nnUNetTrainerMixUp").__module__ == "nnunet_ext.trainers.mixup"


def test_trainer_with_another_network_is_named(source: Path, out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert adapt_weights(source, out, "--trainer", "nnUNetTrainerBN") == 2
    message = capsys.readouterr().err
    assert "running_mean: source missing" in message
    assert "the trainers build different networks" in message


def test_trainer_of_the_older_signature_is_built(preprocessed: Path) -> None:
    seen: list[Any] = []

    class Old:
        @staticmethod
        def build_network_architecture(
            name: str, kwargs: Any, imports: Any, channels: int, heads: int, enable_deep_supervision: bool = True
        ) -> torch.nn.Module:
            seen.extend((name.rsplit(".", 1)[-1], kwargs["n_stages"], channels, heads, enable_deep_supervision))
            return torch.nn.Identity()

    model = planned_model("903", "3d_tiny", plans_name="nnUNetPlans")
    assert isinstance(build_network(Old, model, deep_supervision=True), torch.nn.Identity)
    assert seen == ["PlainConvUNet", 5, 3, 2, True]


def test_unknown_configuration_lists_those_there(source: Path, out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert adapt_weights(source, out, to=("902", "3d_full")) == 2
    message = capsys.readouterr().err
    assert "no configuration '3d_full'" in message
    assert "3d_fullres" in message


def test_missing_dataset_json_is_named(
    source: Path, out: Path, preprocessed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (preprocessed / dataset_name("ignore") / "dataset.json").unlink()
    assert adapt_weights(source, out) == 2
    assert "dataset.json does not exist" in capsys.readouterr().err


def test_cascade_is_a_target(source: Path, out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert adapt_weights(source, out, to=("901", "3d_cascade_tiny")) == 0
    random = "random: shell of the previous stage, core of the previous stage"
    assert f"image channels copied; {random}" in capsys.readouterr().out
    weights = read_checkpoint(out)["network_weights"]
    assert network_for("901", "3d_cascade_tiny").load_state_dict(weights)
    # labels of the previous stage are no image, and take nothing of its weights
    assert torch.equal(weights[FIRST][:, :1], read_checkpoint(source)["network_weights"][FIRST])


def test_plans_with_text_beyond_ascii_stay_readable(source: Path, out: Path, preprocessed: Path) -> None:
    file = preprocessed / dataset_name("ignore") / "dataset.json"
    content = json.loads(file.read_text())
    content["labels"] = {"background": 0, "Tumor-Ödem": 1, "core": 2, "ignore": 3}
    file.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
    assert adapt_weights(source, out) == 0
    assert "Tumor-Ödem" in read_checkpoint(out)["init_args"]["dataset_json"]["labels"]


def test_model_between_source_and_tuned_predicts_with_nnunet(source: Path, out: Path, tmp_path: Path) -> None:
    tuned = tmp_path / "tuned.pth"
    write_source(tuned, dataset="902")
    content = torch.load(tuned, weights_only=False)
    begun = {"source": {"file": source.name}}  # what fine_tuning.source leaves
    torch.save({**content, "inference_allowed_mirroring_axes": (0, 1), "nnunet_ext": begun}, tuned)
    assert adapt_weights(source, out, "--interpolate", "0.25", "--tuned", str(tuned)) == 0
    result = read_checkpoint(out)
    old, new = read_checkpoint(source)["network_weights"], content["network_weights"]
    for key, value in result["network_weights"].items():
        torch.testing.assert_close(value, 0.75 * old[key] + 0.25 * new[key])
    assert result["inference_allowed_mirroring_axes"] == (0, 1)
    assert result["nnunet_ext"]["adapted_from"]["interpolated"] == {
        "amount": 0.25,
        "tuned": tuned.name,
        "sha256": hashlib.sha256(tuned.read_bytes()).hexdigest(),
    }


def test_heads_that_began_anew_are_the_tuned_models(
    source: Path, out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tuned = tmp_path / "tuned.pth"  # it began by -pretrained_weights, which gives no heads
    write_source(tuned, dataset="902")
    assert adapt_weights(source, out, "--interpolate", "0.25", "--tuned", str(tuned)) == 0
    assert "The tuned model began with heads of its own" in capsys.readouterr().out
    old, new, between = (read_checkpoint(file)["network_weights"] for file in (source, tuned, out))
    for key, value in between.items():
        is_head = ".seg_layers." in key
        torch.testing.assert_close(value, new[key] if is_head else 0.75 * old[key] + 0.25 * new[key])


@pytest.mark.parametrize("keep_heads", [True, False])
def test_heads_that_fine_tuning_did_not_keep_are_the_tuned_models(
    source: Path, out: Path, tmp_path: Path, keep_heads: bool
) -> None:
    tuned = tmp_path / "tuned.pth"
    write_source(tuned, dataset="902")
    content = torch.load(tuned, weights_only=False)
    begun = {"file": source.name, "sha256": sha256(source), "keep_heads": keep_heads}
    torch.save({**content, "nnunet_ext": {"source": begun}}, tuned)
    assert adapt_weights(source, out, "--interpolate", "0.25", "--tuned", str(tuned)) == 0
    old, new, between = (read_checkpoint(file)["network_weights"] for file in (source, tuned, out))
    for key, value in between.items():
        has_own = ".seg_layers." in key and not keep_heads
        torch.testing.assert_close(value, new[key] if has_own else 0.75 * old[key] + 0.25 * new[key])


def test_a_source_that_the_tuning_did_not_begin_with_is_refused(
    source: Path, out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tuned, start = tmp_path / "tuned.pth", tmp_path / "start.pth"
    write_source(tuned, dataset="902")
    assert adapt_weights(source, start, "--drop-heads") == 0
    content = torch.load(tuned, weights_only=False)
    begun = {"file": start.name, "sha256": sha256(start), "keep_heads": True}
    torch.save({**content, "nnunet_ext": {"source": begun}}, tuned)
    between = ("--interpolate", "0.25", "--tuned", str(tuned))
    assert adapt_weights(source, out, *between) == 2
    assert "began with another file" in capsys.readouterr().err
    assert adapt_weights(start, out, *between, "--channels", "name") == 2
    assert "leave --channels out" in capsys.readouterr().err
    assert not out.exists()
    assert adapt_weights(start, out, *between) == 0
    old, new, result = (read_checkpoint(file)["network_weights"] for file in (start, tuned, out))
    for key, value in result.items():
        # the heads of start.pth are random, and known to be
        torch.testing.assert_close(value, new[key] if ".seg_layers." in key else 0.75 * old[key] + 0.25 * new[key])


def test_amount_and_tuned_model_need_each_other(source: Path, out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert adapt_weights(source, out, "--interpolate", "0.5") == 2
    assert "--tuned CHECKPOINT" in capsys.readouterr().err
    assert adapt_weights(source, out, "--tuned", str(source)) == 2
    with pytest.raises(SystemExit):
        adapt_weights(source, out, "--interpolate", "1.5", "--tuned", str(source))
    assert "from 0 to 1" in capsys.readouterr().err
    assert not out.exists()


def test_tuned_model_is_never_replaced(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tuned = tmp_path / "tuned.pth"
    shutil.copy(source, tuned)
    assert adapt_weights(source, tuned, "--interpolate", "0.5", "--tuned", str(tuned), "--force") == 2
    assert "is the source itself" in capsys.readouterr().err


# ---------------------------------------------------------------------- public weights


def test_dry_run_writes_nothing_and_reports(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.stat().st_mtime_ns for path in source.parent.rglob("*")}
    command = ["adapt-weights", str(source), "--to", "902", "3d_tiny", "--dry-run"]
    assert main(command) == 0
    said = capsys.readouterr().out
    assert "come from the source (100.0 %)" in said
    assert "Licence: not stated in the file" in said
    assert main([*command, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["fits"]
    assert report["parameters"]["share"] == 1.0
    assert {path: path.stat().st_mtime_ns for path in source.parent.rglob("*")} == before


def test_dry_run_without_a_target_checks_the_file_against_its_own_plans(
    source: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["adapt-weights", str(source), "--dry-run"]) == 0
    assert "(100.0 %)" in capsys.readouterr().out
    content = torch.load(source, weights_only=False)
    kwargs = content["init_args"]["plans"]["configurations"]["3d_tiny"]["architecture"]["arch_kwargs"]
    kwargs["features_per_stage"] = [4, 8, 12, 12, 16]
    torch.save(content, source)
    assert main(["adapt-weights", str(source), "--dry-run"]) == 2
    assert "contradict its weights" in capsys.readouterr().err


def test_architectures_that_differ_need_the_option_partial(
    preprocessed: Path, source: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plans_file = preprocessed / dataset_name("ignore") / "nnUNetPlans.json"
    plans = json.loads(plans_file.read_text())
    plans["configurations"]["3d_tiny"]["architecture"]["arch_kwargs"]["features_per_stage"] = [4, 8, 12, 12, 16]
    plans_file.write_text(json.dumps(plans))
    assert main(["adapt-weights", str(source), "--to", "902", "3d_tiny", "--dry-run"]) == 1
    captured = capsys.readouterr()
    assert "features_per_stage: [4, 8, 12, 12, 12] -> [4, 8, 12, 12, 16]" in captured.out
    assert "needs --partial" in captured.err
    assert adapt_weights(source, out) == 2
    assert not out.exists()
    assert adapt_weights(source, out, "--partial") == 0
    assert network_for("902", "3d_tiny").load_state_dict(read_checkpoint(out)["network_weights"])


SIX_STAGES: dict[str, Any] = {
    "n_stages": 6,
    "features_per_stage": [4, 6, 8, 10, 12, 12],
    "kernel_sizes": [[3, 3, 3]] * 6,
    "strides": [[1, 1, 1], *[[2, 2, 2]] * 5],
    "n_conv_per_stage_decoder": [1] * 5,
}
RESENC_L_LIKE: dict[str, Any] = {"family": "resenc", **SIX_STAGES, "n_blocks_per_stage": [1, 3, 4, 6, 6, 6]}
PLAIN_6: dict[str, Any] = {**SIX_STAGES, "n_conv_per_stage": [2] * 6}
ANISOTROPIC: dict[str, Any] = {
    **PLAIN_6,
    "kernel_sizes": [[1, 3, 3], [1, 3, 3], *[[3, 3, 3]] * 4],
    "strides": [[1, 1, 1], [1, 2, 2], *[[2, 2, 2]] * 4],
}
TARGETS = {"ResEnc-L-like": RESENC_L_LIKE, "plain of 6 stages": PLAIN_6, "anisotropic": ANISOTROPIC}
CLASS = {"network_class_name", "n_blocks_per_stage", "n_conv_per_stage"}


@pytest.mark.parametrize(
    ("start", "target", "share", "raised_by"),
    [
        ("ResEnc-L-like", "ResEnc-L-like", (0.6, 0.9), set()),  # the encoder of a pre-training
        ("ResEnc-L-like", "plain of 6 stages", (0, 0), CLASS),
        ("ResEnc-L-like", "anisotropic", (0, 0), {*CLASS, "kernel_sizes", "strides"}),
        ("plain of 6 stages", "ResEnc-L-like", (0.1, 0.3), CLASS),  # the decoder
        ("plain of 6 stages", "plain of 6 stages", (1, 1), set()),
        ("plain of 6 stages", "anisotropic", (1, 1), {"kernel_sizes", "strides"}),
    ],
)
def test_report_on_common_targets(
    start: str,
    target: str,
    share: tuple[float, float],
    raised_by: set[str],
    preprocessed: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file, _ = nnssl(tmp_path, **RESENC_L_LIKE) if start == "ResEnc-L-like" else nnunet(tmp_path, **PLAIN_6)
    plans_file = preprocessed / dataset_name("labels") / "nnUNetPlans.json"
    plans = json.loads(plans_file.read_text())
    labels = {"background": 0, "shell": 1, "core": 2}
    made = model(channels=("MRI",), labels=labels, **TARGETS[target]).plans["configurations"]["3d_fullres"]
    plans["configurations"]["3d_target"] = {**plans["configurations"]["3d_tiny"], "architecture": made["architecture"]}
    plans_file.write_text(json.dumps(plans))
    command = ["adapt-weights", str(file), "--to", "901", "3d_target", "--dry-run"]
    assert main(command) == (1 if raised_by else 0)
    said = capsys.readouterr().out
    assert main([*command, "--json"]) == (1 if raised_by else 0)
    report = json.loads(capsys.readouterr().out)
    assert report["fits"] == (not raised_by)
    assert share[0] <= report["parameters"]["share"] <= share[1]
    assert set(report["would_raise_it"]) == raised_by
    # rounded down: 100.0 % is all of them
    assert f"come from the source ({math.floor(1000 * report['parameters']['share']) / 10} %)" in said
    for key in raised_by:
        assert f"- {key}: " in said
    assert ("would raise it" in said) == (bool(raised_by) and share != (1, 1))
    reasons = {part["reason"] for part in report["parts"] if part["part"].startswith("encoder.stages")}
    assert not any("decoder" in reason for reason in reasons)  # that is why the decoder alone was left out
    assert [line for line in said.splitlines() if "plan --like" in line] == [
        f"  - {command}" for command in report["commands"] if "plan --like" in command
    ]
    assert (
        sum(part["parameters"] for part in report["parts"] if part["outcome"] != "unused")
        == (report["parameters"]["all"])
    )


def test_channels_by_name_keep_what_both_have(source: Path, out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert adapt_weights(source, out, "--channels", "name", to=("901", "3d_cascade_tiny")) == 0
    assert "input channels by name: MRI; random: shell of the previous stage" in capsys.readouterr().out
    old, new = (read_checkpoint(file)["network_weights"][FIRST] for file in (source, out))
    assert torch.equal(new[:, :1], old)


def test_the_reader_and_the_part_that_is_taken_can_be_named(source, out, capsys) -> None:
    to = ("901", "3d_tiny")
    assert adapt_weights(source, out, "--source", "nnunet", "--parts", "encoder", to=to) == 0
    old, new = (read_checkpoint(file)["network_weights"] for file in (source, out))
    same = {key for key in old if key in new and torch.equal(old[key], new[key])}
    kernels = {key for key in old if key.endswith("conv.weight") and not key.startswith("decoder.encoder.")}
    assert same & kernels == {key for key in kernels if key.startswith("encoder.")}
    assert adapt_weights(source, out, "--source", "vocomni", "--force", to=to) == 2
    assert "vocomni" in capsys.readouterr().err.lower()


def test_licence_and_citation_travel_through_a_second_adaptation(preprocessed: Path, tmp_path: Path, out: Path) -> None:
    file, _ = LAYOUTS["nnssl"](tmp_path)
    assert main(["plan", "--like", str(file), "-d", "901", "--name", "3d_like"]) == 0
    assert adapt_weights(file, out, to=("901", "3d_like")) == 0
    again = tmp_path / "again.pth"
    assert adapt_weights(out, again, to=("901", "3d_like")) == 0
    origin = read_checkpoint(again)["nnunet_ext"]["adapted_from"]
    assert (origin["reader"], origin["citation"]) == ("nnssl", "@article{openmind}")
    assert origin["licence"].startswith("CC BY 4.0")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--dry-run", "-o", "x.pth"], "--dry-run writes nothing"),
        (["-o", "x.pth"], "--to DATASET CONFIGURATION and -o OUT are needed"),
        (["--to", "902", "3d_tiny"], "--to DATASET CONFIGURATION and -o OUT are needed"),
    ],
)
def test_options_that_do_not_go_together(
    source: Path, options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["adapt-weights", str(source), *options]) == 2
    assert message in capsys.readouterr().err
