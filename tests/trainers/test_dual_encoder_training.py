"""Trainings of the dual encoder: which channel is what, what augmentation may touch, and cases without a prior."""

import json

import numpy as np
import pytest
import torch
from batchgeneratorsv2.transforms.utils.random import RandomTransform
from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunet_ext.augmentation.registration_error import Misalignment
from nnunet_ext.augmentation.selected_channels import OnChannels
from nnunet_ext.checkpoints.adaptation import adapt
from nnunet_ext.checkpoints.description import ModelDescription
from nnunet_ext.checkpoints.networks import build_network
from nnunet_ext.demo.two_dates import make_follow_up
from nnunet_ext.errors import UserError
from nnunet_ext.networks.dual_encoder import AddedContext, GatedFusion
from nnunet_ext.plans.plans_file import read_plans
from nnunet_ext.techniques.base import BASE
from nnunet_ext.techniques.dual_encoder import DUAL_ENCODER
from nnunet_ext.techniques.mixup import MIXUP
from nnunet_ext.trainers import nnUNetTrainerConfigurable, nnUNetTrainerDualEncoder, nnUNetTrainerDualEncoderMixUp
from support.changed_trainers import changed_trainer, step_terms
from support.nnunet_runs import build_trainer
from support.tiny_data import dataset_name

ROLES = {"current": [0], "prior_image": [1], "prior_labels": [2, 3]}


@pytest.fixture
def plans(workspace, results):
    """Plans and dataset.json of a kind of tiny data, its tiny 3D configuration with more settings."""

    def read(kind="prior", patch=None, network=None, **settings):
        folder = workspace.preprocessed / dataset_name(kind)
        content = read_plans(folder / "nnUNetPlans.json")
        configuration = content["configurations"]["3d_tiny"]
        configuration["nnunet_ext"].update(settings)
        configuration["architecture"]["arch_kwargs"].update(network or {})
        configuration["patch_size"] = list(patch or configuration["patch_size"])
        return {**content, "continue_training": False}, json.loads((folder / "dataset.json").read_text())

    return read


@pytest.fixture
def built(plans):
    def build(
        trainer=nnUNetTrainerDualEncoder,
        *,
        kind="prior",
        dataset=None,
        general=None,
        patch=None,
        network=None,
        **dual_encoder,
    ):
        content, dataset_json = plans(kind, patch, network, dual_encoder=dual_encoder, **(general or {}))
        made = trainer(content, "3d_tiny", 0, dataset_json | (dataset or {}), torch.device("cpu"))
        torch.manual_seed(0)
        made.initialize()
        return made

    return build


def batch_of(trainer, size=2):
    patch = trainer.configuration_manager.patch_size
    scales = trainer._get_deep_supervision_scales()
    shapes = [[round(side * factor) for side, factor in zip(patch, scale)] for scale in scales]
    targets = [torch.randint(0, 3, (size, 1, *shape)).to(torch.int16) for shape in shapes]
    return {"data": torch.randn(size, trainer.num_input_channels, *patch), "target": targets, "keys": ["a"] * size}


# ---------------------------------------------------------------------- which channel is what


def test_a_fold_that_would_be_drawn_by_cases_is_refused(built, workspace):
    trainer = built()
    count = len(json.loads((workspace.preprocessed / dataset_name("prior") / "splits_final.json").read_text()))
    trainer.fold = count
    with pytest.raises(UserError, match=f"has no fold {count}; it has {count} folds"):
        trainer.do_split()
    trainer.fold = "all"
    training, validation = trainer.do_split()
    assert training == validation


def test_roles_of_the_dataset_reach_the_network_and_the_plans_that_are_saved(plans):
    content, dataset_json = plans()
    before = json.dumps(content)
    trainer = nnUNetTrainerDualEncoder(content, "3d_tiny", 0, dataset_json, torch.device("cpu"))
    trainer.initialize()
    assert json.dumps(content) == before
    network = trainer.unwrapped_network()
    assert (network.current, network.prior) == ((0,), (1, 2, 3))
    saved = trainer.plans_manager.plans["configurations"]["3d_tiny"]["nnunet_ext"]
    assert saved["dual_encoder"]["channels"] == ROLES
    assert trainer.my_init_kwargs["plans"] is trainer.plans_manager.plans


def test_prediction_builds_the_same_network_from_the_saved_plans_alone(plans):
    roles = {"current": [1], "prior_image": [3], "prior_labels": [0]}
    content, dataset_json = plans(dual_encoder={"context_width": 0.5, "fusion": "concat", "fuse_skips": True})
    dataset_json["nnunet_ext"] = {"longitudinal": roles}
    trainer = nnUNetTrainerDualEncoder(content, "3d_tiny", 0, dataset_json, torch.device("cpu"))
    trainer.initialize()
    manager = PlansManager(json.loads(json.dumps(trainer.plans_manager.plans)))
    network = nnUNetTrainerDualEncoder.build_network_architecture(
        manager, manager.get_configuration("3d_tiny"), 4, 3, False
    )
    network.load_state_dict(trainer.network.state_dict(), strict=True)
    trainer.set_deep_supervision_enabled(False)
    data = torch.randn(1, 4, 16, 16, 16)
    with torch.no_grad():
        assert torch.equal(network.eval()(data), trainer.network.eval()(data))
    assert (network.current, network.prior) == ((1,), (3, 0))
    own = [network.encoder.output_channels, network.context_encoder.output_channels]
    assert own == [[4, 8, 12, 12, 12], [2, 4, 6, 6, 6]]


class GatedByDefault(nnUNetTrainerDualEncoder):
    """A trainer of a user with a default of its own."""

    default_settings = {"dual_encoder": {"fusion": "gated"}}


def test_defaults_of_a_derived_trainer_reach_its_network_and_its_saved_plans(built):
    trainer = built(GatedByDefault)
    assert isinstance(trainer.unwrapped_network().fusions[0], GatedFusion)
    saved = trainer.plans_manager.plans["configurations"]["3d_tiny"]["nnunet_ext"]
    assert saved["dual_encoder"]["fusion"] == "gated"
    assert isinstance(built(GatedByDefault, fusion="add").unwrapped_network().fusions[0], AddedContext)


def test_early_fusion_trains_the_plans_own_network_with_the_priors_dropout(built):
    trainer = built(fusion="early", prior_dropout=1.0)
    assert type(trainer.unwrapped_network()).__name__ == "PlainConvUNet"
    batch = {"data": torch.ones(2, 4, 16, 16, 16), "target": torch.zeros(2, 1, 16, 16, 16)}
    data = trainer.prepare_batch(batch, training=True)["data"]
    assert data[:, :1].min() == 1
    assert data[:, 1:].abs().max() == 0


@pytest.mark.parametrize("other", [{"context_width": 0.5}, {"fuse_skips": True}])
def test_early_fusion_has_no_second_encoder_to_set(built, other):
    with pytest.raises(UserError, match="no second encoder"):
        built(fusion="early", **other)


def test_difference_has_no_skips_to_set(built):
    assert len(built(fusion="difference").unwrapped_network().fusions) == 5, "one for each of the five stages"
    with pytest.raises(UserError, match="weights every skip as it is: leave out fuse_skips"):
        built(fusion="difference", fuse_skips=True)


def test_the_setting_has_precedence_over_the_dataset(built):
    network = built(channels={"current": [0], "prior_labels": [3]}).unwrapped_network()
    assert (network.current, network.prior) == ((0,), (3,))


def test_without_a_word_on_it_channel_0_is_current_and_the_rest_the_prior_image(built):
    trainer = built(kind="regions")
    assert trainer.roles.model_dump() == {"current": [0], "prior_image": [1, 2], "prior_labels": []}


def test_settings_that_a_configuration_inherits_stay_in_force(plans):
    content, dataset_json = plans(dual_encoder={"context_width": 0.5})
    content["configurations"]["child"] = {
        "inherits_from": "3d_tiny",
        "nnunet_ext": {"dual_encoder": {"fusion": "add"}},
    }
    trainer = nnUNetTrainerDualEncoder(content, "child", 0, dataset_json, torch.device("cpu"))
    trainer.initialize()
    assert trainer.unwrapped_network().context_encoder.output_channels == [2, 4, 6, 6, 6]
    assert hasattr(trainer.unwrapped_network().fusions[0], "projection")


@pytest.mark.parametrize(
    ("roles", "problem"),
    [
        ({"current": [0]}, "no prior channel"),
        ({"current": [0], "prior_image": [4]}, "names channel 4; the dataset has the channels 0 to 3"),
        ({"current": [0, 1], "prior_image": [1]}, "channel 1 more than one role"),
        ({"prior_image": [1]}, "current"),
        ({"current": [0], "previous": [1]}, "previous"),
    ],
)
def test_wrong_roles_are_refused(plans, roles, problem):
    content, dataset_json = plans()
    dataset_json["nnunet_ext"] = {"longitudinal": roles}
    with pytest.raises(UserError, match=problem):
        nnUNetTrainerDualEncoder(content, "3d_tiny", 0, dataset_json, torch.device("cpu"))


def test_a_dataset_without_a_prior_is_refused_with_the_command_that_makes_one(results):
    with pytest.raises(UserError, match="nnunet_ext pair"):
        build_trainer("nnUNetTrainerDualEncoder")


def test_a_training_is_not_resumed_with_other_roles(built, plans, tmp_path):
    trainer = built()
    file = tmp_path / "checkpoint.pth"
    trainer.save_checkpoint(str(file))
    content, dataset_json = plans(dual_encoder={"channels": {"current": [1], "prior_image": [0]}})
    other = nnUNetTrainerDualEncoder(
        {**content, "continue_training": True}, "3d_tiny", 0, dataset_json, torch.device("cpu")
    )
    other.initialize()
    with pytest.raises(UserError, match=r"dual_encoder\.channels"):
        other.load_checkpoint(str(file))


# ---------------------------------------------------------------------- augmentation


def training_transforms(trainer):
    rotation, dummy_2d, _, mirror_axes = trainer.configure_rotation_dummyDA_mirroring_and_inital_patch_size()
    return trainer.get_training_transforms(
        trainer.configuration_manager.patch_size,
        rotation,
        trainer._get_deep_supervision_scales(),
        mirror_axes,
        dummy_2d,
        use_mask_for_norm=trainer.configuration_manager.use_mask_for_norm,
    )


def test_intensities_of_image_channels_alone_are_augmented(built):
    transforms = training_transforms(built()).transforms
    of_channels = [one.transform for one in transforms if isinstance(one, RandomTransform)]
    assert len(of_channels) == 7
    assert all(isinstance(one, OnChannels) and one.channels == [0, 1] for one in of_channels)
    assert not any(isinstance(one, Misalignment) for one in transforms)


def test_binary_labels_stay_binary_through_every_intensity_transform(built):
    transforms = training_transforms(built()).transforms
    image = torch.rand(4, 16, 16, 16)
    image[2:] = (image[2:] > 0.5).float()
    sample = {"image": image.clone(), "segmentation": torch.zeros(1, 16, 16, 16)}
    for transform in transforms:
        if isinstance(transform, RandomTransform):
            sample = transform.transform(**sample)
    assert torch.equal(sample["image"][2:], image[2:])
    assert not torch.equal(sample["image"][0], image[0])
    assert not torch.equal(sample["image"][1], image[1])


def test_the_prior_alone_is_moved_on_request_before_intensities_change(built):
    trainer = built(misalignment_probability=1.0, misalignment_shift=2.0, misalignment_rotation=5.0)
    transforms = training_transforms(trainer).transforms
    place = next(number for number, one in enumerate(transforms) if isinstance(one, RandomTransform))
    moving = transforms[place].transform
    assert isinstance(moving, Misalignment)
    assert transforms[place].apply_probability == 1.0
    assert isinstance(transforms[place + 1].transform, OnChannels)
    image = torch.rand(4, 16, 16, 16)
    moved = moving(image=image.clone())["image"]
    assert torch.equal(moved[0], image[0])
    assert all(not torch.equal(moved[channel], image[channel]) for channel in (1, 2, 3))


# ---------------------------------------------------------------------- without a prior


def test_prior_dropout_sets_the_whole_prior_of_a_share_of_the_samples_to_zero(built):
    trainer = built(prior_dropout=0.3)
    trainer.rng = np.random.default_rng(0)
    batch = batch_of(trainer, 8)
    dropped = 0
    for _ in range(50):
        data = trainer.prepare_batch(batch, training=True)["data"]
        is_zero = (data[:, 1:] == 0).flatten(1).all(dim=1)
        assert torch.equal(data[:, 0], batch["data"][:, 0])
        assert torch.equal(data[~is_zero], batch["data"][~is_zero])
        assert trainer._observations["dual_encoder/without_prior"] == is_zero.float().mean()
        dropped += int(is_zero.sum())
    # 120 of 400, four standard deviations to either side
    assert 83 < dropped < 157
    assert (batch["data"] != 0).any(dim=1).all(), "the loader's batch is left as it is"


def test_nothing_is_dropped_in_validation_or_on_request(built):
    trainer = built(prior_dropout=1.0)
    batch = batch_of(trainer)
    assert torch.equal(trainer.prepare_batch(batch, training=False)["data"], batch["data"])
    none = built(prior_dropout=0.0)
    assert torch.equal(none.prepare_batch(batch, training=True)["data"], batch["data"])


@pytest.mark.parametrize(("scheme", "value"), [("ZScoreNormalization", 0.0), ("CTNormalization", -0.8)])
def test_a_case_without_a_prior_reaches_the_network_as_prior_dropout_trains_it(built, tmp_path, scheme, value):
    """Zeros in the raw files, after nnU-Net's own normalisation and resampling."""
    trainer = built(prior_dropout=1.0)
    trainer.configuration_manager.configuration["normalization_schemes"][1] = scheme
    intensities = {"mean": 40.0, "std": 50.0, "percentile_00_5": -100.0, "percentile_99_5": 300.0}
    trainer.plans_manager.plans["foreground_intensity_properties_per_channel"]["1"] = intensities
    import SimpleITK as sitk

    rng = np.random.default_rng(0)
    files = []
    for channel in range(4):
        image = rng.normal(size=(20, 24, 24)) if channel == 0 else np.zeros((20, 24, 24))
        files.append(str(tmp_path / f"case_{channel:04d}.nii.gz"))
        written = sitk.GetImageFromArray(image.astype(np.float32))
        written.SetSpacing((1.3, 1.3, 1.7))
        sitk.WriteImage(written, files[-1])
    data, _, _ = DefaultPreprocessor(verbose=False).run_case(
        files, None, trainer.plans_manager, trainer.configuration_manager, trainer.dataset_json
    )
    dropped = trainer.prepare_batch(batch_of(trainer), training=True)["data"]
    for found in (data, dropped[0].numpy()):
        np.testing.assert_allclose(found[1], value, rtol=1e-6)
        assert (found[2:] == 0).all()
        assert found[0].std() > 0.5


# ---------------------------------------------------------------------- beside other techniques and other weights


def test_mixup_and_the_second_encoder_combine(built):
    trainer = built(nnUNetTrainerDualEncoderMixUp, general={"mixup": {"weight": 0.5}}, prior_dropout=1.0)
    assert trainer.techniques == (BASE, MIXUP, DUAL_ENCODER)
    assert {"dual_encoder", "mixup"} <= set(trainer.settings_record())
    prepared = trainer.prepare_batch(batch_of(trainer), training=True)
    assert (prepared["data"][:, 1:] == 0).all()
    assert (prepared["mixed"]["data"][:, 1:] == 0).all()
    assert set(step_terms(trainer, prepared)) == {"segmentation", "mixup"}


@pytest.mark.parametrize("mode", ["additional", "alternate"])
@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
def test_a_mixed_patch_has_its_prior_or_none_as_often_as_a_clean_one(built, kind, mode):
    mixup = {"kind": kind, "mode": mode, "probability": 1.0}
    trainer = built(nnUNetTrainerDualEncoderMixUp, general={"mixup": mixup}, prior_dropout=0.5)
    batch = {"data": torch.ones(2, 4, 4, 4, 4), "target": torch.zeros(2, 1, 4, 4, 4), "keys": ["a", "b"]}
    trainer.rng, has_prior = np.random.default_rng(0), []
    for _ in range(300):
        prepared = trainer.prepare_batch(batch, training=True)
        mixed = prepared["mixed"]["data"]
        assert torch.equal(mixed, prepared["data"]), "here patches are alike, and mixing changes nothing else"
        assert torch.equal(mixed[:, 0], batch["data"][:, 0])
        assert trainer._observations["dual_encoder/without_prior"] == (mixed[:, 1] == 0).all((1, 2, 3)).float().mean()
        has_prior.extend(mixed[:, 1:].flatten(1).unique(dim=1).tolist())
    assert all(one in ([0.0], [1.0]) for one in has_prior), "a prior at reduced strength"
    assert np.mean(has_prior) == pytest.approx(0.5, abs=0.08)


def test_log_tells_the_share_without_a_prior(results, workspace):
    name = "dual_encoder/without_prior"
    for share, logged in ((1.0, [1.0]), (0.0, None)):  # without prior dropout there is nothing to tell
        trainer = changed_trainer(nnUNetTrainerDualEncoder, kind="prior", dual_encoder={"prior_dropout": share})
        trainer.run_training()
        assert trainer.logger.local_logger.my_fantastic_logging.get(name) == logged


def test_weights_of_a_single_encoder_leave_context_and_gates_random_and_say_so(plans, workspace):
    single = build_trainer("nnUNetTrainerConfigurable")
    single.initialize()
    checkpoint = {
        "network_weights": single.network.state_dict(),
        "init_args": single.my_init_kwargs,
        "trainer_name": "nnUNetTrainerConfigurable",
    }
    content, dataset_json = plans()
    target = ModelDescription(content, "3d_tiny", dataset_json)
    network = build_network(nnUNetTrainerDualEncoder, target, deep_supervision=True)
    assert network.prior == (1, 2, 3)
    result = adapt(checkpoint, network, target, keep_heads=True)
    network.load_state_dict(result.weights, strict=True)
    random = {tensor.key.split(".")[0] for tensor in result.tensors if tensor.outcome == "random"}
    assert random == {"context_encoder", "fusions"}
    assert {t.outcome for t in result.tensors if t.key.split(".")[0] in ("encoder", "decoder")} == {"copied"}
    assert "a plain U-Net has no such part" in result.table()
    first = "encoder.stages.0.0.convs.0.conv.weight"
    assert torch.equal(network.state_dict()[first], single.network.state_dict()[first])


def test_weights_for_images_go_into_no_channel_of_labels(plans, workspace):
    single = build_trainer("nnUNetTrainerConfigurable")
    single.initialize()
    weights = single.network.state_dict()
    checkpoint = {"network_weights": weights, "init_args": single.my_init_kwargs, "trainer_name": "x"}
    content, dataset_json = plans(dual_encoder={"fusion": "early"})
    target = ModelDescription(content, "3d_tiny", dataset_json)
    network = build_network(nnUNetTrainerDualEncoder, target, deep_supervision=True)
    result = adapt(checkpoint, network, target, keep_heads=True)
    first = "encoder.stages.0.0.convs.0.conv.weight"
    kernel = result.weights[first]
    assert torch.equal(kernel[:, :2], weights[first].repeat_interleave(2, dim=1) / 2)
    assert result.known[first].flatten(1).any(dim=0).tolist() == [True, True, False, False]


# ---------------------------------------------------------------------- it learns

SIDE, STEPS = 32, 100
NETWORK = {
    "n_stages": 3,
    "features_per_stage": [6, 12, 24],
    "kernel_sizes": [[3, 3, 3]] * 3,
    "strides": [[1, 1, 1], [2, 2, 2], [2, 2, 2]],
    "n_conv_per_stage": [2, 2, 2],
    "n_conv_per_stage_decoder": [2, 2],
}
LESIONS = {"background": 0, "lesion": 1}


def standardised(image):
    return (image - image.mean()) / image.std()


def follow_ups(seed, size):
    """Current image, prior image and prior labels as channels (size, 3, …), and current labels (size, 1, …)."""
    rng = np.random.default_rng(seed)
    scans = [make_follow_up(rng, (SIDE, SIDE, SIDE)) for _ in range(size)]
    images = [(standardised(s["images"]), standardised(s["priors"]), s["priorLabels"]) for s in scans]
    labels = [s["labels"][None] for s in scans]
    return torch.from_numpy(np.array(images, np.float32)), torch.from_numpy(np.array(labels, np.int16))


def learn(trainer, data, labels, rng):
    scales = trainer._get_deep_supervision_scales()
    for _ in range(STEPS):
        drawn = rng.integers(len(data), size=2)
        axes = [axis for axis in (2, 3, 4) if rng.random() < 0.5]
        images, target = data[drawn].flip(axes), labels[drawn].flip(axes)
        targets = [torch.nn.functional.interpolate(target.float(), scale_factor=tuple(scale)) for scale in scales]
        trainer.train_step({"data": images, "target": targets, "keys": ["a", "b"]})
    trainer.set_deep_supervision_enabled(False)
    trainer.network.eval()


def dice(trainer, data, labels):
    """Aggregated over the patients."""
    with torch.no_grad():
        predicted = torch.cat([trainer.network(one[None]).argmax(1) for one in data]) == 1
    reference = labels[:, 0] == 1
    return (2 * (predicted & reference).sum() / (predicted.sum() + reference.sum())).item()


def learned(built, seed):
    """Dice on other patients: without a prior, with it, and with the prior of another patient in its place."""
    general = {"optimizer": "adamw", "initial_lr": 5e-3, "seed": seed}
    common = {"dataset": {"labels": LESIONS}, "general": general, "patch": (SIDE,) * 3, "network": NETWORK}
    dual = built(**common, channels={"current": [0], "prior_image": [1], "prior_labels": [2]})
    alone = built(nnUNetTrainerConfigurable, **common, kind="labels")
    data, labels = follow_ups(seed, 24)
    test_data, test_labels = follow_ups(1000 + seed, 12)
    learn(alone, data[:, :1], labels, np.random.default_rng(seed))
    dual.rng = np.random.default_rng(seed)
    learn(dual, data, labels, np.random.default_rng(seed))
    exchanged = test_data.clone()
    exchanged[:, 1:] = exchanged[:, 1:].roll(1, dims=0)
    return dice(alone, test_data[:, :1], test_labels), *(dice(dual, one, test_labels) for one in (test_data, exchanged))


@pytest.mark.full
@pytest.mark.usefixtures("one_thread")
def test_prior_scan_helps_and_another_patients_does_not(built):
    """Mean of three seeds; margins were fixed on seeds 10 and 11: 0.49 and 0.14 alone, 0.79 and 0.75 with the prior."""
    scores = np.array([learned(built, seed) for seed in (1, 2, 3)])
    print(f"Dice by seed, without a prior, with it, with another patient's:\n{scores.round(3)}")
    alone, with_prior, with_anothers = scores.mean(axis=0)
    assert with_prior > alone + 0.15
    assert with_prior > with_anothers + 0.15
