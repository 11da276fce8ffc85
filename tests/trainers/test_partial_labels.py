"""Training with labels that are missing in some cases: what a step computes, what is validated, what is refused."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from torch.nn import functional as F

from nnunet_ext.errors import UserError
from nnunet_ext.plans.settings import validated_settings
from nnunet_ext.trainers import (
    nnUNetTrainerMixedSupervision,
    nnUNetTrainerPartialLabels,
    nnUNetTrainerPartialLabelsMixUp,
)
from nnunet_ext.trainers.dual_encoder import DualEncoderMixin
from nnunet_ext.trainers.fine_tuning import nnUNetTrainerFineTune
from nnunet_ext.trainers.partial_labels import PartialLabelsMixin, PartialLabelsMixUpMixin
from support.changed_trainers import changed_trainer, step_terms
from support.nnunet_runs import build_trainer, train
from support.tiny_data import ANNOTATED, IGNORE

BOTH = ["shell", "core"]
LISTS = {"annotated_labels": {"full": BOTH, "shell": ["shell"], "core": ["core"], "nothing": []}}
REGIONS = {"annotated_labels": {"full": ["whole", "core"], "core": ["core"], "nothing": []}}
VALUES = {"shell": 1, "core": 2}


def initialized(trainer=nnUNetTrainerPartialLabels, kind="labels", lists=LISTS, **settings):
    made = changed_trainer(trainer, kind=kind, dataset={"nnunet_ext": lists}, **settings)
    torch.manual_seed(0)
    made.initialize()
    made.rng, made.shared_rng = np.random.default_rng(1), np.random.default_rng(2)
    return made


def batch_for(trainer, keys, seed=0):
    """A batch as the loader makes it, whose cases have no label that they were not annotated for."""
    generator, labels = torch.Generator().manual_seed(seed), trainer.label_manager
    shape = (len(keys), 1, *trainer.configuration_manager.patch_size)
    data = torch.randn((len(keys), trainer.num_input_channels, *shape[2:]), generator=generator)
    if labels.has_regions:
        channels = len(labels.foreground_regions) + labels.has_ignore_label
        full = torch.rand((len(keys), channels, *shape[2:]), generator=generator) > 0.7
    else:
        full = torch.randint(0, labels.num_segmentation_heads, shape, generator=generator)
        for case, key in zip(full, keys):
            for name, value in VALUES.items():
                if name not in LISTS["annotated_labels"][key]:
                    case[case == value] = 0
        if labels.has_ignore_label:
            full[torch.rand(shape, generator=generator) < 0.2] = labels.ignore_label
        full = full.to(torch.int16)
    return {"data": data, "target": [full[:, :, ::s, ::s, ::s] for s in (1, 2, 4, 8)], "keys": np.array(keys)}


def known(keys, kind="labels"):
    """(B, C) by hand."""
    if kind == "regions":
        return np.array([[name in REGIONS["annotated_labels"][key] for name in ("whole", "core")] for key in keys])
    return np.array([[True, *(name in LISTS["annotated_labels"][key] for name in BOTH)] for key in keys])


def read_log(trainer):
    return Path(trainer.log_file).read_text()


def softmax(logits):
    exponentials = np.exp(logits - logits.max(1, keepdims=True))
    return exponentials / exponentials.sum(1, keepdims=True)


def merged(logits, lists):
    """Probabilities in float64 of what each case was annotated for."""
    p = softmax(logits.detach().double().numpy())
    for case, labels in zip(p, lists):
        case[0] += case[~labels].sum(0)
        case[~labels] = 0
    return p


def reference(logits, target, lists, ignore=None):
    """Marginal cross-entropy and Dice of one resolution, in float64."""
    q, target = merged(logits, lists), target.numpy().astype(int)
    counts = np.ones_like(target, dtype=bool) if ignore is None else target != ignore
    labels = np.where(counts, target, 0)
    entropy = -np.log(np.take_along_axis(q, labels, 1)[counts]).mean()
    onehot = (np.arange(3).reshape(1, -1, 1, 1, 1) == labels) * counts
    over = (2, 3, 4)
    dice = (2 * (q * onehot).sum(over) + 1e-5) / ((q * counts).sum(over) + onehot.sum(over) + 1e-5)
    return entropy - dice[:, 1:].mean()


# ---------------------------------------------------------------------- a step


@pytest.mark.parametrize("kind", ["labels", "ignore"])
def test_the_loss_is_nnunets_over_what_was_annotated_at_every_resolution(workspace, results, kind):
    trainer, keys = initialized(kind=kind), ["shell", "core", "nothing", "full"]
    prepared = trainer.prepare_batch(batch_for(trainer, keys), training=True)
    generator = torch.Generator().manual_seed(1)
    outputs = [torch.randn((4, 3, *head.shape[2:]), generator=generator) for head in prepared["target"]]
    terms = trainer.loss_terms(outputs, prepared)
    ignore = trainer.label_manager.ignore_label
    heads = zip(trainer.head_weights(), outputs, prepared["target"])
    expected = sum(weight * reference(*head, known(keys), ignore) for weight, *head in heads if weight)
    assert set(terms) == {"segmentation"}
    assert terms["segmentation"].item() == pytest.approx(expected, rel=1e-5)


def test_a_step_does_not_tell_an_unannotated_label_from_background(workspace, results):
    trainer = initialized()
    prepared = trainer.prepare_batch(batch_for(trainer, ["shell", "nothing"]), training=True)
    heads = [head.detach().requires_grad_(True) for head in trainer.forward(prepared)]
    trainer.loss_terms(heads, prepared)["segmentation"].backward()
    p, slope = heads[0].detach().softmax(1)[0], heads[0].grad[0]
    torch.testing.assert_close(slope[2] / p[2], slope[0] / p[0], rtol=1e-3, atol=1e-7)
    assert (heads[0].grad[1] == 0).all()


def test_regions_that_were_not_annotated_get_no_gradient_whatever_the_label_map_has(workspace, results):
    trainer = initialized(kind="regions", lists=REGIONS)
    batch = batch_for(trainer, ["core", "full"])
    prepared = trainer.prepare_batch(batch, training=True)
    assert torch.equal(prepared["target"][0][0, 1:], batch["target"][0][0, 1:])
    outputs = [
        torch.randn((2, 2, *head.shape[2:]), generator=torch.Generator().manual_seed(1)).requires_grad_(True)
        for head in prepared["target"]
    ]
    trainer.loss_terms(outputs, prepared)["segmentation"].backward()
    assert (outputs[0].grad[0, 0] == 0).all()
    assert all((outputs[0].grad[case, channel] != 0).any() for case, channel in ((0, 1), (1, 0), (1, 1)))


@pytest.mark.parametrize("kind", ["labels", "ignore", "regions"])
def test_with_every_label_annotated_weights_are_bit_identical_to_the_trainer_below(kind, workspace, results):
    """That nnUNetTrainerConfigurable's are those of stock nnU-Net is tested with it."""
    expected = train("nnUNetTrainerConfigurable", kind=kind).network.state_dict()
    actual = train("nnUNetTrainerPartialLabels", kind=kind).network.state_dict()
    assert all(torch.equal(value, expected[key]) for key, value in actual.items())


def test_with_every_label_annotated_mixup_is_bit_identical_too(workspace, results):
    expected = train("nnUNetTrainerMixUp").network.state_dict()
    actual = train("nnUNetTrainerPartialLabelsMixUp").network.state_dict()
    assert all(torch.equal(value, expected[key]) for key, value in actual.items())


@pytest.mark.parametrize("name", ["nnUNetTrainerPartialLabels", "nnUNetTrainerPartialLabelsMixUp"])
def test_it_trains_on_partial_cases_and_says_how_many_there_are(name, workspace, results):
    trainer = train(name, kind="partial", fold=1)
    log = Path(trainer.log_file).read_text()
    assert "Annotated training cases: 2 dense, 0 scribbled, 1 partial, 0 unlabelled; shell 2, core 3" in log
    assert "Annotated validation cases: 0 dense, 0 scribbled, 1 partial, 0 unlabelled; shell 1, core 0" in log
    stock = train("nnUNetTrainerConfigurable", kind="partial", fold=1).network.state_dict()
    assert any(not torch.equal(value, stock[key]) for key, value in trainer.network.state_dict().items())
    assert np.isfinite(trainer.logger.get_value("train_losses", step=None)).all()


@pytest.mark.parametrize("processes", [0, 2])
def test_lists_come_to_the_batches_of_nnunets_own_loaders(processes, workspace, results, monkeypatch):
    monkeypatch.setenv("nnUNet_n_proc_DA", str(processes))
    trainer = build_trainer("nnUNetTrainerPartialLabels", kind="partial", fold=0)
    trainer.initialize()
    training, validation = trainer.get_dataloaders()
    seen = set()
    for _ in range(8):
        prepared = trainer.prepare_batch(next(training), training=True)
        for sample, case in enumerate(prepared["keys"]):
            seen.add(case)
            labels = ANNOTATED.get(case, BOTH)
            row = prepared["annotated"][sample].tolist() if "annotated" in prepared else [True] * 3
            assert row == [True, "shell" in labels, "core" in labels]
            assert set(prepared["target"][0][sample].unique().tolist()) <= {0, *(VALUES[name] for name in labels)}
    assert len(seen) > 2
    for loader in (training, validation):
        if hasattr(loader, "_finish"):
            loader._finish()


# ---------------------------------------------------------------------- MixUp


def mixup_terms(kind, keys, settings, lists=LISTS):
    trainer = initialized(nnUNetTrainerPartialLabelsMixUp, kind=kind, lists=lists, mixup=settings)
    prepared = trainer.prepare_batch(batch_for(trainer, keys), training=True)
    mixed = prepared["mixed"]
    generator = torch.Generator().manual_seed(4)
    channels = trainer.label_manager.num_segmentation_heads
    logits = 2 * torch.randn((len(keys), channels, *mixed["data"].shape[2:]), generator=generator)
    logits.requires_grad_(True)
    return trainer, mixed, logits


@pytest.mark.parametrize("kind", ["labels", "ignore"])
def test_mixup_counts_each_source_by_the_list_of_its_own_case(kind, workspace, results):
    keys = ["shell", "core", "nothing"]
    trainer, mixed, logits = mixup_terms(kind, keys, {})
    loss = trainer.mixed_loss([logits], mixed)
    target = mixed["target"][0].numpy().astype(int)
    ignore = trainer.label_manager.ignore_label
    p = logits.detach()
    total, voxels = 0.0, 0
    for case in range(3):
        ratio, partner = mixed["ratios"][case], mixed["partners"][case]
        valid = np.ones(target.shape[2:], bool)
        if ignore is not None:
            valid = (target[case, 0] != ignore) & (target[partner, 0] != ignore)
        for weight, source in ((ratio, case), (1 - ratio, partner)):
            q = merged(p[case : case + 1], known([keys[source]]))[0]
            labels = np.where(valid, target[source, 0], 0)
            total -= weight * np.log(np.take_along_axis(q, labels[None], 0)[0][valid]).sum()
        voxels += valid.sum()
    assert loss.item() == pytest.approx(total / voxels, rel=1e-5)
    loss.backward()
    assert torch.isfinite(logits.grad).all()


def test_mixup_of_regions_counts_each_source_by_the_list_of_its_own_case(workspace, results):
    keys = ["core", "nothing", "full"]
    trainer, mixed, logits = mixup_terms("regions", keys, {}, REGIONS)
    loss = trainer.mixed_loss([logits], mixed)
    regions, ignored = mixed["target"][0][:, :2].double(), mixed["target"][0][:, 2:].bool()
    lists, z = known(keys, "regions"), logits.detach().double()
    total, count = 0.0, 0
    for case in range(3):
        ratio, partner = mixed["ratios"][case], mixed["partners"][case]
        valid = ~(ignored[case] | ignored[partner])[0]
        for weight, source in ((ratio, case), (1 - ratio, partner)):
            entropies = F.binary_cross_entropy_with_logits(z[case], regions[source], reduction="none")
            total += weight * sum(entropies[r][valid].sum() for r in range(2) if lists[source][r])
        count += valid.sum()  # with an ignore label, nnU-Net sums over the regions
    assert loss.item() == pytest.approx((total / count).item(), rel=1e-5)


@pytest.mark.parametrize("kind", ["cutmix", "carvemix"])
def test_a_pasted_voxel_counts_by_the_list_of_its_source(workspace, results, kind):
    keys = ["shell", "core"]
    trainer, mixed, logits = mixup_terms("labels", keys, {"kind": kind})
    loss = trainer.mixed_loss([logits], mixed)
    own, other = merged(logits, known(keys)), merged(logits, known(keys[::-1]))
    q = np.where(mixed["pasted"].numpy(), other, own)
    target = mixed["mixed_target"].numpy().astype(int)
    entropy = -np.log(np.take_along_axis(q, target, 1)).mean()
    onehot = np.arange(3).reshape(1, -1, 1, 1, 1) == target
    over = (2, 3, 4)
    dice = (2 * (q * onehot).sum(over) + 1e-5) / (q.sum(over) + onehot.sum(over) + 1e-5)
    assert loss.item() == pytest.approx(entropy - dice[:, 1:].mean(), rel=1e-5)


# ---------------------------------------------------------------------- together with other techniques


class PartialFineTune(PartialLabelsMixin, nnUNetTrainerFineTune):
    """Fine-tuning on partial labels."""


class PartialDualEncoder(PartialLabelsMixin, DualEncoderMixin):
    """A prior scan and partial labels."""


class PartialDualEncoderMixUp(DualEncoderMixin, PartialLabelsMixUpMixin):
    """All three."""


@pytest.mark.parametrize("trainer", [PartialFineTune, PartialDualEncoder, PartialDualEncoderMixUp])
def test_it_combines_with_other_techniques_by_inheritance(trainer, workspace, results):
    kind = "prior" if trainer.needs_prior else "labels"
    extra = {"longitudinal": {"current": [0], "prior_image": [1], "prior_labels": [2, 3]}} if kind == "prior" else {}
    made, keys = initialized(trainer, kind, {**LISTS, **extra}), ["shell", "core"]
    prepared = made.prepare_batch(batch_for(made, keys), training=True)
    assert np.array_equal(prepared["annotated"].numpy(), known(keys))
    outputs = made.forward(prepared)
    terms = made.loss_terms(outputs, prepared)
    heads = zip(made.head_weights(), outputs, prepared["target"])
    expected = sum(weight * reference(*head, known(keys)) for weight, *head in heads if weight)
    assert terms["segmentation"].item() == pytest.approx(expected, rel=1e-5)
    has_mixup = issubclass(trainer, PartialLabelsMixUpMixin)
    assert set(step_terms(made, prepared)) == {"segmentation"} | ({"mixup"} if has_mixup else set())
    assert not has_mixup or "soft_target" in prepared["mixed"], "each source must count by its own list"

    step = made.train_step(batch_for(made, keys))
    assert all(np.isfinite(value) for value in step.values())
    assert float(step["loss"]) < 1e3, "a label that was not annotated was asked for"


# ---------------------------------------------------------------------- mixed supervision


MIXED = {
    "annotated_labels": {**LISTS["annotated_labels"], "scribbled": BOTH},
    "default": BOTH,
    "scribbled": ["scribbled"],
}


@pytest.fixture
def mixed(workspace, results):
    """A trainer with entropy, a prepared batch whose last rows lie outside the image, and logits."""

    def build(kind="ignore", **settings):
        lists = {key: value for key, value in MIXED.items() if kind == "ignore" or key != "scribbled"}
        trainer = initialized(nnUNetTrainerMixedSupervision, kind, lists, partial_labels=settings)
        batch = batch_for(trainer, ["full", "shell", "nothing"])
        for head in batch["target"]:
            head[:, :, -head.shape[2] // 4 :] = -1
        prepared = trainer.prepare_batch(batch, training=True)
        generator = torch.Generator().manual_seed(1)
        outputs = [torch.randn((3, 3, *head.shape[2:]), generator=generator) for head in prepared["target"]]
        return trainer, batch, prepared, outputs

    return build


@pytest.mark.parametrize("kind", ["labels", "ignore"])
def test_mixed_supervision_leaves_out_what_lies_outside_the_image(mixed, kind):
    trainer, batch, prepared, outputs = mixed(kind)
    terms = trainer.loss_terms(outputs, prepared)
    expected = 0.0
    for weight, logits, raw in zip(trainer.head_weights(), outputs, batch["target"]):
        if weight:
            target = torch.where(raw == -1, IGNORE, raw)
            target[2] = IGNORE  # of the case that was annotated for nothing, so that the mean is over the others
            expected += weight * reference(logits, target, known(["full", "shell", "nothing"]), IGNORE)
    assert set(terms) == {"segmentation"}
    assert terms["segmentation"].item() == pytest.approx(expected, rel=1e-5)


def test_entropy_is_over_voxels_that_nobody_annotated(mixed):
    trainer, batch, prepared, outputs = mixed(entropy_weight=0.5)
    asked = []
    trainer.total = lambda sums: asked.append(tuple(sums.shape)) or sums
    terms = trainer.loss_terms(outputs, prepared)
    p, raw = softmax(outputs[0].double().numpy()), batch["target"][0].numpy()[:, 0]
    entropies = -(p * np.log(p)).sum(1)
    unknown = raw == IGNORE
    unknown[2] = raw[2] != -1  # annotated for nothing
    assert terms["entropy"].item() == pytest.approx(0.5 * entropies[unknown].mean(), rel=1e-5)
    assert asked == [(2,)]
    logits = outputs[0].requires_grad_()
    trainer.loss_terms(outputs, prepared)["entropy"].backward()
    assert np.array_equal(logits.grad.any(dim=1).numpy(), unknown)


def test_unlabelled_cases_are_trained_on_only_if_something_is_learned_from_them(workspace, results):
    for name, weight, count in (
        ("nnUNetTrainerPartialLabels", 0.0, 3),
        ("nnUNetTrainerMixedSupervision", 0.0, 3),
        ("nnUNetTrainerMixedSupervision", 0.1, 4),
    ):
        trainer = build_trainer(name, kind="partial", fold=1)
        trainer.settings = validated_settings({"partial_labels": {"entropy_weight": weight}}, where="the test")
        training, validation = trainer.do_split()
        assert (len(training), len(validation)) == (count, 1)
        assert ("case_3" in training) == (count == 4)


def test_a_case_that_was_annotated_for_nothing_is_predicted_and_validates_nothing(workspace, results, monkeypatch):
    """Ensembles and the search for the best configuration want predictions of the same cases of every model."""
    monkeypatch.setattr(nnUNetTrainer, "do_split", lambda self: (["case_0", "case_1"], ["case_4", "case_3"]))
    trainer = train("nnUNetTrainerPartialLabels", kind="partial")
    assert trainer.get_tr_and_val_datasets()[1].identifiers == ["case_4"]
    assert "Annotated validation cases: 1 dense, 0 scribbled, 0 partial, 0 unlabelled" in read_log(trainer)
    trainer.perform_actual_validation(save_probabilities=True)
    folder = Path(trainer.output_folder, "validation")
    assert {file.name for file in folder.glob("*.npz")} == {"case_3.npz", "case_4.npz"}
    summary = json.loads((folder / "summary.json").read_text())
    scored = {Path(one["reference_file"]).name: one["metrics"] for one in summary["metric_per_case"]}
    assert all(np.isnan(value) for metrics in scored["case_3.nii.gz"].values() for value in metrics.values())
    for label, metrics in summary["mean"].items():
        np.testing.assert_equal(metrics, scored["case_4.nii.gz"][label])


def test_a_fold_without_an_annotated_validation_case_is_refused(workspace, results, monkeypatch):
    monkeypatch.setattr(nnUNetTrainer, "do_split", lambda self: (["case_0"], ["case_3"]))
    with pytest.raises(UserError, match="No validation case of fold 0 was annotated for anything"):
        train("nnUNetTrainerPartialLabels", kind="partial")


def test_the_second_stage_of_a_cascade_learns_from_unlabelled_cases_too(workspace, results, monkeypatch):
    """The first stage predicts them, and neither stage validates on them."""
    cases = [f"case_{number}" for number in range(5)]
    monkeypatch.setattr(nnUNetTrainer, "do_split", lambda self: (list(cases), list(cases)))
    for configuration in ("3d_lowres_tiny", "3d_cascade_tiny"):
        trainer = changed_trainer(
            nnUNetTrainerMixedSupervision,
            configuration,
            kind="partial",
            partial_labels={"entropy_weight": 1.0},
            num_epochs=1,
            num_iterations_per_epoch=2,
        )
        trainer.run_training()
        training, validation = trainer.get_tr_and_val_datasets()
        assert "case_3" in training.identifiers
        assert "case_3" not in validation.identifiers
        if configuration == "3d_lowres_tiny":
            trainer.perform_actual_validation()
            summary = json.loads(Path(trainer.output_folder, "validation", "summary.json").read_text())
            (unlabelled,) = (one for one in summary["metric_per_case"] if "case_3" in one["reference_file"])
            assert all(np.isnan(one["Dice"]) for one in unlabelled["metrics"].values())


@pytest.fixture
def second_stage(workspace, results, monkeypatch):
    """Builds the second stage of a cascade whose first one has predicted the labelled cases, and others if asked."""
    cases = [f"case_{number}" for number in range(5)]
    monkeypatch.setattr(nnUNetTrainer, "do_split", lambda self: (list(cases), list(cases)))

    def build(trainer, *, entropy_weight=0.0, predicted=()):
        settings = {"partial_labels": {"entropy_weight": entropy_weight}}
        made = changed_trainer(trainer, "3d_cascade_tiny", kind="partial", **settings)
        folder = Path(made.folder_with_segs_from_previous_stage)
        folder.mkdir(parents=True)
        for case in ("case_0", "case_1", "case_2", "case_4", *predicted):
            (folder / f"{case}.b2nd").touch()
        return made

    return build


def test_a_second_stage_stops_before_it_learns_from_cases_that_the_first_has_not_predicted(second_stage):
    """As those of `nnunet_ext merge`, which no fold validates on."""
    trainer = second_stage(nnUNetTrainerMixedSupervision, entropy_weight=0.1)
    with pytest.raises(UserError, match=r"case_3: annotated for nothing and not predicted by 3d_lowres_tiny") as raised:
        trainer.run_training()
    assert "set partial_labels.entropy_weight to 0" in str(raised.value)
    assert "train fold all of 3d_lowres_tiny" in str(raised.value)


@pytest.mark.parametrize("predicted", [(), ("case_3",)])
def test_a_second_stage_predicts_unlabelled_cases_that_the_first_has_predicted(second_stage, predicted):
    trainer = second_stage(nnUNetTrainerPartialLabels, predicted=predicted)
    training, validation = trainer.do_split()
    assert training == ["case_0", "case_1", "case_2", "case_4"]
    assert sorted(validation) == sorted([*training, *predicted])


def test_a_fold_without_an_annotated_training_case_is_refused(workspace, results):
    trainer = changed_trainer(nnUNetTrainerPartialLabels, dataset={"nnunet_ext": {"default": []}})
    with pytest.raises(UserError, match="No training case of fold 0 was annotated for anything"):
        trainer.run_training()


# ---------------------------------------------------------------------- validation


@pytest.mark.parametrize("kind", ["labels", "ignore", "regions"])
def test_pseudo_dice_counts_a_label_in_annotated_cases_alone(kind, workspace, results):
    lists, keys = (REGIONS, ["core", "full"]) if kind == "regions" else (LISTS, ["shell", "full"])
    trainer = initialized(kind=kind, lists=lists)
    batch = batch_for(trainer, keys)
    trainer.network.eval()
    with torch.no_grad():
        found = trainer.validation_step(batch)
        logits = trainer.network(batch["data"])[0].numpy()
    target, rows = batch["target"][0].numpy(), known(keys, kind)
    if kind == "regions":
        predicted, wanted, counts = logits > 0, target[:, :2], ~target[:, 2:]
    else:
        predicted = np.arange(3).reshape(1, -1, 1, 1, 1) == logits.argmax(1, keepdims=True)
        predicted, wanted = predicted[:, 1:], np.arange(1, 3).reshape(1, -1, 1, 1, 1) == target
        counts = target != (trainer.label_manager.ignore_label or -1)
        rows = rows[:, 1:]
    takes_part = counts & rows[:, :, None, None, None]
    over = (0, 2, 3, 4)
    np.testing.assert_array_equal(found["tp_hard"], (predicted & wanted & takes_part).sum(over))
    np.testing.assert_array_equal(found["fp_hard"], (predicted & ~wanted & takes_part).sum(over))
    np.testing.assert_array_equal(found["fn_hard"], (~predicted & wanted & takes_part).sum(over))
    assert float(found["loss"]) < 1e3


def test_final_validation_counts_annotated_labels_alone(workspace, results):
    trainer = train("nnUNetTrainerPartialLabels", kind="partial", fold=1)
    trainer.perform_actual_validation()
    text = (Path(trainer.output_folder) / "validation" / "summary.json").read_text()
    summary = json.loads(text)
    (case,) = summary["metric_per_case"]
    assert not np.isnan(case["metrics"]["1"]["TP"])
    assert all(np.isnan(value) for value in case["metrics"]["2"].values())
    assert all(np.isnan(value) for value in summary["mean"]["2"].values())
    assert case["metrics"]["1"]["FN"] > 0  # Dice may be 0, and is then also the mean with a label that counts as 0
    for metric in ("Dice", "FN"):
        score = case["metrics"]["1"][metric]
        np.testing.assert_equal(summary["mean"]["1"][metric], score)
        np.testing.assert_equal(summary["foreground_mean"][metric], score)
    assert "Mean Validation Dice over annotated labels" in Path(trainer.log_file).read_text()


def test_regions_that_were_not_annotated_leave_the_final_scores(workspace, results, tmp_path):
    trainer = initialized(kind="regions", lists=REGIONS)
    keys = ("(1, 2)", "(2,)")
    scored = [
        {"reference_file": f"/gt/{case}.nii.gz", "metrics": {key: {"Dice": dice, "FP": 1} for key in keys}}
        for case, dice in (("full", 0.8), ("core", 0.4), ("nothing", 0.1))
    ]
    file = tmp_path / "summary.json"
    means = {key: {"Dice": 0.0, "FP": 0} for key in keys}
    file.write_text(json.dumps({"metric_per_case": scored, "mean": means, "foreground_mean": {"Dice": 0.0, "FP": 0}}))
    trainer._score_what_was_annotated(file)
    summary = json.loads(file.read_text())
    assert summary["mean"]["(1, 2)"]["Dice"] == pytest.approx(0.8)
    assert summary["mean"]["(2,)"]["Dice"] == pytest.approx(0.6)
    assert summary["foreground_mean"]["Dice"] == pytest.approx(0.7)


# ---------------------------------------------------------------------- what is refused


def test_a_label_that_was_not_annotated_but_is_there_stops_the_training(workspace, results):
    lists = {"annotated_labels": {"case_1": ["shell"]}, "default": BOTH}
    trainer = changed_trainer(nnUNetTrainerPartialLabels, dataset={"nnunet_ext": lists})
    with pytest.raises(UserError, match=r"case_1 was not annotated for core, but its labels have it"):
        trainer.run_training()


def test_a_case_in_no_list_stops_the_training(workspace, results):
    lists = {"annotated_labels": {"case_1": BOTH}}
    trainer = changed_trainer(nnUNetTrainerPartialLabels, dataset={"nnunet_ext": lists})
    with pytest.raises(UserError, match=r"no list for the case case_\d .*or give"):
        trainer.run_training()


@pytest.mark.parametrize(
    ("lists", "message"),
    [
        ({"annotated_labels": {"a": ["liver"]}}, "case a, names liver, but the labels are shell, core"),
        ({"annotated_labels": {"a": ["background"]}}, "Background and ignore are not listed"),
        ({"default": ["spleen"]}, '"default" names spleen'),
        ({"annotated_labels": ["a"]}, "annotated_labels: must be an object"),
        ({"annotated_labels": {"a": "shell"}}, "must be a list"),
        ({"default": "shell"}, "default: must be a list"),
        ({"scribbled": ["case_1"]}, "names case_1, but the dataset has no ignore label"),
    ],
)
def test_wrong_lists_stop_before_anything_is_written(lists, message, workspace, results):
    with pytest.raises(UserError, match=re.escape(message)):
        changed_trainer(nnUNetTrainerPartialLabels, dataset={"nnunet_ext": lists})
    assert not list(results.iterdir())


def test_a_case_that_is_scribbled_and_annotated_for_nothing_is_refused(workspace, results):
    lists = {"annotated_labels": {"case_1": []}, "default": BOTH, "scribbled": ["case_1"]}
    with pytest.raises(UserError, match='case_1 were annotated for nothing and are "scribbled"'):
        changed_trainer(nnUNetTrainerMixedSupervision, kind="ignore", dataset={"nnunet_ext": lists})


def test_exclusion_is_refused_for_regions(workspace, results):
    settings = {"exclusion_weight": 0.1}
    with pytest.raises(NotImplementedError, match="no exclusion loss for regions"):
        changed_trainer(nnUNetTrainerPartialLabels, kind="regions", partial_labels=settings)


@pytest.mark.parametrize("keys", [["shell", "full"], ["full", "full"]])
def test_every_process_adds_up_exclusion_also_one_without_a_case_that_lacks_labels(keys, workspace, results):
    """Else the others would wait for it for ever."""
    trainer, asked = initialized(partial_labels={"exclusion_weight": 0.5}), []
    trainer.is_ddp = True
    trainer.total = lambda sums: asked.append(tuple(sums.shape)) or sums
    prepared = trainer.prepare_batch(batch_for(trainer, keys), training=True)
    assert ("annotated" in prepared) == ("shell" in keys)
    outputs = [torch.randn((2, 3, *head.shape[2:])) for head in prepared["target"]]
    terms = trainer.loss_terms(outputs, prepared)
    assert asked == [(2,)] * sum(weight > 0 for weight in trainer.head_weights())
    assert (terms["exclusion"] > 0) == ("shell" in keys)


def test_exclusion_sums_over_resolutions(workspace, results):
    trainer = initialized(partial_labels={"exclusion_weight": 0.5})
    prepared = trainer.prepare_batch(batch_for(trainer, ["shell", "full"]), training=True)
    generator = torch.Generator().manual_seed(1)
    outputs = [torch.randn((2, 3, *head.shape[2:]), generator=generator) for head in prepared["target"]]
    expected = 0.0
    for weight, logits, target in zip(trainer.head_weights(), outputs, prepared["target"]):
        p, f = softmax(logits.double().numpy())[0, 2], (target[0, 0] > 0).numpy()
        expected += weight * 2 * p[f].sum() / (p.sum() + f.sum())
    assert trainer.loss_terms(outputs, prepared)["exclusion"].item() == pytest.approx(0.5 * expected, rel=1e-5)
