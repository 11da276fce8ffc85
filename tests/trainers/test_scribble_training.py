"""Training from scribbles: what each loss is, who takes part in it, and that consistency finds what scribbles leave."""

import itertools
import math

import numpy as np
import pytest
import torch

from nnunet_ext.errors import UserError
from nnunet_ext.networks.multi_decoder import AUXILIARY
from nnunet_ext.plans.plans_file import read_plans
from nnunet_ext.preprocessing.simulate.scribbles import Strokes, scribble_map
from nnunet_ext.trainers import nnUNetTrainerDMPLS, nnUNetTrainerPartialCE, nnUNetTrainerTDNet
from support.changed_trainers import at_every_resolution, changed_trainer
from support.nnunet_runs import build_trainer
from support.tiny_data import IGNORE, dataset_name

BRANCHES = {nnUNetTrainerPartialCE: 1, nnUNetTrainerDMPLS: 2, nnUNetTrainerTDNet: 3}


@pytest.fixture
def built(workspace, results):
    """Build an initialized trainer whose plans hold more settings."""

    def build(trainer=nnUNetTrainerTDNet, configuration="3d_tiny", kind="ignore", **changes):
        made = changed_trainer(trainer, configuration, kind=kind, **changes)
        torch.manual_seed(0)
        made.initialize()
        return made

    return build


def random_outputs(trainer, branches, *, seed=0, known=0.1):
    """Logits of every branch at every resolution, and scribbles."""
    generator = torch.Generator().manual_seed(seed)
    shape = (2, 1, *trainer.configuration_manager.patch_size)
    target = torch.randint(0, 3, shape, generator=generator)
    if trainer.label_manager.ignore_label is not None:
        target[torch.rand(shape, generator=generator) >= known] = IGNORE
    targets = at_every_resolution(trainer, target)
    outputs = [
        [2 * torch.randn((2, 3, *one.shape[2:]), generator=generator) for one in targets] for _ in range(branches)
    ]
    return outputs, targets


def terms_of(trainer, outputs, targets):
    outputs = outputs[0] if len(outputs) == 1 else outputs
    batch = {"target": targets, "inside": [torch.ones_like(one, dtype=torch.bool) for one in targets]}
    return {name: term.item() for name, term in trainer.loss_terms(outputs, batch).items()}


class WithTwoDilations(nnUNetTrainerTDNet):
    """A trainer of a user with a default of its own."""

    default_settings = {"tdnet": {"dilations": [1, 2]}}


def test_defaults_of_a_derived_trainer_reach_its_network_and_its_saved_plans(built):
    trainer = built(WithTwoDilations)
    assert len(trainer.network.auxiliary_decoders) == 1
    saved = trainer.plans_manager.plans["configurations"]["3d_tiny"]["nnunet_ext"]["tdnet"]
    assert saved["dilations"] == [1, 2]
    assert len(built(WithTwoDilations, tdnet={"dilations": [1, 2, 3]}).network.auxiliary_decoders) == 2


# ---------------------------------------------------------------------- references in float64


def probabilities(logits):
    """(voxels, C) float64."""
    values = np.moveaxis(logits.double().numpy(), 1, -1).reshape(-1, logits.shape[1])
    exponentials = np.exp(values - values.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)


def reference_partial_ce(trainer, branches, targets):
    total = 0.0
    for heads in branches:
        for weight, logits, target in zip(trainer.loss.weight_factors, heads, targets):
            labels = target.numpy().astype(int).ravel()
            p = probabilities(logits)
            losses = [-math.log(p[voxel, label]) for voxel, label in enumerate(labels) if label != IGNORE]
            total += weight * (sum(losses) / len(losses) if losses else 0.0) / len(branches)
    return total


def reference_uspc(outputs):
    p = [probabilities(heads[0]) for heads in outputs]
    mean = sum(p) / len(p)
    weights = np.exp((mean * np.log(mean)).sum(1))
    divergences = sum((one * np.log(one / mean)).sum(1) for one in p) / len(p)
    return (weights * divergences).sum() / weights.sum()


def reference_mpcc(outputs):
    values, views = 0.0, outputs[0][0].ndim - 2
    p = [torch.softmax(heads[0].double(), 1).numpy() for heads in outputs]
    for axis in range(views):
        tables = []
        for one in p:
            projection = one.mean(axis=2 + axis).reshape(*one.shape[:2], -1)
            table = np.einsum("bcr,bkr->bck", projection, projection)
            tables.append(table / table.sum(2, keepdims=True))
        mean = sum(tables) / len(tables)
        values += sum((table * np.log(table / mean)).sum(2).mean() for table in tables)
    return values / (views * len(p))


# ---------------------------------------------------------------------- the losses


@pytest.mark.parametrize(("configuration", "kind"), [("3d_tiny", "ignore"), ("2d_tiny", "labels")])
@pytest.mark.parametrize("epoch", [0, 1])
def test_tdnet_is_partial_ce_and_ramped_consistencies(built, configuration, kind, epoch):
    trainer = built(configuration=configuration, kind=kind)
    trainer.current_epoch = epoch
    outputs, targets = random_outputs(trainer, 3)
    found = terms_of(trainer, outputs, targets)
    ramp = math.exp(-5 * (1 - epoch / trainer.num_epochs) ** 2)
    assert found["partial_ce"] == pytest.approx(reference_partial_ce(trainer, outputs, targets), rel=1e-5)
    assert found["uspc"] == pytest.approx(10 * ramp * reference_uspc(outputs), rel=1e-4)
    assert found["mpcc"] == pytest.approx(ramp * reference_mpcc(outputs), rel=1e-3)
    assert len(found) == 3


@pytest.mark.parametrize(
    ("trainer_class", "branches", "dice"),
    [(nnUNetTrainerPartialCE, 1, 0), (nnUNetTrainerDMPLS, 2, 2), (nnUNetTrainerTDNet, 3, 0)],
)
def test_ratios_of_sums_over_the_batch_are_of_all_processes(built, trainer_class, branches, dice):
    trainer, asked = built(trainer_class), []
    trainer.total = lambda sums: asked.append(tuple(sums.shape)) or sums
    terms_of(trainer, *random_outputs(trainer, branches))
    heads = sum(weight > 0 for weight in trainer.head_weights())
    assert sorted(asked, key=len) == [(2,)] * branches * heads + [(2, 3)] * dice


def test_entropy_is_of_the_voxels_of_all_processes(built):
    trainer, asked = built(nnUNetTrainerPartialCE, partial_ce={"entropy_weight": 0.1}), []
    trainer.total = lambda sums: asked.append(tuple(sums.shape)) or sums
    terms_of(trainer, *random_outputs(trainer, 1))
    assert len(asked) == 1 + sum(weight > 0 for weight in trainer.head_weights())


def test_ramp_of_tdnet_can_be_shorter_than_the_training(built):
    trainer = built(num_epochs=10, tdnet={"ramp_epochs": 4})
    outputs, targets = random_outputs(trainer, 3)
    trainer.current_epoch = 4
    assert terms_of(trainer, outputs, targets)["uspc"] == pytest.approx(10 * reference_uspc(outputs), rel=1e-4)


@pytest.mark.parametrize("epoch", [0, 2, 4, 7])
def test_pseudo_labels_of_dmpls_can_be_ramped(built, epoch):
    plain, ramped = (built(nnUNetTrainerDMPLS, dmpls=settings) for settings in ({}, {"ramp_epochs": 4}))
    outputs, targets = random_outputs(plain, 2)
    values = []
    for trainer in (plain, ramped):
        trainer.current_epoch = epoch
        trainer.shared_rng = np.random.default_rng(3)
        values.append(terms_of(trainer, outputs, targets)["pseudo_labels"])
    assert values[1] == pytest.approx(values[0] * math.exp(-5 * max(0, 1 - epoch / 4) ** 2), rel=1e-5)


def test_a_ramp_of_no_epochs_is_none(built):
    trainer = built(num_epochs=10, tdnet={"ramp_epochs": 0})
    outputs, targets = random_outputs(trainer, 3)
    assert terms_of(trainer, outputs, targets)["uspc"] == pytest.approx(10 * reference_uspc(outputs), rel=1e-4)


def nnunet_loss(logits, target, classes=3):
    """nnU-Net's Dice and cross-entropy of one resolution over the voxels that are annotated, in float64."""
    known = target.numpy().ravel() != IGNORE
    p, labels = probabilities(logits)[known], target.numpy().astype(int).ravel()[known]
    sample = np.repeat(np.arange(len(target)), target[0].numel())[known]
    entropy = -np.log(p[np.arange(len(p)), labels]).mean() if len(p) else 0.0
    dice = []
    for number in range(len(target)):
        own, of_sample = p[sample == number], labels[sample == number]
        for label in range(1, classes):
            overlap = own[of_sample == label, label].sum()
            dice.append((2 * overlap + 1e-5) / ((of_sample == label).sum() + own[:, label].sum() + 1e-5))
    return entropy - np.mean(dice)


@pytest.mark.parametrize("trainer_class", [nnUNetTrainerTDNet, nnUNetTrainerDMPLS])
@pytest.mark.parametrize("kind", ["ignore", "labels"])
def test_branches_can_learn_by_nnunets_own_loss(built, trainer_class, kind):
    section = {nnUNetTrainerTDNet: "tdnet", nnUNetTrainerDMPLS: "dmpls"}[trainer_class]
    trainer = built(trainer_class, kind=kind, **{section: {"supervision": "dice_ce"}})
    assert trainer.configuration_manager.batch_dice is False
    outputs, targets = random_outputs(trainer, BRANCHES[trainer_class])
    found = terms_of(trainer, outputs, targets)
    assert "partial_ce" not in found
    expected = np.mean(
        [
            sum(weight * nnunet_loss(*pair) for weight, *pair in zip(trainer.loss.weight_factors, heads, targets))
            for heads in outputs
        ]
    )
    assert found["dice_ce"] == pytest.approx(expected, rel=1e-4)


def test_terms_of_tdnet_can_be_left_out_and_weighted(built):
    off = built(tdnet={"uspc_weight": 0.0, "mpcc_weight": 0.0})
    outputs, targets = random_outputs(off, 3)
    assert set(terms_of(off, outputs, targets)) == {"partial_ce"}
    both = {weighted: built(tdnet={"uncertainty_weights": weighted}) for weighted in (True, False)}
    values = [terms_of(trainer, outputs, targets)["uspc"] for trainer in both.values()]
    assert values[0] != pytest.approx(values[1], rel=1e-2)


@pytest.mark.parametrize("dilations", [[1, 3, 6], [1, 1], [1, 2, 3, 4]])
def test_equal_branches_are_consistent(built, dilations):
    trainer = built(tdnet={"dilations": dilations})
    outputs, targets = random_outputs(trainer, 1)
    found = terms_of(trainer, outputs * len(dilations), targets)
    assert found["uspc"] == pytest.approx(0, abs=1e-6)
    assert found["mpcc"] == pytest.approx(0, abs=1e-6)
    assert len(trainer.network.auxiliary_decoders) == len(dilations) - 1


def test_entropy_is_that_of_voxels_nobody_annotated(built):
    trainer = built(nnUNetTrainerPartialCE, partial_ce={"entropy_weight": 0.3})
    outputs, targets = random_outputs(trainer, 1)
    found = terms_of(trainer, outputs, targets)
    p, labels = probabilities(outputs[0][0]), targets[0].numpy().astype(int).ravel()
    entropies = -(p * np.log(p)).sum(1)[labels == IGNORE]
    assert found["entropy"] == pytest.approx(0.3 * entropies.mean(), rel=1e-4)
    assert found["partial_ce"] == pytest.approx(reference_partial_ce(trainer, outputs, targets), rel=1e-5)
    assert set(terms_of(built(nnUNetTrainerPartialCE), outputs, targets)) == {"partial_ce"}
    logits = outputs[0][0].requires_grad_()
    inside = [torch.ones_like(target, dtype=torch.bool) for target in targets]
    trainer.loss_terms(outputs[0], {"target": targets, "inside": inside})["entropy"].backward()
    assert torch.equal(logits.grad.any(dim=1, keepdim=True), targets[0] == IGNORE)


@pytest.mark.parametrize("dice", ["squared", "foreground"])
def test_dmpls_is_partial_ce_and_dice_against_the_mixture(built, dice):
    trainer = built(nnUNetTrainerDMPLS, dmpls={"pseudo_label_dice": dice})
    outputs, targets = random_outputs(trainer, 2)
    trainer.shared_rng = np.random.default_rng(3)
    ratio = np.random.default_rng(3).random()
    found = terms_of(trainer, outputs, targets)
    main, other = (probabilities(heads[0]) for heads in outputs)
    labels = np.argmax(ratio * main + (1 - ratio) * other, axis=1)
    losses = []
    for p in (main, other):
        if dice == "squared":
            per_class = [2 * p[labels == k, k].sum() / ((p[:, k] ** 2).sum() + (labels == k).sum()) for k in (0, 1, 2)]
        else:
            per_class = [2 * p[labels == k, k].sum() / (p[:, k].sum() + (labels == k).sum()) for k in (1, 2)]
        losses.append(1 - np.mean(per_class))
    assert found["pseudo_labels"] == pytest.approx(0.5 * sum(losses) / 2, rel=1e-4)
    assert found["partial_ce"] == pytest.approx(reference_partial_ce(trainer, outputs, targets), rel=1e-5)
    assert set(terms_of(built(nnUNetTrainerDMPLS, dmpls={"pseudo_label_weight": 0.0}), outputs, targets)) == {
        "partial_ce"
    }


@pytest.mark.parametrize("trainer_class", BRANCHES)
def test_patch_without_scribbles_has_no_partial_ce_and_finite_gradients(built, trainer_class):
    trainer = built(trainer_class)
    patch = trainer.configuration_manager.patch_size
    targets = at_every_resolution(trainer, torch.full((2, 1, *patch), IGNORE))
    data = torch.randn(2, 1, *patch, generator=torch.Generator().manual_seed(0))
    found = trainer.train_step({"data": data, "target": targets, "keys": ["a", "b"]})
    assert found["loss/partial_ce"] == 0
    assert np.isfinite(found["loss"])
    gradients = [parameter.grad for parameter in trainer.network.parameters() if parameter.grad is not None]
    assert gradients
    assert all(torch.isfinite(gradient).all() for gradient in gradients)
    # all that is left to learn from is what the technique adds
    assert any(gradient.any() for gradient in gradients) == (trainer_class is not nnUNetTrainerPartialCE)


@pytest.mark.parametrize("trainer_class", BRANCHES)
def test_scribbles_alone_decide_the_supervised_term(built, trainer_class):
    trainer = built(trainer_class)
    outputs, targets = random_outputs(trainer, BRANCHES[trainer_class])
    before = terms_of(trainer, outputs, targets)["partial_ce"]
    for heads in outputs:
        for logits, target in zip(heads, targets):
            logits += 100 * torch.randn(logits.shape) * (target == IGNORE)
    assert terms_of(trainer, outputs, targets)["partial_ce"] == pytest.approx(before, rel=1e-6)


@pytest.mark.parametrize("trainer_class", BRANCHES)
def test_without_an_ignore_label_every_voxel_is_known(built, trainer_class):
    trainer = built(trainer_class, kind="labels")
    outputs, targets = random_outputs(trainer, BRANCHES[trainer_class])
    expected = reference_partial_ce(trainer, outputs, targets)
    assert terms_of(trainer, outputs, targets)["partial_ce"] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("trainer_class", BRANCHES)
def test_regions_are_refused_with_the_reason(built, trainer_class):
    with pytest.raises(NotImplementedError, match="a scribble says that a voxel has one label and no other"):
        built(trainer_class, kind="regions")


# ---------------------------------------------------------------------- the network


def test_main_decoder_is_the_plans_own_and_alone_predicts(built):
    trainer = built()
    stock = build_trainer("nnUNetTrainer", kind="ignore")
    stock.initialize()
    weights = {k: v for k, v in trainer.network.state_dict().items() if not k.startswith(AUXILIARY)}
    stock.network.load_state_dict(weights)
    data = torch.randn(1, 1, *trainer.configuration_manager.patch_size)
    trainer.set_deep_supervision_enabled(False)
    stock.set_deep_supervision_enabled(False)
    with torch.no_grad():
        first, second = (trainer.network.eval()(data) for _ in range(2))
        assert torch.equal(first, stock.network.eval()(data))
        assert torch.equal(first, second)


@pytest.mark.parametrize("trainer_class", [nnUNetTrainerTDNet, nnUNetTrainerDMPLS])
def test_schedules_are_those_of_the_papers(built, trainer_class):
    """60,000 steps of SGD whose momentum is not Nesterov's, as in the authors' code of DMPLS; TDNet's is not public."""
    trainer = built(trainer_class, num_epochs=240, num_iterations_per_epoch=250)
    assert trainer_class.default_settings == {
        "num_epochs": 240, "momentum": 0.9, "nesterov": False, "weight_decay": 1e-4
    }  # fmt: skip
    (group,) = trainer.optimizer.param_groups
    assert isinstance(trainer.optimizer, torch.optim.SGD)
    assert (group["lr"], group["momentum"], group["nesterov"], group["weight_decay"]) == (1e-2, 0.9, False, 1e-4)
    assert trainer.settings.dmpls.model_dump() == {
        "dropout": 0.5,
        "supervision": "partial_ce",
        "pseudo_label_weight": 0.5,
        "pseudo_label_dice": "squared",
        "ramp_epochs": 0,
    }
    assert trainer.settings.tdnet.model_dump() == {
        "dilations": [1, 3, 6],
        "dropout": 0.5,
        "supervision": "partial_ce",
        "uspc_weight": 10.0,
        "mpcc_weight": 1.0,
        "uncertainty_weights": True,
        "detach_target": True,
        "ramp_epochs": None,
    }


def test_target_is_detached_unless_it_is_told_otherwise(built):
    gradients = []
    for detach in (True, False):
        trainer = built(tdnet={"detach_target": detach, "ramp_epochs": 0, "mpcc_weight": 0.0})
        outputs, targets = random_outputs(trainer, 3)
        batch = {"target": targets, "inside": [torch.ones_like(one, dtype=torch.bool) for one in targets]}
        outputs[0][0].requires_grad_()
        trainer.loss_terms(outputs, batch)["uspc"].backward()
        gradients.append(outputs[0][0].grad)
    assert (gradients[0] - gradients[1]).norm() > 0.1 * gradients[0].norm()


@pytest.mark.parametrize("share", [0.0, 0.3])
def test_dropout_of_the_decoders_is_what_is_set(built, share):
    assert {module.largest for module in built(tdnet={"dropout": share}).network.perturbations[1:]} == {share}
    dmpls = built(nnUNetTrainerDMPLS, dmpls={"dropout": share}).network
    assert dmpls.perturbations[1].dropout.p == share


@pytest.mark.parametrize("trainer_class", [nnUNetTrainerTDNet, nnUNetTrainerDMPLS])
def test_decoders_begin_with_weights_of_their_own(built, trainer_class):
    network = built(trainer_class).network
    decoders = [network.decoder, *network.auxiliary_decoders]
    kernels = [
        {
            name: weight
            for name, weight in decoder.named_parameters()
            # the main decoder holds the encoder too
            if weight.ndim > 2 and not name.startswith("encoder.")
        }
        for decoder in decoders
    ]
    for first, second in itertools.combinations(kernels, 2):
        assert list(first) == list(second)
        assert not any(torch.equal(weight, second[name]) for name, weight in first.items())


def test_decoders_differ_in_dilation_and_first_weights_and_see_other_bottlenecks(built):
    trainer = built()
    network = trainer.network.train()
    last = [decoder.stages[-1].convs[0].conv for decoder in (network.decoder, *network.auxiliary_decoders)]
    assert [conv.dilation for conv in last] == [(1, 1, 1), (3, 3, 3), (6, 6, 6)]
    assert last[2].weight.std().item() == pytest.approx(0.02, rel=0.2)
    assert last[0].weight.std().item() > 0.04
    outputs, inputs = last[1].weight.shape[:2]
    xavier = math.sqrt(6 / ((inputs + outputs) * 27))
    assert last[1].weight.abs().max().item() == pytest.approx(xavier, rel=0.02)
    data = torch.randn(1, 1, *trainer.configuration_manager.patch_size)
    seen = [[] for _ in network.perturbations]
    for record, perturbation in zip(seen, network.perturbations):
        perturbation.register_forward_hook(lambda _, __, output, record=record: record.append(output[-1]))
    network(data)
    network(data)
    assert torch.equal(*seen[0])
    assert not torch.equal(*seen[1])
    assert not torch.equal(seen[1][0], seen[2][0])


def test_inherited_settings_decide_the_decoders_that_prediction_builds(built, workspace):
    content = read_plans(workspace.preprocessed / dataset_name("ignore") / "nnUNetPlans.json")
    configurations = content["configurations"]
    configurations["parent"] = {**configurations["3d_tiny"]}
    configurations["parent"]["nnunet_ext"] = {**configurations["3d_tiny"]["nnunet_ext"], "tdnet": {"dilations": [1, 2]}}
    configurations["child"] = {"inherits_from": "parent", "nnunet_ext": {"initial_lr": 0.02}}
    content["continue_training"] = False
    dataset_json = build_trainer("nnUNetTrainerConfigurable", kind="ignore").dataset_json
    trainer = nnUNetTrainerTDNet(content, "child", 0, dataset_json, torch.device("cpu"))
    trainer.initialize()
    saved = trainer.my_init_kwargs["plans"]["configurations"]["child"]["nnunet_ext"]
    assert saved["tdnet"]["dilations"] == [1, 2]
    assert saved["initial_lr"] == 0.02
    assert len(trainer.network.auxiliary_decoders) == 1


@pytest.mark.parametrize("dilations", [[3, 1], [1, 0], [1]])
def test_dilations_that_cannot_be_are_refused(built, dilations):
    with pytest.raises(UserError, match=r"tdnet\.dilations"):
        built(tdnet={"dilations": dilations})


# ---------------------------------------------------------------------- it learns

SIDE = 64
NOISE = 0.7
TRAINING = 40
EPOCHS, STEPS = 10, 200
STROKES = Strokes(interior=0.3, boundary=0.3, noise=0.0)
LABELS = {"background": 0, "wall": 1, "cavity": 2, "ignore": IGNORE}
NETWORK = {
    "n_stages": 5,
    "features_per_stage": [4, 8, 16, 16, 16],
    "kernel_sizes": [[3, 3]] * 5,
    "strides": [[1, 1], *[[2, 2]] * 4],
    "n_conv_per_stage": [2] * 5,
    "n_conv_per_stage_decoder": [2] * 4,
}


def phantom(rng):
    """A cavity within a wall, in strong noise: image and dense labels, (SIDE, SIDE)."""
    grid = np.indices((SIDE, SIDE)) - rng.uniform(24, 40, 2)[:, None, None]
    angle, (a, b) = rng.uniform(0, np.pi), rng.uniform(14, 20, 2)
    along = grid[0] * np.cos(angle) + grid[1] * np.sin(angle)
    across = grid[1] * np.cos(angle) - grid[0] * np.sin(angle)
    distance = np.hypot(along / a, across / b)
    labels = (distance < 1).astype(np.uint8) + (distance < rng.uniform(0.5, 0.65))
    image = np.choose(labels, [0.0, 1.0, -1.0]) + rng.normal(0, NOISE, labels.shape)
    return image.astype(np.float32), labels


def phantoms(seed, number):
    """Images and dense labels, both (number, 1, SIDE, SIDE), and scribbles."""
    rng = np.random.default_rng(seed)
    images, dense = (np.stack(arrays)[:, None] for arrays in zip(*(phantom(rng) for _ in range(number))))
    scribbles = [scribble_map(one, [0, 1, 2], IGNORE, STROKES, rng, axis=0)[0] for one in dense]
    return torch.from_numpy(images), torch.from_numpy(dense), torch.from_numpy(np.stack(scribbles))


def learned(built, trainer_class, seed, **settings):
    """Mean Dice of wall and cavity on other phantoms, against dense labels."""
    trainer = built(
        trainer_class, "2d_tiny", kind="labels", dataset={"labels": LABELS}, patch=(SIDE, SIDE), network=NETWORK,
        **{"seed": seed, "num_epochs": EPOCHS, "optimizer": "adamw", "initial_lr": 1e-2, **settings},
    )  # fmt: skip
    images, _, scribbles = phantoms(seed, TRAINING)
    rng = np.random.default_rng(seed)
    trainer.shared_rng = np.random.default_rng(seed)
    for step in range(STEPS):
        trainer.current_epoch = step * EPOCHS // STEPS
        trainer.lr_scheduler.step(trainer.current_epoch)
        drawn = rng.integers(len(images), size=4)
        axes = [axis for axis in (2, 3) if rng.random() < 0.5]
        data, labels = images[drawn].flip(axes), scribbles[drawn].flip(axes).float()
        targets = at_every_resolution(trainer, labels)
        trainer.train_step({"data": data, "target": targets, "keys": list("abcd")})
    trainer.set_deep_supervision_enabled(False)
    images, dense, _ = phantoms(1000 + seed, 20)
    with torch.no_grad():
        predicted = trainer.network.eval()(images).argmax(1, keepdim=True)
    overlap = [
        (2 * ((predicted == k) & (dense == k)).sum() / ((predicted == k).sum() + (dense == k).sum())) for k in (1, 2)
    ]
    return sum(one.item() for one in overlap) / 2


@pytest.mark.full
@pytest.mark.usefixtures("one_thread")
def test_consistency_of_three_decoders_beats_one_decoder_on_the_same_scribbles(built):
    """Steps, strokes and margin were fixed on seeds 10 to 15: Dice of 0.63 to 0.86, and of 0.91 to 0.96."""
    one, three = (
        [learned(built, trainer_class, seed) for seed in (4, 5, 6)]
        for trainer_class in (nnUNetTrainerPartialCE, nnUNetTrainerTDNet)
    )
    print(f"Dice of one decoder {np.round(one, 3)}, of three {np.round(three, 3)}")
    assert all(better > worse for better, worse in zip(three, one))
    assert np.mean(three) > np.mean(one) + 0.12
