"""The base trainer: nothing but nnU-Net without settings, and what settings, hooks, log and checkpoints add."""

import errno
import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from nnunet_ext.checkpoints.networks import find_trainer
from nnunet_ext.errors import UserError
from nnunet_ext.registry import TRAINERS
from nnunet_ext.trainers import (
    nnUNetTrainerConfigurable,
    nnUNetTrainerDBDMP,
    nnUNetTrainerDualEncoder,
    nnUNetTrainerPartialCE,
    nnUNetTrainerTDNet,
)
from nnunet_ext.trainers.adele import ADELEMixin
from nnunet_ext.trainers.base import total_loss
from nnunet_ext.trainers.dual_encoder import DualEncoderMixin
from nnunet_ext.trainers.mixup import MixUpMixin
from nnunet_ext.trainers.partial_labels import MixedSupervisionMixin, PartialLabelsMixin, PartialLabelsMixUpMixin
from nnunet_ext.trainers.resuming import ALLOW_CHANGED_SETTINGS, refuse_changes
from support.nnunet_runs import build_trainer, train
from support.tiny_data import dataset_name


def stock_trainer(configuration, monkeypatch, kind="labels"):
    monkeypatch.setattr("nnunetv2.run.run_training.recursive_find_trainer_class_by_name", lambda _: nnUNetTrainer)
    return build_trainer("nnUNetTrainer", configuration, kind=kind)


def shorten(trainer):
    trainer.num_epochs, trainer.num_iterations_per_epoch, trainer.num_val_iterations_per_epoch = 2, 3, 1


def seed_everything(seed):
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


@pytest.mark.parametrize("kind", ["labels", "ignore", "regions"])
def test_without_technique_and_settings_weights_are_bit_identical_to_stock(kind, results, monkeypatch):
    runs = {}
    for name in ("stock", "ours"):
        with monkeypatch.context() as patch:
            patch.setenv("nnUNet_results", str(results / name))
            configuration = "3d_tiny_without_settings"
            if name == "stock":
                trainer = stock_trainer(configuration, patch, kind)
            else:
                trainer = build_trainer("nnUNetTrainerConfigurable", configuration, kind=kind)
            shorten(trainer)
            seed_everything(3)
            trainer.run_training()
            runs[name] = trainer
    expected = runs["stock"].network.state_dict()
    actual = runs["ours"].network.state_dict()
    assert list(actual) == list(expected)
    assert all(torch.equal(value, expected[key]) for key, value in actual.items())
    for key in ("train_losses", "val_losses", "mean_fg_dice", "dice_per_class_or_region", "lrs"):
        np.testing.assert_array_equal(
            runs["ours"].logger.get_value(key, step=None), runs["stock"].logger.get_value(key, step=None), err_msg=key
        )


def test_stock_loads_our_checkpoint_and_we_load_stock(results, monkeypatch):
    configuration = "3d_tiny_without_settings"
    ours = build_trainer("nnUNetTrainerConfigurable", configuration)
    with monkeypatch.context() as patch:
        stock = stock_trainer(configuration, patch)
    for trainer in (ours, stock):
        shorten(trainer)
        trainer.run_training()
    files = {trainer: f"{trainer.output_folder}/checkpoint_final.pth" for trainer in (ours, stock)}
    contents = {trainer: torch.load(file, weights_only=False) for trainer, file in files.items()}
    assert set(contents[ours]) == {*contents[stock], "nnunet_ext"}

    with monkeypatch.context() as patch:
        fresh_stock = stock_trainer(configuration, patch)
    fresh_stock.load_checkpoint(files[ours])
    fresh_ours = build_trainer("nnUNetTrainerConfigurable", configuration)
    fresh_ours.load_checkpoint(files[stock])
    for fresh, source in ((fresh_stock, ours), (fresh_ours, stock)):
        assert fresh.current_epoch == 2
        weights = source.network.state_dict()
        assert all(torch.equal(value, weights[key]) for key, value in fresh.network.state_dict().items())
    # the log goes on where stock's ends, our own terms empty for the epochs that stock did
    fresh_ours.num_epochs, fresh_ours.num_iterations_per_epoch, fresh_ours.num_val_iterations_per_epoch = 3, 1, 1
    fresh_ours.run_training()
    values = fresh_ours.logger.get_value("loss/segmentation", step=None)
    assert np.isnan(values[:2]).all()
    assert np.isfinite(values[2])


def change_plans(workspace, configuration, kind="labels", **changes):
    """Write a variant of a configuration into the plans, and give its name."""
    file = workspace.preprocessed / dataset_name(kind) / "nnUNetPlans.json"
    plans = json.loads(file.read_text())
    content = plans["configurations"][configuration]
    name = f"{configuration}_variant"
    plans["configurations"][name] = {**content, "nnunet_ext": {**content["nnunet_ext"], **changes}}
    file.write_text(json.dumps(plans))
    return name


def test_settings_reach_the_training(workspace, results):
    settings = {"initial_lr": 0.005, "weight_decay": 0.25, "optimizer": "adamw", "oversample_foreground_percent": 1.0}
    trainer = train("nnUNetTrainerConfigurable", change_plans(workspace, "3d_tiny", num_epochs=2, **settings))
    assert isinstance(trainer.optimizer, torch.optim.AdamW)
    assert trainer.optimizer.param_groups[0]["weight_decay"] == 0.25
    assert trainer.logger.get_value("lrs", step=None) == pytest.approx([0.005, 0.005 * 0.5**0.9])
    assert trainer.dataloader_train.data_loader.loader.oversample_foreground_percent == 1.0
    assert len(trainer.logger.get_value("train_losses", step=None)) == 2


def test_settings_are_in_checkpoint_log_and_debug_file(workspace, results):
    trainer = train("nnUNetTrainerConfigurable", change_plans(workspace, "3d_tiny", momentum=0.5))
    recorded = torch.load(f"{trainer.output_folder}/checkpoint_final.pth", weights_only=False)["nnunet_ext"]
    assert recorded["settings"]["momentum"] == 0.5
    assert recorded["settings"]["initial_lr"] == 0.01, "values that nnU-Net decides are recorded too"
    assert '"momentum": 0.5' in Path(trainer.log_file).read_text()
    assert "momentum=0.5" in json.loads(Path(trainer.output_folder, "debug.json").read_text())["settings"]
    assert trainer.optimizer.param_groups[0]["momentum"] == 0.5


def test_momentum_of_zero_trains_without_nesterov(workspace, results):
    trainer = train("nnUNetTrainerConfigurable", change_plans(workspace, "3d_tiny", momentum=0.0))
    assert not trainer.optimizer.param_groups[0]["nesterov"]


def test_resuming_with_other_settings_is_refused_unless_told(workspace, results, monkeypatch):
    before = train("nnUNetTrainerConfigurable", change_plans(workspace, "3d_tiny", num_epochs=1))
    changed = change_plans(workspace, "3d_tiny", num_epochs=2)
    with pytest.raises(UserError, match=r"(?s)num_epochs: 1 -> 2.*nnUNet_ext_allow_changed_settings=1") as error:
        train("nnUNetTrainerConfigurable", changed, resume=True)
    assert "momentum" not in str(error.value), "settings that agree are not worth a line"
    monkeypatch.setenv(ALLOW_CHANGED_SETTINGS, "1")
    after = train("nnUNetTrainerConfigurable", changed, resume=True)
    assert after.current_epoch == 2
    losses = after.logger.get_value("train_losses", step=None)
    assert losses[0] == before.logger.get_value("train_losses", step=0)


def test_the_faster_memory_format_is_measured_once_and_kept(workspace, results, monkeypatch):
    measured = ("channels_last", {"contiguous": 0.2, "channels_last": 0.1})
    monkeypatch.setattr("nnunet_ext.trainers.base.faster_memory_format", lambda *arguments: measured)
    automatic = {"memory_format": "auto", "num_epochs": 1}
    trained = train("nnUNetTrainerConfigurable", change_plans(workspace, "3d_tiny", **automatic))
    log = next(Path(trained.output_folder).glob("training_log_*.txt")).read_text()
    assert "memory_format auto: channels_last (forward and backward pass: contiguous 0.200 s" in log
    kept = torch.load(f"{trained.output_folder}/checkpoint_final.pth", weights_only=False)["nnunet_ext"]
    assert kept["memory_format"] == "channels_last"
    monkeypatch.setattr("nnunet_ext.trainers.base.faster_memory_format", lambda *arguments: pytest.fail("again"))
    monkeypatch.setenv(ALLOW_CHANGED_SETTINGS, "1")
    longer = change_plans(workspace, "3d_tiny", **{**automatic, "num_epochs": 2})
    resumed = train("nnUNetTrainerConfigurable", longer, resume=True)
    assert (resumed.current_epoch, resumed.memory_format) == (2, "channels_last")


def test_a_training_that_goes_on_has_its_new_settings(workspace, results, monkeypatch):
    train("nnUNetTrainerConfigurable", change_plans(workspace, "3d_tiny", num_epochs=1))
    monkeypatch.setenv(ALLOW_CHANGED_SETTINGS, "1")
    new = {"momentum": 0.5, "nesterov": False, "weight_decay": 0.01}
    after = train("nnUNetTrainerConfigurable", change_plans(workspace, "3d_tiny", num_epochs=2, **new), resume=True)
    (group,) = after.optimizer.param_groups
    assert {key: group[key] for key in new} == new
    with pytest.raises(UserError, match=r"(?s)cannot go on with another value .*optimizer: sgd -> adamw"):
        train("nnUNetTrainerConfigurable", change_plans(workspace, "3d_tiny", optimizer="adamw"), resume=True)


@pytest.mark.parametrize(
    ("trainer", "change"),
    [
        (nnUNetTrainerTDNet, "tdnet.dilations: [1, 3, 6] -> [1, 2, 4]"),
        (nnUNetTrainerDualEncoder, "dual_encoder.channels.current: [0] -> [1]"),
        (nnUNetTrainerDualEncoder, "dual_encoder.fusion: add -> difference"),
    ],
)
def test_what_the_weights_were_learned_with_is_fixed(trainer, change, monkeypatch):
    monkeypatch.setenv(ALLOW_CHANGED_SETTINGS, "1")
    with pytest.raises(UserError, match="cannot go on with another value"):
        refuse_changes([change], "checkpoint.pth", "3d", fixed=trainer.fixed_settings)
    refuse_changes(["dual_encoder.prior_dropout: 0 -> 0.5"], "checkpoint.pth", "3d", fixed=trainer.fixed_settings)


@pytest.mark.parametrize(
    ("bases", "reason"),
    [
        ((PartialLabelsMixin, nnUNetTrainerTDNet), "cannot have partial labels"),
        ((ADELEMixin, nnUNetTrainerDBDMP), "cannot have ADELE"),
        ((ADELEMixin, PartialLabelsMixin), "before ADELE's"),
        ((MixUpMixin, DualEncoderMixin), "before MixUp's"),
        ((nnUNetTrainerPartialCE, MixUpMixin), "with MixUpMixin before that with nnUNetTrainerPartialCE"),
        ((nnUNetTrainerPartialCE, PartialLabelsMixin), "with PartialLabelsMixin before"),
        ((nnUNetTrainerPartialCE, ADELEMixin), "with ADELEMixin before"),
        ((PartialLabelsMixUpMixin, MixedSupervisionMixin), "cannot have MixUp: with mixed supervision"),
        ((nnUNetTrainerPartialCE, nnUNetTrainerTDNet), "cannot combine nnUNetTrainerPartialCE and nnUNetTrainerTDNet"),
        ((nnUNetTrainerTDNet, nnUNetTrainerPartialCE), "cannot combine"),
        ((nnUNetTrainerTDNet, ADELEMixin), "cannot have ADELE"),
        ((nnUNetTrainerTDNet, MixUpMixin), "cannot have MixUp"),
        ((nnUNetTrainerTDNet, PartialLabelsMixin), "cannot have partial labels"),
    ],
)
def test_what_would_learn_the_wrong_thing_together_is_refused(bases, reason):
    with pytest.raises(TypeError, match=f"Combined .*{reason}"):
        type("Combined", bases, {})
    assert type("Allowed", (PartialLabelsMixin, ADELEMixin), {})
    assert type("Allowed", (MixUpMixin, nnUNetTrainerPartialCE), {})
    own_loss = {"replaces_loss": True, "loss_terms": lambda self, outputs, batch: {}}
    assert type("Allowed", (PartialLabelsMixin, ADELEMixin), own_loss)  # whoever derives a class knows its bases


def test_classes_say_whether_they_replace_the_loss_of_those_behind():
    classes = {one for entry in TRAINERS for one in find_trainer(entry.name).mro() if "loss_terms" in vars(one)}
    for one in classes - {nnUNetTrainerConfigurable}:
        calls_super = "__class__" in one.loss_terms.__code__.co_freevars
        assert one.replaces_loss is not calls_super, one


def test_wrong_settings_stop_before_anything_is_written(workspace, results):
    with pytest.raises(UserError, match=r"configuration '3d_tiny_variant' of the plans 'nnUNetPlans'"):
        build_trainer("nnUNetTrainerConfigurable", change_plans(workspace, "3d_tiny", epochs=2))
    assert not any(results.iterdir())


@pytest.mark.parametrize("variable", ["nnUNet_preprocessed", "nnUNet_results"])
def test_missing_variable_is_named(variable, workspace, results, monkeypatch):
    folder = workspace.preprocessed / dataset_name("labels")
    plans, dataset = (json.loads((folder / name).read_text()) for name in ("nnUNetPlans.json", "dataset.json"))
    monkeypatch.delenv(variable)
    with pytest.raises(UserError, match=f"{variable} is not set"):
        nnUNetTrainerConfigurable({**plans, "continue_training": False}, "3d_tiny", 0, dataset, torch.device("cpu"))


def test_unwritable_results_folder_is_named(workspace, results, tmp_path, monkeypatch):
    (tmp_path / "a file").write_text("")
    monkeypatch.setenv("nnUNet_results", str(tmp_path / "a file" / "results"))
    with pytest.raises(UserError, match="a file/results cannot be written to"):
        build_trainer("nnUNetTrainerConfigurable")


def test_what_a_trainer_declares_unsupported_is_refused_with_the_reason(workspace, results, monkeypatch):
    monkeypatch.setattr(nnUNetTrainerConfigurable, "unsupported", {"regions": "Softmax only; use nnUNetTrainer."})
    with pytest.raises(NotImplementedError, match=r"cannot do 'regions': Softmax only; use nnUNetTrainer\."):
        build_trainer("nnUNetTrainerConfigurable", kind="regions")
    assert not any(results.iterdir())
    build_trainer("nnUNetTrainerConfigurable", kind="labels")


def test_full_disk_leaves_the_old_checkpoint(results, monkeypatch):
    trainer = build_trainer("nnUNetTrainerConfigurable")
    trainer.initialize()
    file = Path(trainer.output_folder, "checkpoint_latest.pth")
    trainer.save_checkpoint(str(file))
    before = file.read_bytes()

    def fill_the_disk(content, target):
        target.write(b"half a checkpoint")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(torch, "save", fill_the_disk)
    with pytest.raises(OSError, match="No space left"):
        trainer.save_checkpoint(str(file))
    assert file.read_bytes() == before
    assert sorted(path.suffix for path in results.glob("*/*/*/*")) == [".pth", ".txt"]


def test_cut_off_checkpoint_is_named(results):
    trainer = build_trainer("nnUNetTrainerConfigurable")
    trainer.initialize()
    file = Path(trainer.output_folder, "checkpoint_latest.pth")
    trainer.save_checkpoint(str(file))
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match=r"checkpoint_latest\.pth cannot be read as a checkpoint"):
        build_trainer("nnUNetTrainerConfigurable").load_checkpoint(str(file))


@pytest.mark.parametrize("given", ["file name", "path", "content"])
def test_a_checkpoint_is_loaded_from_a_file_or_from_its_content(results, given):
    trainer = build_trainer("nnUNetTrainerMixUp")
    shorten(trainer)
    trainer.run_training()
    file = Path(trainer.output_folder, "checkpoint_final.pth")
    fresh = build_trainer("nnUNetTrainerMixUp")
    content = torch.load(file, weights_only=False)
    fresh.load_checkpoint({"file name": str(file), "path": file, "content": content}[given])
    weights = trainer.network.state_dict()
    assert all(torch.equal(value, weights[key]) for key, value in fresh.network.state_dict().items())
    assert (fresh.current_epoch, fresh.has_loaded_checkpoint) == (2, True)
    assert "loss/mixup" in fresh.logger.get_checkpoint()


def test_only_cuda_may_go_on_before_a_batch_is_copied(workspace, results, monkeypatch):
    """The loader's batch is let go of at once; other devices, such as Apple's GPUs, would copy what is there later."""
    trainer = build_trainer("nnUNetTrainerConfigurable")
    trainer.initialize()
    batch, copied, to = {"data": torch.zeros(1, 1, 4, 4), "target": [torch.zeros(1, 1, 4, 4)]}, [], torch.Tensor.to

    def recorded(tensor, *arguments, **options):
        copied.append(options.get("non_blocking", False))
        return to(tensor, *arguments, **options)

    monkeypatch.setattr(torch.Tensor, "to", recorded)
    trainer.prepare_batch(batch, training=True)
    assert copied == [False, False]


def test_terms_that_come_and_go_are_averaged_over_the_steps_that_had_them(workspace, results, monkeypatch):
    def loss_terms(self, outputs, batch):
        terms = {"segmentation": self.loss(outputs, batch["target"])}
        self.calls = getattr(self, "calls", 0) + 1
        if self.calls in (1, 2, 7):
            terms["extra"] = torch.tensor(float(self.calls), requires_grad=True)
        self.observe("share/calls", self.calls)
        return terms

    monkeypatch.setattr(nnUNetTrainerConfigurable, "loss_terms", loss_terms)
    trainer = train("nnUNetTrainerConfigurable", "3d_tiny_three_epochs")  # two steps an epoch
    extra = trainer.logger.get_value("loss/extra", step=None)
    np.testing.assert_array_equal(extra, [1.5, np.nan, np.nan])
    assert trainer.logger.get_value("share/calls", step=None) == [1.5, 3.5, 5.5]
    assert "loss/extra 1.5" in Path(trainer.log_file).read_text()


def test_one_loss_term_is_passed_on_untouched():
    term = torch.tensor(1.5)
    assert total_loss({"only": term}) is term
    assert total_loss({"a": term, "b": term, "c": term}).item() == 4.5


def test_scaled_gradients_give_the_same_step_as_plain_ones(results):
    """Mixed precision's path, on CPU: a loss scale that is a power of two leaves every bit of the step as it was."""
    weights = []
    for scaler in (None, torch.GradScaler("cpu", init_scale=2.0**10)):
        trainer = build_trainer("nnUNetTrainerConfigurable")
        trainer.initialize()
        trainer.grad_scaler = scaler
        generator = torch.Generator().manual_seed(0)
        target = torch.randint(0, 3, (2, 1, 16, 16, 16), generator=generator)
        data = torch.randn((2, 1, 16, 16, 16), generator=generator)
        for _ in range(2):
            trainer.train_step({"data": data, "target": [target, target[:, :, ::2, ::2, ::2]]})
        weights.append(trainer.network.state_dict())
    assert all(torch.equal(value, weights[1][key]) for key, value in weights[0].items())
