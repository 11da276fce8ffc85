"""Training steps of DBDMP: the loss, who takes part in it, and that it finds instances nobody annotated."""

import math

import numpy as np
import pytest
import torch

from nnunet_ext.networks.multi_decoder import AUXILIARY
from nnunet_ext.trainers import nnUNetTrainerConfigurable, nnUNetTrainerDBDMP
from support.changed_trainers import at_every_resolution, changed_trainer
from support.nnunet_runs import build_trainer, train

LESIONS = {"background": 0, "lesion": 1}


@pytest.fixture
def built(workspace, results):
    """Build an initialized trainer whose plans hold more settings."""

    def build(trainer=nnUNetTrainerDBDMP, configuration="3d_tiny", labels=None, **changes):
        dataset = None if labels is None else {"labels": labels}
        made = changed_trainer(trainer, configuration, dataset=dataset, **changes)
        made.initialize()
        return made

    return build


def random_outputs(trainer, seed=0):
    """Logits of both branches at every resolution, and a target."""
    generator = torch.Generator().manual_seed(seed)
    classes = trainer.label_manager.num_segmentation_heads
    shape = (2, 1, *trainer.configuration_manager.patch_size)
    target = torch.randint(0, classes, shape, generator=generator)
    target *= torch.rand(shape, generator=generator) < 0.4
    targets = at_every_resolution(trainer, target)
    branches = [
        [torch.randn((2, classes, *head.shape[2:]), generator=generator) * 2 for head in targets] for _ in range(2)
    ]
    return branches, targets


def terms_of(trainer, outputs, targets, seed=5):
    trainer.shared_rng = np.random.default_rng(seed)
    return trainer.loss_terms(outputs, {"target": targets, "inside": [torch.ones_like(t).bool() for t in targets]})


def paper_loss(main, auxiliary, targets, *, head_weights, ratio, ramp):
    """The loss of DBDMP in float64, voxel by voxel."""

    def probabilities(logits):
        exponentials = np.exp(logits - logits.max(axis=0, keepdims=True))
        return exponentials / exponentials.sum(axis=0, keepdims=True)

    def columns(logits):  # (B, C, …) -> (C, voxels)
        return np.moveaxis(logits.numpy().astype(np.float64), 1, 0).reshape(logits.shape[1], -1)

    def supervised(logits, labels):
        p = probabilities(columns(logits))
        y = labels.numpy().astype(int).ravel()
        tversky = []
        for label in range(1, len(p)):
            hit = p[label][y == label].sum()
            wrong = p[label][y != label].sum()
            missed = (1 - p[label][y == label]).sum()
            tversky.append(1 - (hit + 1e-5) / (hit + 0.4 * wrong + 0.6 * missed + 1e-5))
        own = p[y, np.arange(len(y))]
        symmetric = np.mean(0.8 * -np.log(own) + 1.0 * -math.log(1e-4) * (1 - own))
        partial = np.mean(-np.log(own[y > 0])) if (y > 0).any() else 0.0
        return np.mean(tversky) + symmetric + partial

    def klce(own, other, soft):
        divergence = (other * np.log(other / own)).sum(axis=0)
        entropy = -(soft * np.log(own)).sum(axis=0)
        weights = np.exp(-divergence)
        return (entropy * weights).sum() / weights.sum() + divergence.mean()

    total = sum(
        0.25 * weight * supervised(head, target)
        for heads in (main, auxiliary)
        for weight, head, target in zip(head_weights, heads, targets)
    )
    p_main, p_auxiliary = probabilities(columns(main[0])), probabilities(columns(auxiliary[0]))
    mixture = ratio * p_main + (1 - ratio) * p_auxiliary
    assert len(mixture) > 2
    # the power that takes the odds of .9 and .1 where the paper's softmax takes them
    soft = mixture ** (0.8 / 0.3 / math.log(9))
    soft /= soft.sum(axis=0)
    y = targets[0].numpy().astype(int).ravel()
    for voxel in np.flatnonzero(y):
        soft[:, voxel] = 0
        soft[y[voxel], voxel] = 1
    return total + ramp * 0.5 * (klce(p_main, p_auxiliary, soft) + klce(p_auxiliary, p_main, soft))


@pytest.mark.parametrize("epoch", [0, 40, 99, 250])
def test_the_loss_is_that_of_the_paper(built, epoch):
    trainer = built()
    trainer.current_epoch = epoch
    (main, auxiliary), targets = random_outputs(trainer)
    terms = terms_of(trainer, (main, auxiliary), targets)
    assert set(terms) == {"tversky", "symmetric_ce", "partial_ce", "pseudo_labels"}
    weights = [1 / 2**level for level in range(len(targets))]
    weights[-1] = 0.0  # nnU-Net leaves the lowest resolution out
    weights = [weight / sum(weights) for weight in weights]
    reference = paper_loss(
        main,
        auxiliary,
        targets,
        head_weights=weights,
        ratio=np.random.default_rng(5).random(),
        ramp=1.0 if epoch >= 99 else math.exp(-5 * (1 - epoch / 99) ** 2),
    )
    assert sum(float(term) for term in terms.values()) == pytest.approx(reference, rel=1e-4)


def test_default_settings_are_the_papers(built):
    trainer = built(num_epochs=300, num_iterations_per_epoch=250)
    settings = trainer.settings
    assert nnUNetTrainerDBDMP.default_settings == {"num_epochs": 300, "momentum": 0.9}
    assert (settings.momentum, settings.optimizer) == (0.9, "sgd")
    assert (settings.initial_lr, settings.weight_decay) == (1e-2, 3e-5)
    assert settings.dbdmp.model_dump() == {
        "dropout": 0.5,
        "supervised_weight": 0.25,
        "tversky_weight": 1.0,
        "tversky_alpha": 0.4,
        "tversky_beta": 0.6,
        "ce_weight": 0.8,
        "rce_weight": 1.0,
        "partial_ce_weight": 1.0,
        "pseudo_label_weight": 1.0,
        "ramp_epochs": 99,
        "temperature": 0.3,
    }


def test_ignored_voxels_leave_the_supervised_terms_and_stay_in_the_pseudo_labels(built):
    trainer = built(kind="ignore")
    trainer.current_epoch = 200
    outputs, targets = random_outputs(trainer)
    ignored = torch.rand(targets[0].shape, generator=torch.Generator().manual_seed(3)) < 0.3
    full = torch.where(ignored, torch.tensor(3.0), targets[0])
    targets = at_every_resolution(trainer, full)
    before = terms_of(trainer, outputs, targets)
    changed = [
        [head + 3.0 * (target == 3) * torch.randn(head.shape) for head, target in zip(branch, targets)]
        for branch in outputs
    ]
    after = terms_of(trainer, changed, targets)
    for name in ("tversky", "symmetric_ce", "partial_ce"):
        assert torch.equal(before[name], after[name]), name
    assert not torch.isclose(before["pseudo_labels"], after["pseudo_labels"])


def test_patches_without_annotation_give_finite_gradients_and_no_partial_term(built):
    trainer = built()
    trainer.network.train()
    data = torch.randn(2, 1, *trainer.configuration_manager.patch_size)
    outputs = trainer.network(data)
    targets = at_every_resolution(trainer, torch.zeros(2, 1, *trainer.configuration_manager.patch_size))
    terms = terms_of(trainer, outputs, targets)
    assert float(terms["partial_ce"].detach()) == 0
    sum(terms.values()).backward()
    gradients = [weight.grad for weight in trainer.network.parameters() if weight.grad is not None]
    assert all(torch.isfinite(gradient).all() for gradient in gradients)


def test_ratios_of_sums_over_the_batch_are_of_all_processes(built):
    trainer, asked = built(), []
    trainer.total = lambda sums: asked.append(tuple(sums.shape)) or sums
    outputs, targets = random_outputs(trainer)
    terms_of(trainer, outputs, targets)
    heads, classes = sum(weight > 0 for weight in trainer.head_weights()), outputs[0][0].shape[1]
    tversky, partial_ce = (3, classes - 1), (2,)
    assert sorted(asked, key=len) == [partial_ce] * 2 * heads + [tversky] * 2 * heads


def test_every_weight_but_the_heads_of_no_weight_gets_a_gradient(built):
    """DDP runs without find_unused_parameters."""
    trainer = built()
    batch = {
        "data": torch.randn(2, 1, 16, 16, 16),
        "target": at_every_resolution(trainer, torch.ones(2, 1, 16, 16, 16)),
    }
    trainer.train_step(batch)
    without = {name for name, weight in trainer.network.named_parameters() if weight.grad is None}
    # nnU-Net gives the lowest resolution no weight; its own loss does not use that head either
    assert without <= {
        f"{part}seg_layers.0.{kind}" for part in ("decoder.", f"{AUXILIARY}0.") for kind in ("weight", "bias")
    }


def test_every_term_has_a_weight(built):
    """0.25 by default for all supervised ones, and 1 for each."""
    trainer = built()
    outputs, targets = random_outputs(trainer)
    before = terms_of(trainer, outputs, targets)
    trainer.settings = trainer.settings.model_copy(
        update={
            "dbdmp": trainer.settings.dbdmp.model_copy(
                update={"supervised_weight": 0.5, "tversky_weight": 3.0, "ce_weight": 0.8 * 5, "rce_weight": 5.0}
                | {"partial_ce_weight": 0.0, "pseudo_label_weight": 2.0}
            )
        }
    )
    after = terms_of(trainer, outputs, targets)
    assert float(after["tversky"]) == pytest.approx(2 * 3 * float(before["tversky"]))
    assert float(after["symmetric_ce"]) == pytest.approx(2 * 5 * float(before["symmetric_ce"]))
    assert float(after["partial_ce"]) == 0
    assert float(after["pseudo_labels"]) == pytest.approx(2 * float(before["pseudo_labels"]))


def test_no_pseudo_label_term_at_a_weight_of_zero(built):
    trainer = built(dbdmp={"pseudo_label_weight": 0.0})
    outputs, targets = random_outputs(trainer)
    assert set(terms_of(trainer, outputs, targets)) == {"tversky", "symmetric_ce", "partial_ce"}


@pytest.mark.parametrize("configuration", ["2d_tiny", "3d_tiny"])
def test_the_auxiliary_branch_alone_sees_dropped_features(built, configuration):
    trainer = built(configuration=configuration, dbdmp={"dropout": 0.5})
    trainer.network.train()
    data = torch.randn(1, 1, *trainer.configuration_manager.patch_size)
    first, second = trainer.network(data), trainer.network(data)
    assert all(torch.equal(one, other) for one, other in zip(first[0], second[0]))
    assert not torch.equal(first[1][0], second[1][0])
    trainer.set_feature_dropout(0.0)
    first, second = trainer.network(data), trainer.network(data)
    assert torch.equal(first[1][0], second[1][0])


@pytest.mark.parametrize("plans", ["nnUNetPlans", "nnUNetResEncUNetMPlans"])
def test_inference_is_that_of_a_plain_unet_with_renamed_weights(results, plans):
    trainer = train("nnUNetTrainerDBDMP", plans=plans)
    stock = build_trainer("nnUNetTrainer", plans=plans)
    stock.initialize()
    weights = {key: value for key, value in trainer.network.state_dict().items() if not key.startswith(AUXILIARY)}
    stock.network.load_state_dict(weights)  # strictly
    stock.set_deep_supervision_enabled(False)
    trainer.set_deep_supervision_enabled(False)
    data = torch.randn(1, 1, 16, 16, 16)
    with torch.no_grad():
        assert torch.equal(trainer.network.eval()(data), stock.network.eval()(data))


def test_ramp_and_share_of_pseudo_foreground_are_logged(results):
    logged = train("nnUNetTrainerDBDMP").logger.local_logger.my_fantastic_logging
    assert logged["dbdmp/ramp"] == pytest.approx([math.exp(-5)])
    assert len(logged["dbdmp/pseudo_foreground"]) == 1


def test_the_share_of_pseudo_foreground_is_of_the_voxels_inside_the_image(built):
    trainer = built()
    (main, auxiliary), targets = random_outputs(trainer)
    generator = torch.Generator().manual_seed(1)
    inside = [torch.rand(target.shape, generator=generator) < 0.7 for target in targets]
    trainer.shared_rng = np.random.default_rng(5)
    trainer.loss_terms((main, auxiliary), {"target": targets, "inside": inside})
    ratio = np.random.default_rng(5).random()
    mixture = ratio * main[0].softmax(dim=1) + (1 - ratio) * auxiliary[0].softmax(dim=1)
    is_foreground = (targets[0] > 0) | (mixture.argmax(dim=1, keepdim=True) > 0)
    share = is_foreground[inside[0]].double().mean().item()
    assert trainer._observations["dbdmp/pseudo_foreground"].item() == pytest.approx(share, rel=1e-5)


# ---------------------------------------------------------------------- it learns

SIDE = 64
INSTANCES = 8
NETWORK = {
    "n_stages": 5,
    "features_per_stage": [4, 8, 16, 16, 16],
    "kernel_sizes": [[3, 3]] * 5,
    "strides": [[1, 1], *[[2, 2]] * 4],
    "n_conv_per_stage": [2] * 5,
    "n_conv_per_stage_decoder": [2] * 4,
}


def phantom(rng):
    """Bright discs in strong noise.

    Returns:
        The image and the map of its instances, both (SIDE, SIDE).
    """
    grid = np.indices((SIDE, SIDE))
    instances = np.zeros((SIDE, SIDE), dtype=int)
    while instances.max() < INSTANCES:
        radius = rng.uniform(2.5, 5)
        center = rng.uniform(radius + 1, SIDE - radius - 1, 2)
        distance = np.sqrt(((grid - center[:, None, None]) ** 2).sum(axis=0))
        if not instances[distance < radius + 2].any():
            instances[distance < radius] = instances.max() + 1
    return ((instances > 0) + rng.normal(0, 0.5, instances.shape)).astype(np.float32), instances


def annotated_phantoms(seed, kept):
    """Images, their instances, and the numbers of those that are annotated."""
    rng = np.random.default_rng(seed)
    return [(*phantom(rng), rng.permutation(np.arange(1, INSTANCES + 1))[:kept]) for _ in range(40)]


def random_batch(trainer, phantoms, rng, *, dense):
    images, labels = [], []
    for index in rng.integers(len(phantoms), size=4):
        image, instances, kept = phantoms[index]
        label = instances > 0 if dense else np.isin(instances, kept)
        axes = [axis for axis in (0, 1) if rng.random() < 0.5]
        images.append(np.flip(image, axes).copy())
        labels.append(np.flip(label, axes).copy())
    data, labels = (torch.from_numpy(np.stack(arrays))[:, None] for arrays in (images, labels))
    return {"data": data, "target": at_every_resolution(trainer, labels)}


def found_and_right(trainer, phantoms):
    """The share of the un-annotated instances that are found, and the share of predicted voxels that are right."""
    found, right = [], []
    trainer.set_deep_supervision_enabled(False)
    trainer.network.eval()
    for image, instances, kept in phantoms:
        with torch.no_grad():
            predicted = trainer.network(torch.from_numpy(image)[None, None])[0].argmax(0).numpy() == 1
        missing = set(range(1, INSTANCES + 1)) - set(kept)
        found += [predicted[instances == number].mean() >= 0.5 for number in missing]
        right += list(instances[predicted] > 0)
    return np.mean(found), np.mean(right) if right else math.nan


@pytest.mark.full
def test_it_finds_instances_that_nobody_annotated_where_stock_does_not_and_more_by_its_pseudo_labels(built):
    """Three of eight instances are annotated. Steps and margins were fixed on seeds 10 to 12.

    Stock learns first that there is nothing, then which instances were annotated: of the others it never finds most.
    That its training is long enough shows when it has all labels.
    """

    def trained(trainer, seed, *, dense=False, **settings):
        made = built(
            trainer, "2d_tiny", labels=LESIONS, patch=(SIDE, SIDE), network=NETWORK, seed=seed,
            optimizer="adamw", initial_lr=5e-3, dbdmp={"ramp_epochs": 0, **settings},
        )  # fmt: skip
        phantoms, rng = annotated_phantoms(seed, kept=3), np.random.default_rng(seed)
        made.shared_rng = np.random.default_rng(seed)
        for _ in range(200):
            made.train_step(random_batch(made, phantoms, rng, dense=dense))
        return found_and_right(made, phantoms)

    gains = []
    for seed in (1, 2, 3):
        found_by_stock, _ = trained(nnUNetTrainerConfigurable, seed)
        found, right = trained(nnUNetTrainerDBDMP, seed)
        assert found > found_by_stock + 0.25
        assert right > 0.85
        gains.append(found - trained(nnUNetTrainerDBDMP, seed, pseudo_label_weight=0.0)[0])
    assert np.mean(gains) > 0.03, gains
    assert trained(nnUNetTrainerConfigurable, 1, dense=True)[0] > 0.9
