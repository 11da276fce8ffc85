"""Pre-training on images alone: what padding does, what each loss is, and what carries over to other trainings.

Batches come from nnU-Net's own data loaders.
"""

from pathlib import Path

import numpy as np
import pytest
import torch
from nnunetv2.run.load_pretrained_weights import load_pretrained_weights
from nnunetv2.training.dataloading.data_loader import nnUNetDataLoader

from nnunet_ext.augmentation.image_border import OUTSIDE
from nnunet_ext.augmentation.patch_places import UniformPatchCases
from nnunet_ext.checkpoints.adaptation import adapt
from nnunet_ext.checkpoints.description import ModelDescription
from nnunet_ext.checkpoints.fit import Fit
from nnunet_ext.checkpoints.heads import is_head
from nnunet_ext.checkpoints.sources import read_source
from nnunet_ext.errors import UserError
from nnunet_ext.plans.settings import validated_settings
from nnunet_ext.trainers import nnUNetTrainerMAE, nnUNetTrainerModelsGenesis, nnUNetTrainerVolumeFusion
from support.changed_trainers import changed_trainer
from support.nnunet_runs import build_trainer, train

GENESIS, FUSION, MAE = nnUNetTrainerModelsGenesis, nnUNetTrainerVolumeFusion, nnUNetTrainerMAE
TRAINERS = [GENESIS, FUSION, MAE]
AS_IT_IS = {"intensity_probability": 0.0, "inversion_probability": 0.0, "smallest_crop": 1.0, "largest_crop": 1.0}
IMAGE = (20, 24, 24)
SMALL = {
    "n_stages": 3,
    "strides": [[1] * 3, [2] * 3, [2] * 3],
    "kernel_sizes": [[3] * 3] * 3,
    "features_per_stage": [4, 8, 8],
    "n_conv_per_stage": [1] * 3,
    "n_conv_per_stage_decoder": [1] * 2,
}


@pytest.fixture
def built(workspace, results):
    """Build a trainer with its data loaders."""

    def build(trainer, configuration="3d_tiny", **changes):
        made = changed_trainer(trainer, configuration, **changes)
        made.on_train_start()
        return made

    return build


def what_counts(trainer, prepared):
    """(B, 1, [X,] Y, Z), true where a voxel is in the loss."""
    return prepared["target"] != OUTSIDE if isinstance(trainer, FUSION) else prepared["counts"]


def outputs_like(trainer, prepared):
    """Random outputs in the form of the network's, which need gradients."""
    generator = torch.Generator().manual_seed(0)
    channels = 5 if isinstance(trainer, FUSION) else prepared["data"].shape[1]
    shape = (len(prepared["data"]), channels, *prepared["data"].shape[2:])
    made = [
        torch.randn(shape, generator=generator).requires_grad_()
        for _ in range(2 if trainer.__class__ is GENESIS else 1)
    ]
    return made if len(made) > 1 else made[0]


# ---------------------------------------------------------------------- patches


@pytest.mark.parametrize("trainer", [GENESIS, MAE])
@pytest.mark.parametrize("kind", ["labels", "ignore"])
def test_patches_are_drawn_anywhere_and_within_the_scan_whatever_was_annotated(
    workspace, results, monkeypatch, trainer, kind
):
    """With an ignore label, nnU-Net takes patches around annotated voxels, also such that reach beyond the scan."""
    starts, stock = [], nnUNetDataLoader.get_bbox

    def get_bbox(self, *args, **kwargs):
        box = stock(self, *args, **kwargs)
        starts.append(box[0])
        return box

    made = changed_trainer(trainer, kind=kind, patch=(8, 8, 8), network=SMALL)
    made.initialize()
    loader, _ = made.get_dataloaders()
    monkeypatch.setattr(nnUNetDataLoader, "get_bbox", get_bbox)
    np.random.seed(0)  # noqa: NPY002
    for _ in range(150):
        next(loader)
    places = np.array(starts)
    assert places.min(axis=0).tolist() == [0, 0, 0]
    assert places.max(axis=0).tolist() == [length - 8 for length in IMAGE]


def test_slices_are_drawn_anywhere(workspace):
    class Case:
        identifiers = ("a",)

        def load_case(self, identifier):
            empty = np.zeros((1, *IMAGE))
            return empty, empty, None, {"class_locations": {(1, 2): np.array([[0, 3, 3, 3]]), 1: []}}

    cases = UniformPatchCases(Case(), [12, 30])
    drawn = [cases.load_case("a")[3]["class_locations"] for _ in range(300)]
    assert all(set(one) == {(1, 2), 1} for one in drawn)
    middles = np.concatenate([one[1] for one in drawn])
    # the middle of a patch within the scan; of an axis that is shorter than the patch, always the same
    assert middles.min(axis=0).tolist() == [0, 0, 6, 12]
    assert middles.max(axis=0).tolist() == [0, 19, 18, 12]


# ---------------------------------------------------------------------- padding


@pytest.mark.parametrize("trainer", TRAINERS)
@pytest.mark.parametrize(("configuration", "patch"), [("3d_tiny", (32, 32, 32)), ("2d_tiny", (32, 32))])
def test_what_nnunet_padded_carries_no_loss(built, trainer, configuration, patch):
    made = built(trainer, configuration, patch=patch, volume_fusion=AS_IT_IS)
    # 2D configurations slice along the first axis
    inside = np.prod(IMAGE[-len(patch) :])
    for loader in (made.dataloader_train, made.dataloader_val):
        prepared = made.prepare_batch(next(loader), training=True)
        counts = what_counts(made, prepared)
        assert counts.shape == (len(prepared["data"]), 1, *patch)
        for sample, image in zip(counts, prepared["data"]):
            masked = (image == 0).all(dim=0)
            if trainer is MAE:
                assert 0 < sample.sum() < inside
                assert not sample[0][~masked].any(), "voxels that are shown do not count"
            else:
                assert sample.sum() == inside
        outputs = outputs_like(made, prepared)
        sum(made.loss_terms(outputs, prepared).values()).backward()
        for output in outputs if isinstance(outputs, list) else [outputs]:
            assert not output.grad[(~counts).expand_as(output)].any()
            assert output.grad[counts.expand_as(output)].all()


@pytest.mark.parametrize("trainer", TRAINERS)
def test_air_is_no_padding(built, trainer):
    """Preprocessing writes -1 into the labels of air, and the loader where it pads."""
    made = built(trainer, volume_fusion=AS_IT_IS)
    loader = made.dataloader_train.data_loader.loader
    marked = loader._data.cases if trainer is FUSION else loader._data
    load_case = marked.cases.load_case

    def with_air(identifier):
        image, segmentation, previous, properties = load_case(identifier)
        return image, np.full_like(np.asarray(segmentation[:]), -1), previous, properties

    marked.cases.load_case = with_air
    prepared = made.prepare_batch(next(made.dataloader_train), training=True)
    counts = what_counts(made, prepared)
    if trainer is MAE:
        assert torch.equal(counts, (prepared["data"] == 0).all(dim=1, keepdim=True))
    else:
        assert counts.all()


# ---------------------------------------------------------------------- tasks and losses


@pytest.mark.parametrize("configuration", ["3d_tiny", "2d_tiny"])
def test_a_masked_autoencoder_sees_a_quarter_and_is_scored_by_the_rest(built, configuration):
    made = built(MAE, configuration, mae={"block_size": 2})
    raw = next(made.dataloader_train)
    prepared = made.prepare_batch(raw, training=True)
    data, image, counts = (prepared[key].numpy() for key in ("data", "target", "counts"))
    assert counts.mean() == pytest.approx(0.75, abs=0.01)
    assert (data == np.where(counts, 0, image)).all()
    outputs = outputs_like(made, prepared)
    errors = (outputs.detach().numpy().astype(np.float64) - image) ** 2
    terms = made.loss_terms(outputs, prepared)
    assert terms["restoration"].item() == pytest.approx(errors[counts].mean(), rel=1e-5)
    assert list(terms) == ["restoration"]


@pytest.mark.parametrize("configuration", ["3d_tiny", "2d_tiny"])
def test_pure_blocks_of_a_fusion_are_parts_of_the_scan(built, configuration):
    made = built(FUSION, configuration, volume_fusion=AS_IT_IS)
    batch = next(made.dataloader_train)
    assert batch["target"].shape == (len(batch["data"]), 1, *batch["data"].shape[2:])
    seen = set()
    for patch, label, key in zip(batch["data"], batch["target"], batch["keys"]):
        loader = made.dataloader_train.data_loader.loader
        scan = set(np.round(np.asarray(loader._data.cases.load_case(key)[0]), 4).ravel())
        is_pure = (label == 0) | (label == 4)
        assert set(np.round(patch[is_pure].numpy(), 4)) <= scan
        assert not set(np.round(patch[~is_pure].numpy(), 4)) <= scan
        seen |= set(label.unique().tolist())
    assert seen == {0, 1, 2, 3, 4}


def reference_fusion_loss(logits, target, batch_dice):
    """½ cross-entropy - ½ mean Dice of all classes over the voxels with a label, in float64."""
    logits, target = logits.detach().double().numpy(), target.numpy()[:, 0]
    shifted = logits - logits.max(axis=1, keepdims=True)
    log_p = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    classes, dices, entropies = logits.shape[1], [], []
    for sample in range(len(logits)):
        inside = target[sample] != OUTSIDE
        labels, own = target[sample][inside], log_p[sample][:, inside]
        entropies += [-own[label, voxel] for voxel, label in enumerate(labels)]
        p = np.exp(own)
        dices.append([(p[k][labels == k].sum(), p[k].sum(), (labels == k).sum()) for k in range(classes)])
    parts = np.array(dices)
    parts = parts.sum(axis=0, keepdims=True) if batch_dice else parts
    dice = (2 * parts[..., 0] + 1e-5) / (parts[..., 1] + parts[..., 2] + 1e-5)
    return 0.5 * np.mean(entropies) - 0.5 * dice.mean()


@pytest.mark.parametrize("batch_dice", [False, True])
@pytest.mark.parametrize("patch", [(16, 16, 16), (32, 32, 32)])
def test_the_fusion_loss_is_half_dice_and_half_cross_entropy(built, batch_dice, patch):
    made = built(FUSION, patch=patch, plan={"batch_dice": batch_dice})
    prepared = made.prepare_batch(next(made.dataloader_train), training=True)
    outputs = outputs_like(made, prepared)
    terms = made.loss_terms(outputs, prepared)
    expected = reference_fusion_loss(outputs, prepared["target"], batch_dice)
    assert terms["fusion"].item() == pytest.approx(expected, rel=1e-4)
    assert list(terms) == ["fusion"]


def test_validation_counts_coefficients_over_the_voxels_with_a_label(built):
    made = built(FUSION, patch=(32, 32, 32))
    batch = next(made.dataloader_val)
    logits = outputs_like(made, made.prepare_batch(batch, training=False)).detach()
    made.forward = lambda prepared: logits
    result = made.validation_step(batch)
    target, predicted = batch["target"].numpy(), logits.argmax(dim=1, keepdim=True).numpy()
    assert (target == OUTSIDE).any()
    for k in range(1, 5):
        is_it, says_so = target == k, (predicted == k) & (target != OUTSIDE)
        assert result["tp_hard"][k - 1] == (is_it & says_so).sum()
        assert result["fp_hard"][k - 1] == (~is_it & says_so).sum()
        assert result["fn_hard"][k - 1] == (is_it & ~says_so).sum()
    made.logger.log = lambda name, value, epoch: logged.update({name: value})
    logged = {}
    made.on_validation_epoch_end([result, result])
    dice = [2 * t / (2 * t + f + m) for t, f, m in zip(result["tp_hard"], result["fp_hard"], result["fn_hard"])]
    assert logged["mean_fg_dice"] == pytest.approx(np.mean(dice))


def test_only_training_flips_and_changes_intensities(built):
    made = built(FUSION)
    training, validation = (made.get_training_transforms(None, None, None, (0, 1)), made.get_validation_transforms())
    assert [type(one).__name__ for one in training.transforms] == ["EachCrop", "VolumeFusion"]
    inner = [type(getattr(one, "transform", one)).__name__ for one in training.transforms[0].transform.transforms]
    assert inner == ["MirrorTransform", "ContrastTransform", "GammaTransform", "InvertImageTransform"]
    assert [type(one).__name__ for one in validation.transforms] == ["VolumeFusion"]


@pytest.mark.parametrize("what", ["block", "crop"])
def test_limits_in_the_wrong_order_are_refused(what):
    values = {"volume_fusion": {f"smallest_{what}": 5, f"largest_{what}": 4}}
    values = values if what == "block" else {"volume_fusion": {"smallest_crop": 1.2, "largest_crop": 1.1}}
    with pytest.raises(UserError, match=f"volume_fusion: .*smallest_{what} .* must not be above largest_{what}"):
        validated_settings(values, where="here")


@pytest.mark.parametrize("trainer", TRAINERS)
def test_losses_of_outputs_in_low_precision_are_as_in_single(built, trainer):
    """What a GPU does, with the low precision that CPUs have."""
    made = built(trainer)
    made.autocast = lambda: torch.autocast("cpu", dtype=torch.bfloat16)
    batch = next(made.dataloader_train)
    with made.autocast():
        outputs = made.forward(made.prepare_batch(batch, training=True))
    assert made.full_resolution(outputs).dtype == torch.bfloat16
    exact = made.loss_terms(
        [one.float() for one in outputs] if isinstance(outputs, list) else outputs.float(),
        made.prepare_batch(batch, training=True),
    )
    # the network itself is left out: convolutions of such small patches may have NaN in their gradients on a CPU
    leaves = [one.detach().requires_grad_() for one in (outputs if isinstance(outputs, list) else [outputs])]
    found = made.loss_terms(
        leaves if isinstance(outputs, list) else leaves[0], made.prepare_batch(batch, training=True)
    )
    for name, term in exact.items():
        assert found[name].item() == pytest.approx(term.item(), rel=2e-2)
    sum(found.values()).backward()
    assert all(torch.isfinite(one.grad).all() for one in leaves)
    assert all(np.isfinite(value).all() for value in made.validation_step(batch).values())


# ---------------------------------------------------------------------- what carries over


def trained_source(trainer):
    source = train(trainer.__name__)
    return source, Path(source.output_folder) / "checkpoint_final.pth"


def target_of(name):
    target = build_trainer(name)
    if hasattr(target, "settings"):  # other initial weights than the source's
        target.settings = target.settings.model_copy(update={"seed": 3})
    target.initialize()
    return target


def is_encoder(key):
    return key.startswith(("encoder.", "decoder.encoder."))


def test_pretrained_weights_give_volume_fusion_but_its_head(results):
    # two coefficients: as many outputs as the target has labels
    source = changed_trainer(FUSION, volume_fusion={"classes": 2})
    source.run_training()
    target = target_of("nnUNetTrainer")
    before = {key: value.clone() for key, value in target.network.state_dict().items()}
    load_pretrained_weights(target.network, f"{source.output_folder}/checkpoint_final.pth")
    given = source.network.state_dict()
    for key, value in target.network.state_dict().items():
        assert value.shape == given[key].shape
        assert torch.equal(value, before[key] if is_head(key) else given[key]), key


def test_pretrained_weights_give_the_encoder_of_a_masked_autoencoder_and_a_decoder_that_learned_nothing(results):
    untrained = build_trainer(MAE.__name__)
    untrained.initialize()
    initial = {key: value.clone() for key, value in untrained.network.state_dict().items()}
    source, file = trained_source(MAE)
    given = source.network.state_dict()
    target = target_of("nnUNetTrainer")
    load_pretrained_weights(target.network, str(file))
    for key, value in target.network.state_dict().items():
        if is_head(key):
            continue
        assert torch.equal(value, given[key]), key
        if not is_encoder(key):
            assert torch.equal(value, initial[key]), key
    learned = [key for key in given if key.startswith("encoder.") and not torch.equal(given[key], initial[key])]
    assert learned
    restored = [key for key in given if key.startswith("restoring_decoder.stages.")]
    assert any(not torch.equal(given[key], initial[key]) for key in restored)


def adapted(file, name):
    target = target_of(name)
    description = ModelDescription(target.plans_manager.plans, target.configuration_name, target.dataset_json)
    source = read_source(file)
    adaptation = adapt(source.checkpoint, target.network, description, keep_heads=True)
    return target.network.state_dict(), adaptation, Fit.of(source, adaptation, description, file=str(file))


@pytest.mark.parametrize("name", ["nnUNetTrainerMixUp", "nnUNetTrainerDBDMP"])
@pytest.mark.parametrize("trainer", TRAINERS)
def test_the_fit_report_says_what_is_taken_and_that_is_taken(results, trainer, name):
    source, file = trained_source(trainer)
    own, adaptation, fit = adapted(file, name)
    given = source.network.state_dict()
    outcomes = {one.key: one.outcome for one in adaptation.tensors if one.outcome != "unused"}
    for key, value in adaptation.weights.items():
        stays = is_head(key) or (trainer is MAE and not is_encoder(key))
        # another training's single decoder fills all of a network's
        found = key if key in given else key.replace("auxiliary_decoders.0.", "decoder.")
        assert torch.equal(value, own[key] if stays else given[found]), key
        if key in outcomes:
            assert outcomes[key] == ("random" if stays else "copied"), key
    text, record = fit.text(), fit.record()
    heads = {GENESIS: "restore images", FUSION: "tell how crops were blended", MAE: "restore images"}[trainer]
    assert f"The heads {heads} and are never taken." in text
    assert f"the source's heads {heads}" in text
    if trainer is MAE:
        assert "Encoder: taken. Decoder: the source's decoder restores images and is never taken." in text
        assert "restoring_decoder" not in text
    else:
        assert "Encoder and decoder: taken." in text
    assert record["source"]["kind"] == ("volume fusion" if trainer is FUSION else "restoration")


def test_the_decoder_of_a_masked_autoencoder_cannot_be_asked_for(results):
    _, file = trained_source(MAE)
    with pytest.raises(UserError, match="has no decoder that can be taken"):
        read_source(file, parts="all")


def test_a_file_that_tells_nonsense_of_its_parts_is_read_as_any_other(results):
    _, file = trained_source(FUSION)
    content = torch.load(file, weights_only=False)
    for nonsense in ({"outputs": ["blends"]}, {"left_out": {"decoder": ""}}):
        torch.save({**content, "nnunet_ext": nonsense}, file)
        assert any(key.startswith("decoder.stages.") for key in read_source(file).checkpoint["network_weights"])
    torch.save({**content, "nnunet_ext": {"left_out": "decoder"}}, file)
    with pytest.raises(UserError, match="left_out must be a mapping"):
        read_source(file)


# ---------------------------------------------------------------------- learning


@pytest.mark.full
def test_a_masked_autoencoder_explains_a_third_of_the_variance_of_what_it_never_saw(built):
    made = built(MAE, optimizer="adamw", initial_lr=5e-3, mae={"block_size": 4})
    for _ in range(100):
        made.train_step(next(made.dataloader_train))
    made.network.eval()
    with torch.no_grad():
        outputs = [made.validation_step(next(made.dataloader_val)) for _ in range(20)]
    # the mean values explain nothing
    assert 1 - sum(one["error"] for one in outputs) / sum(one["variance"] for one in outputs) > 1 / 3


@pytest.mark.full
def test_a_fusion_is_told_better_than_by_the_share_of_each_coefficient(built):
    """With crops of one size, in which no interpolation changes the noise. The margin is a fifth of the loss or so."""
    settings = {**AS_IT_IS, "classes": 2}
    made = built(FUSION, "3d_tiny_batch_of_four", optimizer="adamw", initial_lr=2e-2, volume_fusion=settings)
    for _ in range(150):
        made.train_step(next(made.dataloader_train))
    made.network.eval()
    shares = torch.tensor([0.3, 0.35, 0.35]).log().reshape(1, 3, 1, 1, 1)
    losses, trivial = [], []
    with torch.no_grad():
        for _ in range(20):
            batch = next(made.dataloader_val)
            prepared = made.prepare_batch(batch, training=False)
            constant = shares.expand(len(batch["data"]), 3, *batch["data"].shape[2:])
            for found, outputs in ((losses, made.forward(prepared)), (trivial, constant)):
                found.append(reference_fusion_loss(outputs, prepared["target"], batch_dice=False))
    assert np.mean(losses) < np.mean(trivial) - 0.08
