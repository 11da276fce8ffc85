"""MixUp and CutMix inside a training: what a step computes, and that it mixes what it says."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from nnunet_ext.plans.settings import validated_settings
from nnunet_ext.trainers import (
    nnUNetTrainerDBDMP,
    nnUNetTrainerDMPLS,
    nnUNetTrainerMixedSupervision,
    nnUNetTrainerMixUp,
    nnUNetTrainerPartialCE,
    nnUNetTrainerPartialLabels,
    nnUNetTrainerTDNet,
)
from nnunet_ext.trainers.mixup import MixUpMixin
from nnunet_ext.trainers.partial_labels import PartialLabelsMixUpMixin
from support.changed_trainers import batch_of, changed_trainer, step_terms
from support.nnunet_runs import build_trainer, train


def initialized(mixup, data="labels"):
    """A trainer ready for single steps, with the given MixUp settings."""
    trainer = build_trainer("nnUNetTrainerMixUp", kind=data)
    trainer.settings = validated_settings({"mixup": mixup}, where="the test")
    torch.manual_seed(0)
    trainer.initialize()
    trainer.rng, trainer.shared_rng = np.random.default_rng(1), np.random.default_rng(2)
    return trainer


def random_batch(trainer, batch_size=2, ignore_share=0.0):
    """A batch as the loader makes it, targets for every deep-supervision head."""
    generator = torch.Generator().manual_seed(0)
    data = torch.randn((batch_size, trainer.num_input_channels, 16, 16, 16), generator=generator)
    labels = trainer.label_manager
    if labels.has_regions:
        channels = len(labels.foreground_regions) + labels.has_ignore_label
        full = torch.rand((batch_size, channels, 16, 16, 16), generator=generator) > 0.7
    else:
        full = torch.randint(0, labels.num_segmentation_heads, (batch_size, 1, 16, 16, 16), generator=generator)
        if ignore_share:
            ignored = torch.rand(full.shape, generator=generator) < ignore_share
            full = torch.where(ignored, labels.ignore_label, full)
        full = full.to(torch.int16)
    heads = [full[:, :, ::step, ::step, ::step] for step in (1, 2, 4, 8)]
    return {"data": data, "target": heads, "keys": ["a", "b"][:batch_size]}


def terms_of(trainer, batch):
    prepared = trainer.prepare_batch(batch, training=True)
    return step_terms(trainer, prepared), prepared


def test_additional_mode_adds_a_term_and_keeps_the_clean_one(results):
    trainer = initialized({"weight": 0.5})
    batch = random_batch(trainer)
    terms, prepared = terms_of(trainer, batch)
    assert set(terms) == {"segmentation", "mixup"}
    assert torch.equal(prepared["data"], batch["data"]), "the usual loss must see the clean patches"
    torch.testing.assert_close(terms["segmentation"], trainer.loss(trainer.network(batch["data"]), batch["target"]))
    mixed = prepared["mixed"]
    logits = trainer.network(mixed["data"])[0]
    reference = -(mixed["mixed_target"].double() * logits.double().log_softmax(1)).sum(1).mean()
    assert terms["mixup"].item() == pytest.approx(0.5 * reference.item(), rel=1e-5)


def test_a_ratio_of_one_gives_the_clean_cross_entropy(results, monkeypatch):
    trainer = initialized({})
    monkeypatch.setattr("nnunet_ext.augmentation.batch_mixing.draw_ratios", lambda size, alpha, rng: np.ones(size))
    batch = random_batch(trainer)
    terms, _ = terms_of(trainer, batch)
    clean = F.cross_entropy(trainer.network(batch["data"])[0], batch["target"][0][:, 0].long())
    torch.testing.assert_close(terms["mixup"], clean)


def test_of_regions_a_ratio_of_one_gives_nnunets_own_cross_entropy(results, monkeypatch):
    """With an ignore label, nnU-Net's is a sum over the regions."""
    trainer = initialized({}, data="regions")
    monkeypatch.setattr("nnunet_ext.augmentation.batch_mixing.draw_ratios", lambda size, alpha, rng: np.ones(size))
    loss = trainer.full_resolution_loss()
    mixed = trainer.mixed_batch(random_batch(trainer))
    target = torch.cat([mixed["mixed_target"], (~mixed["mixed_mask"]).float()], dim=1)
    logits = torch.randn(2, 2, 16, 16, 16, generator=torch.Generator().manual_seed(0))
    found = trainer.loss_of_mixed(logits, mixed)
    loss.weight_dice = 0
    torch.testing.assert_close(found, loss(logits, target))


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        (nnUNetTrainerTDNet, "is of one decoder"),
        (nnUNetTrainerDMPLS, "is of one decoder"),
        (nnUNetTrainerDBDMP, "is of one decoder"),
        (nnUNetTrainerPartialLabels, "derive it from PartialLabelsMixUpMixin"),
        (nnUNetTrainerMixedSupervision, "would count that nobody annotated"),
    ],
)
def test_what_mixup_would_teach_wrongly_is_refused(other, reason):
    for bases in ((MixUpMixin, other), (other, nnUNetTrainerMixUp)):
        with pytest.raises(TypeError, match=f"Combined cannot have MixUp: .*{reason}"):
            type("Combined", bases, {})
    assert type("Allowed", (PartialLabelsMixUpMixin, nnUNetTrainerPartialLabels), {})


def test_only_the_full_resolution_head_gets_a_mixed_gradient(results):
    trainer = initialized({})
    terms, _ = terms_of(trainer, random_batch(trainer))
    terms["mixup"].backward()
    heads = trainer.network.decoder.seg_layers
    assert heads[-1].weight.grad.abs().sum() > 0
    assert all(head.weight.grad is None for head in heads[:-1])


def test_mixed_data_and_targets_follow_one_ratio_and_partner(results):
    trainer = initialized({})
    batch = random_batch(trainer)
    mixed = trainer.mixed_batch(trainer.prepare_batch(batch, training=False))
    first, second = batch["data"]
    ratio = ((mixed["data"][0] - second) / (first - second)).median().item()
    assert 1e-4 <= ratio <= 1 - 1e-4
    torch.testing.assert_close(mixed["data"][0], ratio * first + (1 - ratio) * second, rtol=1e-4, atol=1e-4)
    onehot = F.one_hot(batch["target"][0][:, 0].long(), 3).movedim(-1, 1).float()
    torch.testing.assert_close(
        mixed["mixed_target"][0], ratio * onehot[0] + (1 - ratio) * onehot[1], rtol=1e-4, atol=1e-4
    )


def test_a_voxel_ignored_in_either_partner_takes_no_part(results):
    trainer = initialized({}, data="ignore")
    batch = random_batch(trainer, ignore_share=0.3)
    ignored = batch["target"][0] == trainer.label_manager.ignore_label
    _, prepared = terms_of(trainer, batch)
    either = ignored[0] | ignored[1]
    assert torch.equal(prepared["mixed"]["mixed_mask"][0], ~either)
    assert torch.equal(prepared["mixed"]["mixed_mask"][1], ~either)
    # whatever the network says there, the loss is the same
    logits = torch.randn((2, 3, 16, 16, 16), generator=torch.Generator().manual_seed(3))
    spoilt = torch.where(either, 100 * logits, logits)
    torch.testing.assert_close(
        trainer.mixed_loss(spoilt, prepared["mixed"]), trainer.mixed_loss(logits, prepared["mixed"])
    )


def test_regions_use_binary_cross_entropy_on_mixed_multi_hot_targets(results):
    trainer = initialized({}, data="regions")
    terms, prepared = terms_of(trainer, random_batch(trainer))
    mixed = prepared["mixed"]
    logits, target = trainer.network(mixed["data"])[0].double(), mixed["mixed_target"].double()
    p = torch.sigmoid(logits)
    voxels = -(target * p.log() + (1 - target) * (1 - p).log())
    valid = mixed["mixed_mask"].expand_as(voxels)
    assert 0 < valid.sum() < valid.numel()
    # with an ignore label, nnU-Net sums over the two regions
    assert terms["mixup"].item() == pytest.approx(2 * voxels[valid].mean().item(), rel=1e-4)
    assert not torch.all((target == 0) | (target == 1)), "targets must be mixed"


def test_alternate_mode_takes_one_loss_or_the_other(results):
    trainer = initialized({"mode": "alternate"})
    batch = random_batch(trainer)
    seen = []
    for _ in range(200):
        prepared = trainer.prepare_batch(batch, training=True)
        seen.append("mixed" in prepared)
        assert seen[-1] != torch.equal(prepared["data"], batch["data"])
    assert 70 < sum(seen) < 130  # half of the steps by default
    always = initialized({"mode": "alternate", "probability": 1.0})
    terms, prepared = terms_of(always, batch)
    assert set(terms) == {"mixup"}
    assert torch.equal(prepared["data"], prepared["mixed"]["data"])


def test_processes_that_share_a_generator_mix_in_the_same_steps_and_draw_their_own_mixtures(results):
    """Under DDP a process that mixes alone would wait forever for the others' gradients."""
    trainer = initialized({"probability": 0.5})
    batch = random_batch(trainer)
    decisions, mixtures = [], []
    for rank in (0, 1):
        trainer.rng, trainer.shared_rng = np.random.default_rng((7, rank)), np.random.default_rng(2)
        prepared = [trainer.prepare_batch(batch, training=True) for _ in range(20)]
        decisions.append(["mixed" in one for one in prepared])
        mixtures.append(next(one["mixed"]["data"] for one in prepared if "mixed" in one))
    assert decisions[0] == decisions[1]
    assert set(decisions[0]) == {True, False}
    assert not torch.equal(*mixtures)


def test_probability_of_zero_is_the_usual_training(results):
    trainer = initialized({"probability": 0.0})
    terms, _ = terms_of(trainer, random_batch(trainer))
    assert set(terms) == {"segmentation"}


def test_cutmix_pastes_images_and_labels_alike_and_uses_the_hard_loss(results):
    trainer = initialized({"kind": "cutmix"}, data="ignore")
    batch = random_batch(trainer, ignore_share=0.2)
    terms, prepared = terms_of(trainer, batch)
    mixed = prepared["mixed"]
    from_partner = (mixed["data"][0] == batch["data"][1]).all(0)
    assert from_partner.sum() == 8**3
    for sample, partner in ((0, 1), (1, 0)):
        expected = torch.where(from_partner, batch["target"][0][partner], batch["target"][0][sample])
        assert torch.equal(mixed["mixed_target"][sample], expected)
    hard_loss = trainer.loss.loss
    torch.testing.assert_close(terms["mixup"], hard_loss(trainer.network(mixed["data"])[0], mixed["mixed_target"]))


@pytest.mark.parametrize("data", ["ignore", "regions", "labels"])
def test_carvemix_pastes_the_partners_foreground_with_a_margin_and_uses_the_hard_loss(results, data):
    trainer = initialized({"kind": "carvemix"}, data=data)
    batch = random_batch(trainer)
    target = torch.zeros_like(batch["target"][0])
    target[0, 0, 4:9, 5:10, 6:11] = 1
    if data == "ignore":
        target[0, 0, 15] = trainer.label_manager.ignore_label
    batch["target"][0] = target
    distance = np.linalg.norm(np.indices((16, 16, 16)) - np.reshape([6, 7, 8], (3, 1, 1, 1)), axis=0)
    seen = set()
    for seed in range(6):
        trainer.rng = np.random.default_rng(seed)
        terms, prepared = terms_of(trainer, batch)
        mixed = prepared["mixed"]
        assert not mixed["pasted"][0].any(), "its partner has no foreground, and what is ignored is none"
        region = mixed["pasted"][1, 0]
        assert region[6, 7, 8]
        assert not region[torch.from_numpy(distance > 2 * 3**0.5 + 3)].any(), "at most as far as it is deep"
        seen.add(int(region.sum()))
        for values, found in ((batch["data"], mixed["data"]), (target, mixed["mixed_target"])):
            assert torch.equal(found[0], values[0])
            assert torch.equal(found[1], torch.where(region, values[0], values[1]))
        hard_loss = trainer.loss.loss
        torch.testing.assert_close(terms["mixup"], hard_loss(trainer.network(mixed["data"])[0], mixed["mixed_target"]))
    assert min(seen) < 5**3 < max(seen)


def test_a_batch_of_one_keeps_the_usual_loss_and_says_so_once(results):
    trainer = train("nnUNetTrainerMixUp", "3d_tiny_batch_of_one")
    log = Path(trainer.log_file).read_text()
    assert log.count("a batch of one has no partner") == 1
    assert "loss/mixup" not in trainer.logger.local_logger.my_fantastic_logging


def test_validation_sees_clean_patches(results):
    trainer = initialized({"mode": "alternate", "probability": 1.0})
    batch = random_batch(trainer)
    prepared = trainer.prepare_batch(batch, training=False)
    assert torch.equal(prepared["data"], batch["data"])
    assert "mixed" not in prepared


def test_both_terms_train_the_network(results):
    trainer = train("nnUNetTrainerMixUp", "3d_tiny_three_epochs")
    values = {key: trainer.logger.get_value(f"loss/{key}", step=None) for key in ("segmentation", "mixup")}
    assert all(math.isfinite(value) for series in values.values() for value in series)
    assert values["mixup"][-1] < values["mixup"][0]


def test_a_step_follows_both_terms(results):
    moved = {}
    alone = {"mode": "alternate", "probability": 1.0}
    for name, settings in (("both", {}), ("segmentation", {"probability": 0.0}), ("mixup", alone)):
        trainer = initialized(settings)
        before = torch.cat([weight.detach().flatten().clone() for weight in trainer.network.parameters()])
        trainer.weight_decay = 0.0
        trainer.optimizer, _ = trainer.configure_optimizers()
        trainer.train_step(random_batch(trainer))
        after = torch.cat([weight.detach().flatten() for weight in trainer.network.parameters()])
        moved[name] = after - before
    assert all(one.any() for one in moved.values())
    # the first step of SGD is linear in the gradient, which is too small to be clipped
    torch.testing.assert_close(moved["both"], moved["segmentation"] + moved["mixup"], rtol=1e-3, atol=1e-6)


class MixedScribbles(MixUpMixin, nnUNetTrainerPartialCE):
    """What a user may combine: a trainer that knows the image's border, with MixUp."""


@pytest.mark.parametrize("kind", ["ignore", "labels"])
def test_mixed_labels_outside_either_image_take_no_part(workspace, results, kind):
    full = torch.ones(2, 1, 16, 16, 16)
    full[0, :, :4], full[1, :, 12:] = -1, -1
    for settings in ({"kind": "mixup"}, {"kind": "cutmix"}):  # CarveMix pastes as CutMix does
        trainer = changed_trainer(MixedScribbles, kind=kind, mixup=settings)
        trainer.rng, trainer.loss = np.random.default_rng(0), trainer._build_loss()
        mixed = trainer.mixed_batch({"data": torch.zeros(2, 1, 16, 16, 16), **batch_of(trainer, full)})
        if settings["kind"] == "mixup":
            assert mixed["mixed_mask"][:, :, 4:12].all()
            assert not mixed["mixed_mask"][:, :, :4].any()
            assert not mixed["mixed_mask"][:, :, 12:].any()
        elif kind == "ignore":
            # every voxel has one source; the ignore label marks what lies outside it
            assert set(mixed["mixed_target"].unique().tolist()) == {1, trainer.label_manager.ignore_label}
        else:
            assert set(mixed["mixed_target"].unique().tolist()) == {1, -1}
        logits = torch.randn(2, trainer.label_manager.num_segmentation_heads, 16, 16, 16, requires_grad=True)
        trainer.loss_of_mixed(logits, mixed).backward()
        if settings["kind"] == "mixup":
            outside = ~mixed["mixed_mask"].expand_as(logits)
        else:
            outside = (mixed["mixed_target"] != 1).expand_as(logits)
        assert outside.any()
        assert not logits.grad[outside].any()
        assert logits.grad[~outside].all()


# ---------------------------------------------------------------------- memory


def test_clean_and_mixed_batch_are_learned_from_one_after_the_other(results):
    """What autograd keeps at a time is that of one pass; the step is that of the sum of both losses."""
    alive, most = [0], [0]

    class Kept:
        def __init__(self, tensor: torch.Tensor) -> None:
            self.tensor = tensor
            alive[0] += tensor.numel()
            most[0] = max(most[0], alive[0])

        def __del__(self) -> None:
            alive[0] -= self.tensor.numel()

    def kept_by(trainer) -> int:
        alive[0] = most[0] = 0
        with torch.autograd.graph.saved_tensors_hooks(Kept, lambda kept: kept.tensor):
            trainer.train_step(random_batch(trainer))
        return most[0]

    assert kept_by(initialized({"weight": 0.5})) <= 1.05 * kept_by(initialized({"probability": 0.0}))

    trainer = initialized({"weight": 0.5})
    trainer.optimizer_step = lambda: None
    torch.manual_seed(0)
    trainer.rng = np.random.default_rng(3)
    step = trainer.train_step(random_batch(trainer))
    learned = [weight for weight in trainer.network.parameters() if weight.grad is not None]  # not the lowest head
    found = [weight.grad.clone() for weight in learned]
    trainer.rng = np.random.default_rng(3)
    trainer.network.zero_grad()
    terms = step_terms(trainer, trainer.prepare_batch(random_batch(trainer), training=True))
    assert set(terms) == {"segmentation", "mixup"}
    sum(terms.values()).backward()
    trainer.edit_gradients()
    for weight, gradient in zip(learned, found, strict=True):
        torch.testing.assert_close(gradient, weight.grad)
    assert step["loss"] == pytest.approx(sum(float(term) for term in terms.values()), rel=1e-6)
