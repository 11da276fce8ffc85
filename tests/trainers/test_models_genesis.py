"""Pre-training by restoring images: what goes in, what comes out, and what may start from it."""

from pathlib import Path

import numpy as np
import pytest
import torch
from batchgeneratorsv2.transforms.spatial.mirroring import MirrorTransform
from batchgeneratorsv2.transforms.utils.random import RandomTransform
from nnunetv2.run.load_pretrained_weights import load_pretrained_weights
from nnunetv2.run.run_training import run_training_entry

from nnunet_ext.augmentation.genesis_corruptions import BezierIntensity, LocalShuffling, Painting
from nnunet_ext.augmentation.restoration import CleanImageAsTarget
from nnunet_ext.checkpoints.adaptation import adapt
from nnunet_ext.checkpoints.description import ModelDescription
from nnunet_ext.checkpoints.heads import is_head
from nnunet_ext.checkpoints.reading import read_checkpoint
from nnunet_ext.networks.multi_decoder import FeatureDropout
from nnunet_ext.plans.plans_file import read_plans
from nnunet_ext.trainers import nnUNetTrainerModelsGenesis
from support.nnunet_runs import build_trainer, call_entry_point, train
from support.tiny_data import KINDS, dataset_name

NAME = "nnUNetTrainerModelsGenesis"


@pytest.fixture
def built(workspace, results):
    """Build an initialized trainer with its data loaders, whose plans hold more settings."""

    def build(configuration="3d_tiny", kind="labels", **settings):
        content = read_plans(workspace.preprocessed / dataset_name(kind) / "nnUNetPlans.json")
        content["configurations"][configuration]["nnunet_ext"].update(settings)
        content["continue_training"] = False
        dataset_json = build_trainer(NAME, kind=kind).dataset_json
        made = nnUNetTrainerModelsGenesis(content, configuration, 0, dataset_json, torch.device("cpu"))
        made.on_train_start()
        return made

    return build


UNCORRUPTED = {"shuffling_probability": 0.0, "intensity_probability": 0.0, "painting_probability": 0.0}


@pytest.mark.parametrize("configuration", ["2d_tiny", "3d_tiny"])
def test_the_target_is_the_clean_patch(built, configuration):
    batch = next(built(configuration, models_genesis=UNCORRUPTED).dataloader_train)
    assert torch.equal(batch["data"], batch["target"][:, :-1])
    corrupted = next(built(configuration).dataloader_train)
    assert not torch.equal(corrupted["data"], corrupted["target"][:, :-1])
    # under the same seed the same first patch and flips: the corruptions draw after them
    assert torch.equal(corrupted["target"][0], batch["target"][0])


def test_the_target_holds_every_channel(built):
    trainer = built(kind="regions")
    batch = next(trainer.dataloader_train)
    assert batch["data"].shape == (2, 3, 16, 16, 16)
    main, auxiliary = trainer.network(batch["data"])
    assert main.shape == auxiliary.shape == trainer.prepare_batch(batch, training=True)["target"].shape


def test_patches_are_parts_of_the_image_up_to_flips(built, workspace):
    """Nothing is rotated, scaled or blurred before the copy is taken."""
    trainer = built(models_genesis=UNCORRUPTED)
    batch = next(trainer.dataloader_train)
    for patch, key in zip(batch["data"], batch["keys"]):
        image = torch.from_numpy(np.asarray(trainer.dataloader_train.data_loader.loader._data.load_case(key)[0]))
        values = set(np.round(image.numpy().ravel(), 5))
        assert set(np.round(patch.numpy().ravel(), 5)) <= values | {0.0}


def test_the_loss_is_the_squared_error_of_both_branches(built):
    trainer = built()
    batch = trainer.prepare_batch(next(trainer.dataloader_train), training=True)
    with torch.no_grad():
        outputs = trainer.forward(batch)
        terms = trainer.loss_terms(outputs, batch)
    target = batch["target"].double()
    for name, restored in zip(("restoration", "auxiliary_restoration"), outputs):
        reference = ((restored.double() - target) ** 2).mean()
        assert float(terms[name]) == pytest.approx(float(reference), rel=1e-5)


def test_validation_reports_error_and_explained_variance(built):
    trainer = built()
    batch = next(trainer.dataloader_val)
    image = batch["target"][:, :-1]
    axes = tuple(range(2, image.ndim))
    means = image.mean(axes, keepdim=True)
    outputs = []
    for restored in (image, means.expand_as(image)):
        trainer.forward = lambda prepared, restored=restored: restored
        outputs.append(trainer.validation_step(batch))
    assert (outputs[0]["loss"], outputs[0]["error"]) == (0, 0)
    assert float(outputs[1]["error"]) == pytest.approx(float(outputs[1]["variance"]), rel=1e-4)
    assert float(outputs[1]["loss"]) == pytest.approx(float((image - means).square().mean()), rel=1e-4)
    constant = {"loss": np.float32(1), "error": np.float32(0.01), "variance": np.float32(0)}  # air, clipped
    for shown, explained in (([outputs[0]], 1.0), ([outputs[1]], 0.0), (outputs, 0.5), ([constant], 0.0)):
        trainer.current_epoch = 0
        trainer.on_validation_epoch_end(shown)
        assert trainer.logger.get_value("mean_fg_dice", step=0) == pytest.approx(explained, abs=1e-4)
    overflown = {"loss": np.float32(np.inf), "error": np.float32(np.inf), "variance": np.float32(1)}
    for shown, explained in (([outputs[0], overflown], 1.0), ([overflown], 0.0)):
        trainer.on_validation_epoch_end(shown)
        assert trainer.logger.get_value("mean_fg_dice", step=0) == pytest.approx(explained, abs=1e-4)
    trainer.on_validation_epoch_end([outputs[0], constant])
    assert trainer.logger.get_value("mean_fg_dice", step=0) == pytest.approx(1, abs=0.1)


def test_patches_are_drawn_regardless_of_labels(built):
    assert built().oversample_foreground_percent == 0.0
    assert built(oversample_foreground_percent=0.5).oversample_foreground_percent == 0.5


def transforms_of(corruptions):
    """Classes and probabilities; one without a probability is always applied."""
    return [
        (type(one.transform), one.apply_probability) if isinstance(one, RandomTransform) else (type(one), 1.0)
        for one in corruptions
    ]


def test_flips_then_the_target_then_the_corruptions_with_the_probabilities_of_the_authors(built):
    trainer = built()
    corruptions = [(CleanImageAsTarget, 1.0), (LocalShuffling, 0.5), (BezierIntensity, 0.9), (Painting, 0.9)]
    training = trainer.get_training_transforms((16, 16, 16), None, None, (0, 2))
    assert transforms_of(training.transforms) == [(MirrorTransform, 1.0), *corruptions]
    assert training.transforms[0].allowed_axes == (0, 2)
    assert transforms_of(trainer.get_training_transforms((16, 16, 16), None, None, None).transforms) == corruptions
    assert transforms_of(trainer.get_validation_transforms(None).transforms) == corruptions


def test_each_corruption_has_the_probability_of_its_own_setting(built):
    trainer = built(
        models_genesis={"shuffling_probability": 0.1, "intensity_probability": 0.2, "painting_probability": 0.3}
    )
    assert transforms_of(trainer.corruptions()) == [(LocalShuffling, 0.1), (BezierIntensity, 0.2), (Painting, 0.3)]


@pytest.mark.parametrize("configuration", ["2d_tiny", "3d_tiny"])
def test_the_auxiliary_decoder_drops_as_many_features_as_the_setting_says(built, configuration):
    trainer = built(configuration, models_genesis={"dropout": 0.3})
    main, auxiliary = trainer.network.perturbations
    assert not isinstance(main, FeatureDropout)
    assert auxiliary.dropout.p == 0.3


def test_without_dropout_the_auxiliary_branch_draws_nothing(built):
    trainer = built(models_genesis={"dropout": 0.0})
    data = torch.randn(1, 1, 16, 16, 16)
    first, second = trainer.network(data)[1], trainer.network(data)[1]
    assert torch.equal(first, second)


def test_the_whole_command_runs_and_leaves_no_validation(results, capsys):
    call_entry_point(run_training_entry, [str(KINDS["labels"]["id"]), "3d_tiny", "0", "-tr", NAME, "-device", "cpu"])
    folder = next(results.glob("*/*/fold_0"))
    assert (folder / "checkpoint_final.pth").is_file()
    assert not (folder / "validation").exists()
    assert "has no segmentation to validate" in capsys.readouterr().out


def test_a_dataset_with_empty_labels_is_enough(built, workspace, results):
    """Whatever the labels are, the loaders and the step are the same."""
    trainer = built()
    dataset = trainer.dataloader_train.data_loader.loader._data.cases
    load_case = dataset.load_case

    def without_labels(key):
        data, segmentation, previous, properties = load_case(key)
        places = {label: [] for label in properties["class_locations"]}
        return data, np.zeros_like(segmentation), previous, {**properties, "class_locations": places}

    dataset.load_case = without_labels
    assert all(np.isfinite(value) for value in trainer.train_step(next(trainer.dataloader_train)).values())


def test_nnunets_pretrained_weights_give_everything_but_the_heads(results):
    source = train(NAME)
    file = f"{source.output_folder}/checkpoint_final.pth"
    for name in ("nnUNetTrainerDBDMP", "nnUNetTrainer"):
        trainer = build_trainer(name)
        trainer.initialize()
        before = {key: value.clone() for key, value in trainer.network.state_dict().items()}
        load_pretrained_weights(trainer.network, file)
        for key, value in trainer.network.state_dict().items():
            expected = before[key] if ".seg_layers." in key else source.network.state_dict()[key]
            assert torch.equal(value, expected), key


def test_adapted_weights_never_take_heads_that_give_images(results):
    """One image channel and one row would otherwise look like a head for one label."""
    source = train(NAME, kind="regions")  # three channels, three heads
    checkpoint = read_checkpoint(Path(source.output_folder) / "checkpoint_final.pth")
    target = build_trainer("nnUNetTrainerMixUp", kind="regions")
    target.initialize()
    description = ModelDescription(target.plans_manager.plans, target.configuration_name, target.dataset_json)
    adaptation = adapt(checkpoint, target.network, description, keep_heads=True)
    own, given = target.network.state_dict(), checkpoint["network_weights"]
    for key, value in adaptation.weights.items():
        assert torch.equal(value, own[key] if is_head(key) else given[key]), key
    assert "the source's heads restore images" in adaptation.table()


def test_it_learns_to_restore_more_than_the_mean(built):
    trainer = built(optimizer="adamw", initial_lr=5e-3)
    batches = [next(trainer.dataloader_train) for _ in range(8)]
    losses = [float(trainer.train_step(batches[step % 8])["loss"]) for step in range(80)]
    clean = torch.stack([batch["target"][:, :-1] for batch in batches])
    branches = 2
    assert np.mean(losses[-8:]) < 0.5 * branches * float(clean.var(correction=0))
