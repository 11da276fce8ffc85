"""What lies outside the image was annotated by nobody: through nnU-Net's own loaders, for every trainer that learns
from partial labels."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
from nnunetv2.training.dataloading.data_loader import nnUNetDataLoader
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunet_ext.augmentation.image_border import CasesWithMarkedAir
from nnunet_ext.augmentation.selected_channels import is_intensity_transform
from support.changed_trainers import changed_trainer
from support.nnunet_runs import train
from support.tiny_data import IGNORE, SHAPE, dataset_name
from support.trainers_under_test import PARTIAL, trainer_class

pytestmark = pytest.mark.capability("outside the image")

LARGE = 32
TRIES = 50
"""To meet a patch that is neither rotated nor scaled, as most are."""
PATCHES = {
    "2d": ("2d_tiny", (LARGE, LARGE)),
    "3d": ("3d_tiny", (LARGE, LARGE, LARGE)),
    "3d augmented slice by slice": ("3d_tiny", (8, LARGE, LARGE)),
    "cascade": ("3d_cascade_tiny", (LARGE, LARGE, LARGE)),
}
EVERY_TERM = {"partial_ce": {"entropy_weight": 1.0}, "dbdmp": {"ramp_epochs": 0}, "tdnet": {"ramp_epochs": 0}}
EVERY_TERM["partial_labels"] = {"entropy_weight": 1.0}
SUPERVISIONS = {
    "partial_ce": {},
    "dice_ce": {"dmpls": {"supervision": "dice_ce"}, "tdnet": {"supervision": "dice_ce", "ramp_epochs": 0}},
}
SUPERVISED = [
    (name, supervision)
    for name in PARTIAL
    for supervision, settings in SUPERVISIONS.items()
    # without a setting of its own it is the same test again
    if not settings or {one.name for one in trainer_class(name).techniques} & set(settings)
]


def test_every_trainer_that_needs_the_ignore_label_or_partial_instances_knows_the_border():
    assert {"nnUNetTrainerTDNet", "nnUNetTrainerDMPLS", "nnUNetTrainerPartialCE", "nnUNetTrainerDBDMP"} <= set(PARTIAL)


def loaders(trainer: Any) -> tuple[Any, Any]:
    """nnU-Net's own for training and validation, in this process; the training's changes no intensities."""
    training, validation = trainer.get_dataloaders()
    loader = getattr(training.data_loader, "loader", training.data_loader)
    loader.transforms.transforms = [one for one in loader.transforms.transforms if not is_intensity_transform(one)]
    return training, validation


def built(name: str, patch: str, kind: str = "ignore", **settings: Any) -> Any:
    configuration, size = PATCHES[patch]
    # the planned 2d data is the same as that of 3d_fullres: all spacings are 1 mm
    plan = {"data_identifier": "nnUNetPlans_3d_fullres"} if patch == "2d" else None
    trainer = changed_trainer(trainer_class(name), configuration, kind=kind, patch=size, plan=plan, **settings)
    trainer.initialize()
    return trainer


def labels_of(workspace: Any, case: str, kind: str = "ignore") -> np.ndarray:
    file = workspace.raw / dataset_name(kind) / "labelsTr" / f"{case}.nii.gz"
    return sitk.GetArrayFromImage(sitk.ReadImage(str(file)))


@pytest.mark.parametrize("name", PARTIAL)
def test_annotated_voxels_of_a_batch_are_those_of_the_label_files(name, workspace, results):
    """Each whole image lies in a patch that is larger, so that counts can be compared."""
    trainer = built(name, "3d")
    _, validation = loaders(trainer)
    batch = trainer.prepare_batch(next(validation), training=True)
    for sample, case in enumerate(batch["keys"]):
        labels = labels_of(workspace, case)
        target, inside = batch["target"][0][sample], batch["inside"][0][sample]
        for value in np.unique(labels):
            assert (inside & (target == value)).sum() == (labels == value).sum(), value
        assert inside.sum() == labels.size
        assert (target[~inside] == 0).all()


@pytest.mark.parametrize("patch", PATCHES)
@pytest.mark.parametrize("name", PARTIAL)
def test_no_voxel_outside_the_image_is_taken_for_annotated(name, patch, workspace, results, monkeypatch):
    """The images are ones, so that zeros show padding, and a rotated border the share of a voxel that is inside."""
    kind = "labels" if patch == "cascade" else "ignore"
    if patch == "cascade":
        # what the second stage reads beside its images
        train(name, "3d_lowres_tiny", kind=kind, fold="all").perform_actual_validation()
    trainer = built(name, patch, kind)
    load_case = CasesWithMarkedAir.load_case

    def ones(self, identifier):
        image, *others = load_case(self, identifier)
        return (np.ones(image.shape, dtype=np.float32), *others)

    monkeypatch.setattr(CasesWithMarkedAir, "load_case", ones)
    for loader in loaders(trainer):
        shares = []
        for _ in range(12):
            batch = trainer.prepare_batch(next(loader), training=True)
            image, inside = batch["data"][:, :1], batch["inside"][0]
            assert not (inside & (image < 0.3)).any()
            assert not (~inside & (image > 0.7)).any()
            shares.append(inside.float().mean().item())
            for level in range(1, len(batch["target"])):
                # nnU-Net takes the nearest voxel for lower resolutions
                step = [full // low for full, low in zip(inside.shape[2:], batch["inside"][level].shape[2:])]
                nearest = (slice(None), slice(None), *(slice(one // 2, None, one) for one in step))
                assert torch.equal(batch["inside"][level], inside[nearest])
        assert 0.05 < np.mean(shares) < 0.98


def random_outputs(trainer: Any, batch: dict, seed: int) -> Any:
    """Logits of each decoder at each resolution; a plain network's are those of its one decoder."""
    generator = torch.Generator().manual_seed(seed)
    classes = trainer.label_manager.num_segmentation_heads
    branches = 1 + len(getattr(trainer.network, "auxiliary_decoders", ()))
    outputs = [
        [3 * torch.randn(len(one), classes, *one.shape[2:], generator=generator) for one in batch["target"]]
        for _ in range(branches)
    ]
    return outputs[0] if branches == 1 else outputs


def flat(outputs: Any) -> list[torch.Tensor]:
    return [head for one in outputs for head in (one if isinstance(one, list) else [one])]


def terms(trainer: Any, outputs: Any, batch: dict) -> dict[str, torch.Tensor]:
    trainer.shared_rng = np.random.default_rng(1)
    return trainer.loss_terms(outputs, batch)


@pytest.mark.parametrize("kind", ["ignore", "labels"])
@pytest.mark.parametrize("patch", ["2d", "3d"])
@pytest.mark.parametrize(("name", "supervision"), SUPERVISED)
def test_no_term_sees_what_is_predicted_outside_the_image(name, patch, kind, supervision, workspace, results):
    trainer = built(name, patch, kind, **{**EVERY_TERM, **SUPERVISIONS[supervision]})
    trainer.current_epoch = 1
    training, _ = loaders(trainer)
    raw = next(training)
    outside = [head == -1 for head in raw["target"]]
    assert outside[0].float().mean() > 0.2
    batch = trainer.prepare_batch(raw, training=True)
    outputs = random_outputs(trainer, batch, seed=0)
    for head in flat(outputs):
        head.requires_grad_()
    before = terms(trainer, outputs, batch)
    assert len(before) > 1
    sum(before.values()).backward()
    changed = random_outputs(trainer, batch, seed=0)
    levels = {mask.shape[2:]: mask for mask in outside}
    for head, again in zip(flat(outputs), flat(changed)):
        mask = levels[head.shape[2:]]
        if head.grad is not None:
            assert not (head.grad * mask).any()
            assert torch.isfinite(head.grad).all()
        again += 50 * torch.randn(again.shape) * mask
    after = terms(trainer, changed, batch)
    for term, value in before.items():
        assert value.item() != 0 or term == "entropy", "every voxel may be annotated"
        assert after[term].item() == pytest.approx(value.item(), rel=1e-5), term


@pytest.mark.parametrize(("name", "supervision"), SUPERVISED)
def test_a_batch_wholly_in_padding_teaches_nothing(name, supervision, workspace, results):
    trainer = built(name, "2d", **{**EVERY_TERM, **SUPERVISIONS[supervision]})
    training, _ = loaders(trainer)
    raw = next(training)
    batch = trainer.prepare_batch({**raw, "target": [torch.full_like(t, -1) for t in raw["target"]]}, training=True)
    outputs = random_outputs(trainer, batch, seed=0)
    for head in flat(outputs):
        head.requires_grad_()
    total = sum(terms(trainer, outputs, batch).values())
    assert torch.isfinite(total)
    total.backward()
    for head in flat(outputs):
        assert head.grad is None or not head.grad.any()


@pytest.mark.parametrize("name", PARTIAL)
def test_validation_leaves_padding_out_where_there_is_an_ignore_label(name, workspace, results):
    trainer = built(name, "3d")
    _, validation = loaders(trainer)
    raw = next(validation)
    batch = trainer.prepare_batch(raw, training=False)
    for target, of_loader in zip(batch["target"], raw["target"]):
        assert torch.equal(target, torch.where(of_loader == -1, IGNORE, of_loader))
    dense = built(name, "3d", "labels")
    _, validation = loaders(dense)
    raw = next(validation)
    batch = dense.prepare_batch(raw, training=False)
    assert torch.equal(batch["target"][0], torch.where(raw["target"][0] == -1, 0, raw["target"][0]))


# ---------------------------------------------------------------------- air: the other meaning of -1


class OneCase:
    """A dataset for nnU-Net's loader."""

    def __init__(self, data: np.ndarray, seg: np.ndarray, properties: dict) -> None:
        self.identifiers = ["case"]
        self.case = data, seg, None, properties

    def __len__(self) -> int:
        return 1

    def load_case(self, identifier: str) -> tuple:
        return self.case


def test_background_that_was_annotated_in_air_stays_annotated(workspace, results, tmp_path):
    """Air is 0 in the image; preprocessing writes -1 there, but somebody said that it is background."""
    image, label = np.zeros(SHAPE, np.float32), np.full(SHAPE, IGNORE, np.uint8)
    image[4:16, 4:20, 4:20] = np.random.default_rng(0).uniform(1, 2, (12, 16, 16))
    image[10:, 10:, 10:] = 0  # a corner of air within the box of what is not 0
    image[0, 0, 0] = image[-1, -1, -1] = 1  # so that nothing is cropped away
    label[8, 8, 4:12] = 1
    label[8, 4:8, 12] = 2
    label[12, 12, 11:24] = 0  # background, all of it in air
    label[0, 0, 0] = 1  # at the outermost voxel
    for array, file in ((image, "image.nii.gz"), (label, "label.nii.gz")):
        sitk.WriteImage(sitk.GetImageFromArray(array), str(tmp_path / file))
    trainer = built("nnUNetTrainerTDNet", "3d")
    plans = PlansManager(trainer.plans_manager.plans)
    data, seg, properties = DefaultPreprocessor(verbose=False).run_case(
        [str(tmp_path / "image.nii.gz")],
        str(tmp_path / "label.nii.gz"),
        plans,
        plans.get_configuration("3d_tiny"),
        json.loads((workspace.raw / dataset_name("ignore") / "dataset.json").read_text()),
    )
    assert (seg == -1).sum() == 13, "preprocessing marks air that is labelled 0"
    for transforms in (
        trainer.get_training_transforms((LARGE,) * 3, (0, 0), trainer._get_deep_supervision_scales(), (), False),
        trainer.get_validation_transforms(trainer._get_deep_supervision_scales()),
    ):
        transforms.transforms = [one for one in transforms.transforms if not is_intensity_transform(one)]
        loader = nnUNetDataLoader(
            CasesWithMarkedAir(OneCase(data, seg, properties)),
            1,
            (LARGE,) * 3,
            (LARGE,) * 3,
            trainer.label_manager,
            transforms=transforms,
        )
        for _ in range(TRIES):
            batch = trainer.prepare_batch(next(loader), training=True)
            if batch["inside"][0].sum() == label.size:
                break
        else:
            pytest.fail("voxels of the image are taken for padding")
        scribbles = trainer.scribbles(batch)[0]
        for value in (0, 1, 2):
            known = scribbles.labels[:, value : value + 1].bool() & scribbles.is_known
            assert known.sum() == (label == value).sum(), value


def test_normalisation_within_a_mask_still_sees_air_and_padding(workspace, results):
    """nnU-Net sets the image to 0 wherever the segmentation is negative, if its normalisation asks for a mask."""
    trainer = built("nnUNetTrainerTDNet", "3d")
    arguments = ((LARGE,) * 3, (0, 0), trainer._get_deep_supervision_scales(), (), False)
    transforms = trainer.get_training_transforms(*arguments, use_mask_for_norm=[True])
    transforms.transforms = [one for one in transforms.transforms if not is_intensity_transform(one)]
    segmentation = torch.zeros(1, LARGE, LARGE, LARGE, dtype=torch.int16)
    segmentation[:, :4], segmentation[:, 4:8] = -1, -2
    for _ in range(TRIES):
        sample = transforms(image=torch.ones(1, LARGE, LARGE, LARGE), segmentation=segmentation.clone())
        if (sample["segmentation"][0] == -1).sum() == 4 * LARGE**2:
            break
    else:
        pytest.fail("padding does not stay what it is")
    assert not sample["image"][:, :8].any()
    assert sample["image"][:, 8:].all()
    assert (sample["segmentation"][0][:, 4:] == 0).all()
