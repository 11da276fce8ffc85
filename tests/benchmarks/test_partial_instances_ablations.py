"""The trainers of the ablations: what they leave out of DBDMP, and that nnU-Net finds them."""

import os

import numpy as np
import pytest
import torch
from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name

from benchmarks import partial_instances_ablations as ablations
from benchmarks.partial_instances import environment
from benchmarks.partial_instances_ablations import nnUNetTrainerDBDMPOneDecoder, nnUNetTrainerDBDMPReleasedKLCE
from nnunet_ext.losses.hard_labels import log_probabilities
from nnunet_ext.losses.partial_instances import sharpened
from nnunet_ext.losses.soft_targets import soft_cross_entropy
from nnunet_ext.plans.plans_file import read_plans
from nnunet_ext.trainers import nnUNetTrainerDBDMP
from support.nnunet_runs import build_trainer
from support.tiny_data import dataset_name


@pytest.fixture
def built(workspace, results):
    """Build an initialized trainer for labels 0, 1 and 2, its ramp at the end."""

    def build(trainer):
        plans = read_plans(workspace.preprocessed / dataset_name("labels") / "nnUNetPlans.json")
        plans["configurations"]["3d_tiny"]["nnunet_ext"] = {"seed": 0, "dbdmp": {"ramp_epochs": 0}}
        plans["continue_training"] = False
        description = build_trainer("nnUNetTrainerConfigurable").dataset_json
        made = trainer(plans, "3d_tiny", 0, description, torch.device("cpu"))
        made.initialize()
        made.shared_rng = np.random.default_rng(0)
        return made

    return build


def logits_and_target(seed=0):
    """Full-resolution logits of two branches that are unsure, and a target with a few annotated voxels."""
    generator = torch.Generator().manual_seed(seed)
    main, auxiliary = (0.3 * torch.randn((2, 3, 4, 4, 4), generator=generator) for _ in range(2))
    target = torch.zeros((2, 1, 4, 4, 4))
    target[:, :, 1:3, 1:3, 1] = 1
    target[:, :, 3, 3, 3] = 2
    return main.requires_grad_(), auxiliary.requires_grad_(), target


def heads_of(trainer, seed=0):
    """Logits of one branch at every resolution, and targets."""
    generator = torch.Generator().manual_seed(seed)
    scales = trainer._get_deep_supervision_scales()
    patch = trainer.configuration_manager.patch_size
    shapes = [[round(side * factor) for side, factor in zip(patch, scale)] for scale in scales]
    branch = [torch.randn((2, 3, *shape), generator=generator) for shape in shapes]
    targets = [torch.randint(0, 3, (2, 1, *shape), generator=generator) for shape in shapes]
    return branch, targets


def everywhere(target):
    return torch.ones_like(target, dtype=torch.bool)


def inside(targets):
    """A prepared batch without images, all of it inside the image."""
    return {"target": targets, "inside": [everywhere(target) for target in targets]}


def of_logits(*branches):
    return [log_probabilities(branch) for branch in branches]


def test_released_term_draws_every_voxel_to_background(built):
    main, auxiliary, target = logits_and_target()
    # equal branches: what is left is the cross-entropy
    trainer = built(nnUNetTrainerDBDMPReleasedKLCE)
    trainer.pseudo_label_term(*of_logits(main, main), trainer.known(target, everywhere(target))).backward()
    assert (main.grad[:, 0] < 0).all()
    assert (main.grad[:, 1:] > 0).all()


def test_term_of_the_paper_draws_annotated_voxels_to_their_label(built):
    main, auxiliary, target = logits_and_target()
    trainer = built(nnUNetTrainerDBDMP)
    trainer.pseudo_label_term(*of_logits(main, main), trainer.known(target, everywhere(target))).backward()
    lesion = (target == 1)[:, 0]
    assert (main.grad[:, 1][lesion] < 0).all()
    assert (main.grad[:, 0][lesion] > 0).all()


def test_released_term_is_the_cross_entropy_against_background_where_branches_agree(built):
    main, _, target = logits_and_target()
    trainer = built(nnUNetTrainerDBDMPReleasedKLCE)
    term = trainer.pseudo_label_term(*of_logits(main, main), trainer.known(target, everywhere(target)))
    assert term.item() == pytest.approx(-main.log_softmax(dim=1)[:, 0].mean().item(), rel=1e-5)


def test_released_term_rises_as_that_of_the_paper_does(built):
    trainer = built(nnUNetTrainerDBDMPReleasedKLCE)
    main, auxiliary, target = logits_and_target()
    annotation = trainer.known(target, everywhere(target))
    full = trainer.pseudo_label_term(*of_logits(main, auxiliary), annotation).item()
    trainer.settings = trainer.settings.model_copy(
        update={"dbdmp": trainer.settings.dbdmp.model_copy(update={"ramp_epochs": 2, "pseudo_label_weight": 0.5})}
    )
    less = trainer.pseudo_label_term(*of_logits(main, auxiliary), annotation).item()
    assert less == pytest.approx(0.5 * np.exp(-5) * full)


def test_one_decoder_is_the_plain_unet_of_the_plans(built):
    trainer = built(nnUNetTrainerDBDMPOneDecoder)
    network = trainer.unwrapped_network()
    assert len(network.auxiliary_decoders) == 0
    assert not any("auxiliary" in name for name in network.state_dict())
    two = built(nnUNetTrainerDBDMP).unwrapped_network()
    own = network.state_dict()
    # the same start as the main branch of DBDMP under the same seed
    assert all(torch.equal(own[name], value) for name, value in two.state_dict().items() if "auxiliary" not in name)


def test_one_decoder_keeps_the_weight_of_the_supervised_terms(built):
    one, two = built(nnUNetTrainerDBDMPOneDecoder), built(nnUNetTrainerDBDMP)
    branch, targets = heads_of(one)
    found = one.loss_terms([branch], inside(targets))
    expected = two.loss_terms([branch, branch], inside(targets))
    for name in ("tversky", "symmetric_ce", "partial_ce"):
        assert found[name].item() == pytest.approx(expected[name].item())


def test_one_decoder_learns_from_its_own_sharpened_output_by_soft_cross_entropy(built):
    trainer = built(nnUNetTrainerDBDMPOneDecoder)
    branch, targets = heads_of(trainer)
    term = trainer.loss_terms([branch], inside(targets))["pseudo_labels"]
    probabilities = branch[0].softmax(dim=1)
    own = torch.nn.functional.one_hot(targets[0][:, 0], 3).movedim(-1, 1).float()
    soft = torch.where(targets[0] > 0, own, sharpened(probabilities, temperature=0.3))
    assert term.item() == pytest.approx(soft_cross_entropy(branch[0], soft).item(), rel=1e-5)


@pytest.mark.parametrize("trainer", [nnUNetTrainerDBDMPOneDecoder, nnUNetTrainerDBDMPReleasedKLCE])
def test_a_step_moves_every_weight_of_the_network(built, trainer):
    made = built(trainer)
    patch = made.configuration_manager.patch_size
    scales = made._get_deep_supervision_scales()
    targets = [
        torch.randint(0, 3, (2, 1, *(round(side * factor) for side, factor in zip(patch, scale)))) for scale in scales
    ]
    made.set_deep_supervision_enabled(True)
    made.network.train()
    output = made.train_step({"data": torch.randn(2, 1, *patch), "target": targets})
    assert np.isfinite(output["loss"])
    # nnU-Net gives no weight to the lowest resolution's head
    without = {name for name, value in made.network.named_parameters() if value.grad is None}
    assert all("seg_layers" in name for name in without)


def test_nnunet_finds_them_in_their_folder_and_dbdmp_in_the_package(tmp_path, monkeypatch):
    variables = environment(tmp_path, cores=2)
    monkeypatch.setenv("nnUNet_extTrainer", variables["nnUNet_extTrainer"])
    for name in ("nnUNetTrainerDBDMPOneDecoder", "nnUNetTrainerDBDMPReleasedKLCE"):
        assert recursive_find_trainer_class_by_name(name) is getattr(ablations, name)
    assert recursive_find_trainer_class_by_name("nnUNetTrainerDBDMP") is nnUNetTrainerDBDMP
    assert len(variables["nnUNet_extTrainer"].split(os.pathsep)) == len(
        os.environ["nnUNet_extTrainer"].split(os.pathsep)
    )
