"""Every setting, changed from its default, changes what it is there to set."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from types import SimpleNamespace
from typing import Any, NamedTuple, get_args

import numpy as np
import pytest
import torch
from batchgeneratorsv2.transforms.utils.random import RandomTransform

from nnunet_ext.augmentation.genesis_corruptions import BezierIntensity, LocalShuffling, Painting
from nnunet_ext.augmentation.registration_error import Misalignment
from nnunet_ext.errors import UserError
from nnunet_ext.finetuning.lora import adapted_layers
from nnunet_ext.networks.multi_decoder import FeatureDropout
from nnunet_ext.plans.settings import merged, settings_model
from nnunet_ext.techniques import Section
from nnunet_ext.trainers import (
    nnUNetTrainerConfigurable,
    nnUNetTrainerDBDMP,
    nnUNetTrainerDGST,
    nnUNetTrainerDMPLS,
    nnUNetTrainerDualEncoder,
    nnUNetTrainerFineTune,
    nnUNetTrainerLoRA,
    nnUNetTrainerMixUp,
    nnUNetTrainerModelsGenesis,
    nnUNetTrainerPartialCE,
    nnUNetTrainerTDNet,
)
from support.changed_trainers import batch_of, changed_trainer
from support.tiny_data import IGNORE

KINDS = {
    nnUNetTrainerDualEncoder: "prior",
    nnUNetTrainerPartialCE: "ignore",
    nnUNetTrainerDMPLS: "ignore",
    nnUNetTrainerTDNet: "ignore",
}


SETTINGS = settings_model()


class Times(NamedTuple):
    """A multiple of what is seen with the default."""

    factor: float


class Case(NamedTuple):
    """How the effect of a setting is seen.

    Attributes:
        trainer: one that the setting is for.
        value: what it is changed to.
        probe: from an initialized trainer to what can be seen.
        expected: what is seen then, `Times` for a multiple of what is seen with the default; None for anything else.
        beside: settings that hold with both.
    """

    trainer: type
    value: Any
    probe: Callable[[Any], Any]
    expected: Any = None
    beside: Mapping[str, Any] = {}


# ---------------------------------------------------------------------- what is seen of any training


def length(trainer: Any) -> list[int]:
    """Steps, validation batches and epochs of a run in which nothing is computed."""
    counts = dict.fromkeys(("train_step", "validation_step", "on_epoch_end"), 0)

    def counted(name: str) -> Callable[..., None]:
        def count(*_: Any) -> None:
            counts[name] += 1

        return count

    for name in ("train", "train_epoch", "epoch", "validation_epoch"):
        for moment in ("start", "end"):
            setattr(trainer, f"on_{name}_{moment}", lambda *_: None)
    for name in counts:
        setattr(trainer, name, counted(name))
    trainer.dataloader_train = trainer.dataloader_val = itertools.repeat({})
    trainer.run_training()
    return list(counts.values())


def saved_epochs(trainer: Any) -> list[int]:
    """After which epochs, by their number, the latest checkpoint is written."""
    saved = []
    trainer.save_checkpoint = lambda file: saved.append(trainer.current_epoch) if "latest" in file else None
    trainer.print_to_log_file = lambda *_: None
    trainer.logger = SimpleNamespace(
        log=lambda *_: None,
        get_value=lambda name, step: [0.5] if "per_class" in name else 0.5,
        plot_progress_png=lambda _: None,
    )
    for _ in range(trainer.num_epochs):
        trainer.on_epoch_end()
    return saved


def of_optimizer(key: str) -> Callable[[Any], Any]:
    return lambda trainer: trainer.optimizer.param_groups[0][key]


def sure_of_foreground(trainer: Any) -> list[bool]:
    """Of each sample of a batch, whether it is sure to hold foreground."""
    loader = trainer.get_dataloaders()[0].data_loader
    return [bool(loader.get_do_oversample(sample)) for sample in range(trainer.batch_size)]


def last_kernel(trainer: Any) -> torch.Tensor:
    return trainer.network.decoder.stages[-1].convs[0].conv.weight


def layouts(trainer: Any) -> list[bool]:
    """Whether weights and data have their channels last."""
    trainer._settle_memory_format()
    batch = trainer.prepare_batch({"data": torch.zeros(2, 3, 4, 4, 4), "target": torch.zeros(2, 1)}, training=True)
    return [one.is_contiguous(memory_format=torch.channels_last_3d) for one in (last_kernel(trainer), batch["data"])]


# ---------------------------------------------------------------------- what is seen of a technique


def random_batch(trainer: Any) -> dict[str, Any]:
    """Images, and labels of which most are background or unknown."""
    generator = torch.Generator().manual_seed(0)
    shape = (2, 1, *trainer.configuration_manager.patch_size)
    labels = torch.randint(0, 3, shape, generator=generator)
    hidden = 0 if trainer.label_manager.ignore_label is None else IGNORE
    labels[torch.rand(shape, generator=generator) < 0.7] = hidden
    data = torch.randn((2, trainer.num_input_channels, *shape[2:]), generator=generator)
    return {**batch_of(trainer, labels), "data": data}


def terms(trainer: Any, *, epoch: int = 0, outputs: Any = None) -> dict[str, float]:
    """The terms of the loss for fixed outputs and draws."""
    batch = random_batch(trainer)
    trainer.current_epoch, trainer.shared_rng = epoch, np.random.default_rng(5)
    values = trainer.loss_terms(random_outputs(trainer) if outputs is None else outputs, batch)
    return {name: float(value.detach()) for name, value in values.items()}


def random_outputs(trainer: Any) -> Any:
    """Logits at every resolution, of each decoder where there are several."""
    generator = torch.Generator().manual_seed(1)
    branches = 1 + len(getattr(trainer.network, "auxiliary_decoders", ()))
    heads = [one.shape[2:] for one in random_batch(trainer)["target"]]
    made = [[2 * torch.randn((2, 3, *shape), generator=generator) for shape in heads] for _ in range(branches)]
    return made if branches > 1 else made[0]


def term(name: str, epoch: int = 0) -> Callable[[Any], float]:
    return lambda trainer: terms(trainer, epoch=epoch).get(name, 0.0)


def terms_present(trainer: Any) -> list[str]:
    return sorted(terms(trainer))


def gradient_of_consistency(trainer: Any) -> list[float]:
    outputs, batch = random_outputs(trainer), random_batch(trainer)
    outputs[0][0].requires_grad_()
    trainer.loss_terms(outputs, batch)["uspc"].backward()
    return outputs[0][0].grad.flatten().tolist()


def channel_dropout(trainer: Any) -> float:
    """The share of channels that is dropped before the second decoder."""
    dropout = next(module for module in trainer.network.modules() if isinstance(module, FeatureDropout)).train()
    torch.manual_seed(0)
    (feature,) = dropout([torch.ones(1, 10_000, *[1] * len(trainer.configuration_manager.patch_size))])
    return (feature == 0).float().mean().item()


def bottleneck_dropout(trainer: Any) -> float:
    """The mean share of the bottleneck that is dropped before another decoder."""
    torch.manual_seed(0)
    dropout = trainer.network.perturbations[1].train()
    return float(np.mean([(dropout([torch.ones(1, 1, 1000)])[0] == 0).float().mean() for _ in range(200)]))


def dilations(trainer: Any) -> list[int]:
    decoders = (trainer.network.decoder, *trainer.network.auxiliary_decoders)
    return [decoder.stages[-1].convs[0].conv.dilation[0] for decoder in decoders]


def mixing(trainer: Any, passes: int = 100) -> list[dict[str, Any]]:
    """Prepared batches whose first sample is zero and whose second is one."""
    trainer.rng, trainer.shared_rng = np.random.default_rng(1), np.random.default_rng(2)
    batch = random_batch(trainer)
    batch["data"] = torch.arange(2.0).reshape(2, *[1] * (batch["data"].ndim - 1)).expand(batch["data"].shape)
    return [trainer.prepare_batch(batch, training=True) for _ in range(passes)]


def is_blended(trainer: Any) -> bool:
    """Whether a mixed patch holds anything between its two sources."""
    (batch,) = mixing(trainer, 1)
    return bool(((batch["mixed"]["data"] != 0) & (batch["mixed"]["data"] != 1)).any())


def deviation_of_ratios(trainer: Any) -> float:
    return float(np.std([batch["mixed"]["data"][0].mean() for batch in mixing(trainer)]))


def share_of_mixed_steps(trainer: Any) -> float:
    return float(np.mean(["mixed" in batch for batch in mixing(trainer)]))


def mixed_terms(trainer: Any) -> dict[str, torch.Tensor]:
    (batch,) = mixing(trainer, 1)
    return trainer.loss_terms(trainer.forward(batch), batch)


def probability_of(corruption: type) -> Callable[[Any], float]:
    def probe(trainer: Any) -> float:
        transforms = trainer.get_training_transforms((16, 16, 16), None, None, None).transforms
        random = [one for one in transforms if isinstance(one, RandomTransform)]
        return next(one.apply_probability for one in random if isinstance(one.transform, corruption))

    return probe


def start(trainer: Any) -> str:
    """What a fine-tuning starts from: "nothing" (it refuses), "random" weights, "source" or its "body" alone."""
    source = torch.load("source.pth", weights_only=False)["network_weights"]
    try:
        trainer.load_start()
    except UserError:
        return "nothing"
    equal = {name: torch.equal(value, source[name]) for name, value in trainer.network.state_dict().items()}
    if all(equal.values()):
        return "source"
    return "body" if all(value for name, value in equal.items() if ".seg_layers." not in name) else "random"


def adapter(trainer: Any) -> Any:
    return next(adapted_layers(trainer.network))


def dropped_inputs_of_adapters(trainer: Any) -> float:
    torch.manual_seed(0)
    return float((adapter(trainer).lora_dropout["default"].train()(torch.ones(10_000)) == 0).float().mean())


def factor_of_adapters(trainer: Any) -> float:
    """What an adapter whose weights are all one adds, by its inner size."""
    layer = adapter(trainer).eval()
    data = torch.ones(1, layer.base_layer.in_channels, 3, 3, 3)
    before = layer(data)
    for part in (layer.lora_A, layer.lora_B):
        torch.nn.init.ones_(part["default"].weight)
    kernel = layer.lora_A["default"].weight
    return (layer(data) - before)[0, 0, 1, 1, 1].item() / kernel.numel()


def step_of_dgst(trainer: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """The gradient of a kernel as (rows, entries of a row), and which of its entries a step has moved."""
    torch.manual_seed(3)
    trainer.shared_rng = np.random.default_rng(0)
    weight = last_kernel(trainer)
    for parameter in trainer.network.parameters():
        parameter.grad = torch.randn_like(parameter)
    gradient, before = weight.grad.clone(), weight.detach().clone()
    trainer.edit_gradients()
    trainer.optimizer_step()
    rows = trainer.rows[weight]
    return rows.matrix(gradient), rows.matrix(weight.detach() != before)


def moved_in_a_row(trainer: Any) -> list[int]:
    """The smallest and largest number of entries that a step moves in a row of a kernel."""
    counts = step_of_dgst(trainer)[1].sum(dim=1)
    return [int(counts.min()), int(counts.max())]


def moves_whole_rows(trainer: Any) -> bool:
    return bool(step_of_dgst(trainer)[1].all())


def moves_the_largest(trainer: Any) -> bool:
    gradient, moved = step_of_dgst(trainer)
    return torch.equal(gradient.abs().argmax(dim=1), moved.int().argmax(dim=1))


def inputs_of(part: str) -> Callable[[Any], list[int]]:
    """Which input channels change what an encoder sees."""

    def probe(trainer: Any) -> list[int]:
        seen: list[torch.Tensor] = []
        encoder = {"current": trainer.network.encoder.stages[0], "prior": trainer.network.context_encoder}[part]
        encoder.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
        data = torch.arange(4.0).reshape(1, 4, 1, 1, 1).expand(2, 4, 16, 16, 16)
        trainer.network(data)
        return [int(channel) for channel in seen[0][0, :, 0, 0, 0]]

    return probe


def channels_with_intensities(trainer: Any) -> list[int]:
    """Which channels the intensity transforms of training touch."""
    arguments = ((16, 16, 16), (0, 0), trainer._get_deep_supervision_scales(), (), False)
    transforms = [getattr(one, "transform", None) for one in trainer.get_training_transforms(*arguments).transforms]
    return next(one.channels for one in transforms if hasattr(one, "channels") and not isinstance(one, Misalignment))


def share_without_prior(trainer: Any) -> float:
    trainer.rng = np.random.default_rng(0)
    batch = {"data": torch.ones(500, 4, 1, 1, 1), "target": torch.zeros(500, 1, 1, 1, 1)}
    return float((trainer.prepare_batch(batch, training=True)["data"][:, 1:] == 0).float().mean())


def misalignment(trainer: Any) -> list[float]:
    """The probability of a moved prior, and the largest shift and rotation."""
    arguments = ((16, 16, 16), (0, 0), trainer._get_deep_supervision_scales(), (), False)
    for one in trainer.get_training_transforms(*arguments).transforms:
        if isinstance(getattr(one, "transform", None), Misalignment):
            drawn = [one.transform.get_parameters() for _ in range(200)]
            largest = [float(np.abs([draw[key] for draw in drawn]).max()) for key in ("shift", "rotation")]
            return [one.apply_probability, *largest]
    return [0.0, 0.0, 0.0]


def misaligned_by(place: int) -> Callable[[Any], float]:
    return lambda trainer: misalignment(trainer)[place]


FROM_SOURCE = {"fine_tuning": {"source": "source.pth"}}
ANYHOW = {"fine_tuning": {"allow_random_start": True}}
ALWAYS_MISALIGNED = {"dual_encoder": {"misalignment_probability": 1.0}}
NO_DECAY = {"weight_decay": 0.0}
SHORT = {"num_epochs": 4, "num_iterations_per_epoch": 5, "num_val_iterations_per_epoch": 3}
ROLES = {"dual_encoder": {"channels": {"current": [0], "prior_labels": [3]}}}
SHORTER = {name: {key: value for key, value in SHORT.items() if key != name} for name in SHORT}

BASE, DBDMP, DMPLS, TDNET = nnUNetTrainerConfigurable, nnUNetTrainerDBDMP, nnUNetTrainerDMPLS, nnUNetTrainerTDNet
MIXUP, GENESIS, DUAL = nnUNetTrainerMixUp, nnUNetTrainerModelsGenesis, nnUNetTrainerDualEncoder
FINE_TUNE, LORA, DGST = nnUNetTrainerFineTune, nnUNetTrainerLoRA, nnUNetTrainerDGST

CASES = {
    "num_epochs": Case(BASE, 4, length, [20, 12, 4], SHORTER["num_epochs"]),
    "num_iterations_per_epoch": Case(BASE, 5, length, [20, 12, 4], SHORTER["num_iterations_per_epoch"]),
    "num_val_iterations_per_epoch": Case(BASE, 3, length, [20, 12, 4], SHORTER["num_val_iterations_per_epoch"]),
    "initial_lr": Case(BASE, 0.5, of_optimizer("lr"), 0.5),
    "weight_decay": Case(BASE, 0.5, of_optimizer("weight_decay"), 0.5),
    "momentum": Case(BASE, 0.5, of_optimizer("momentum"), 0.5),
    "nesterov": Case(BASE, False, of_optimizer("nesterov"), False),
    "optimizer": Case(BASE, "adamw", lambda trainer: type(trainer.optimizer).__name__, "AdamW"),
    "oversample_foreground_percent": Case(BASE, 1.0, sure_of_foreground, [True, True]),
    "save_every": Case(BASE, 40, saved_epochs, [39, 79], {"num_epochs": 100}),
    "seed": Case(BASE, 7, lambda trainer: last_kernel(trainer).flatten().tolist()),
    "memory_format": Case(BASE, "channels_last", layouts, [True, True]),
    "mixup.kind": Case(MIXUP, "cutmix", is_blended, False),
    "mixup.mode": Case(
        MIXUP, "alternate", lambda t: sorted(mixed_terms(t)), ["mixup"], {"mixup": {"probability": 1.0}}
    ),
    "mixup.alpha": Case(MIXUP, 1000.0, deviation_of_ratios, pytest.approx(0.011, rel=0.3)),
    "mixup.weight": Case(MIXUP, 3.0, lambda trainer: float(mixed_terms(trainer)["mixup"].detach()), Times(3)),
    "mixup.probability": Case(MIXUP, 0.3, share_of_mixed_steps, pytest.approx(0.3, abs=0.12)),
    "fine_tuning.source": Case(FINE_TUNE, "source.pth", start, "source", ANYHOW),
    "fine_tuning.keep_heads": Case(FINE_TUNE, False, start, "body", FROM_SOURCE),
    "fine_tuning.allow_random_start": Case(FINE_TUNE, True, start, "random"),
    "fine_tuning.lora_rank": Case(LORA, 3, lambda trainer: adapter(trainer).lora_A["default"].weight.shape[0], 3),
    "fine_tuning.lora_alpha": Case(LORA, 64.0, factor_of_adapters, 2.0),
    "fine_tuning.lora_dropout": Case(LORA, 0.6, dropped_inputs_of_adapters, pytest.approx(0.6, abs=0.02)),
    "models_genesis.dropout": Case(GENESIS, 0.2, channel_dropout, pytest.approx(0.2, abs=0.02)),
    "models_genesis.shuffling_probability": Case(GENESIS, 0.1, probability_of(LocalShuffling), 0.1),
    "models_genesis.intensity_probability": Case(GENESIS, 0.2, probability_of(BezierIntensity), 0.2),
    "models_genesis.painting_probability": Case(GENESIS, 0.3, probability_of(Painting), 0.3),
    "dbdmp.dropout": Case(DBDMP, 0.2, channel_dropout, pytest.approx(0.2, abs=0.02)),
    "dbdmp.supervised_weight": Case(DBDMP, 1.0, term("symmetric_ce"), Times(4)),
    "dbdmp.tversky_weight": Case(DBDMP, 3.0, term("tversky"), Times(3)),
    "dbdmp.tversky_alpha": Case(DBDMP, 0.9, term("tversky")),
    "dbdmp.tversky_beta": Case(DBDMP, 0.1, term("tversky")),
    "dbdmp.ce_weight": Case(DBDMP, 1.6, term("symmetric_ce"), Times(2), {"dbdmp": {"rce_weight": 0.0}}),
    "dbdmp.rce_weight": Case(DBDMP, 2.0, term("symmetric_ce"), Times(2), {"dbdmp": {"ce_weight": 0.0}}),
    "dbdmp.partial_ce_weight": Case(DBDMP, 3.0, term("partial_ce"), Times(3)),
    "dbdmp.pseudo_label_weight": Case(DBDMP, 0.0, terms_present, ["partial_ce", "symmetric_ce", "tversky"]),
    "dbdmp.ramp_epochs": Case(DBDMP, 0, term("pseudo_labels"), Times(np.exp(5))),
    "dbdmp.temperature": Case(DBDMP, 0.05, term("pseudo_labels")),
    "partial_ce.entropy_weight": Case(nnUNetTrainerPartialCE, 0.5, terms_present, ["entropy", "partial_ce"]),
    "dmpls.dropout": Case(DMPLS, 0.2, channel_dropout, pytest.approx(0.2, abs=0.02)),
    "dmpls.supervision": Case(DMPLS, "dice_ce", terms_present, ["dice_ce", "pseudo_labels"]),
    "dmpls.pseudo_label_weight": Case(DMPLS, 1.0, term("pseudo_labels"), Times(2)),
    "dmpls.pseudo_label_dice": Case(DMPLS, "foreground", term("pseudo_labels")),
    "dmpls.ramp_epochs": Case(DMPLS, 10, term("pseudo_labels", epoch=5), Times(np.exp(-5 / 4))),
    "tdnet.dilations": Case(TDNET, [1, 2], dilations, [1, 2]),
    "tdnet.dropout": Case(TDNET, 0.2, bottleneck_dropout, pytest.approx(0.1, abs=0.02)),
    "tdnet.supervision": Case(TDNET, "dice_ce", terms_present, ["dice_ce", "mpcc", "uspc"]),
    "tdnet.uspc_weight": Case(TDNET, 5.0, term("uspc"), Times(0.5)),
    "tdnet.mpcc_weight": Case(TDNET, 5.0, term("mpcc"), Times(5)),
    "tdnet.uncertainty_weights": Case(TDNET, False, term("uspc")),
    "tdnet.detach_target": Case(TDNET, False, gradient_of_consistency),
    "tdnet.ramp_epochs": Case(TDNET, 0, term("uspc"), Times(np.exp(5))),
    "dual_encoder.fusion": Case(
        DUAL, "gated", lambda trainer: type(trainer.network.fusions[0]).__name__, "GatedFusion"
    ),
    "dual_encoder.context_width": Case(
        DUAL, 0.5, lambda trainer: trainer.network.context_encoder.output_channels[:2], [2, 4]
    ),
    "dual_encoder.fuse_skips": Case(DUAL, True, lambda trainer: len(trainer.network.fusions), 5),
    "dual_encoder.prior_dropout": Case(DUAL, 0.5, share_without_prior, pytest.approx(0.5, abs=0.07)),
    "dual_encoder.misalignment_probability": Case(DUAL, 0.4, misaligned_by(0), 0.4),
    "dual_encoder.misalignment_shift": Case(
        DUAL, 9.0, misaligned_by(1), pytest.approx(9.0, rel=0.05), ALWAYS_MISALIGNED
    ),
    "dual_encoder.misalignment_rotation": Case(
        DUAL, 30.0, misaligned_by(2), pytest.approx(30.0, rel=0.05), ALWAYS_MISALIGNED
    ),
    "dual_encoder.channels.current": Case(DUAL, [0, 1], inputs_of("current"), [0, 1], ROLES),
    "dual_encoder.channels.prior_image": Case(DUAL, [2], channels_with_intensities, [0, 2], ROLES),
    "dual_encoder.channels.prior_labels": Case(DUAL, [1, 2], inputs_of("prior"), [1, 2], ROLES),
    "dgst.top_k": Case(DGST, 3, moved_in_a_row, [3, 3]),
    "dgst.mode": Case(DGST, "grad_mask", moves_whole_rows, True, {"weight_decay": 0.5}),
    "dgst.selection": Case(DGST, "random", moves_the_largest, False),
}


# ---------------------------------------------------------------------- the tests


def every_setting(section: type[Section] = SETTINGS, prefix: str = "") -> Iterator[str]:
    """Every key, those of sections with the section's name before them."""
    for name, field in section.model_fields.items():
        options = [one for one in (field.annotation, *get_args(field.annotation)) if isinstance(one, type)]
        inner = [one for one in options if issubclass(one, Section)]
        yield from every_setting(inner[0], f"{prefix}{name}.") if inner else [f"{prefix}{name}"]


def nested(path: str, value: Any) -> dict[str, Any]:
    """A value as settings: ``a.b`` is the key ``b`` of the section ``a``."""
    for key in reversed(path.split(".")):
        value = {key: value}
    return value


def same(found: Any, expected: Any) -> bool:
    """Whether they are equal, numbers to rounding."""
    numbers = isinstance(expected, float) or (isinstance(expected, list) and isinstance(expected[0], float))
    return bool(found == (pytest.approx(expected, rel=1e-4) if numbers else expected))


@pytest.fixture
def probed(workspace, results, monkeypatch):
    """What a case sees of a trainer with some settings more; a checkpoint to start from lies beside it."""
    monkeypatch.chdir(results)

    def built(trainer: type, settings: Mapping[str, Any]) -> Any:
        made = changed_trainer(trainer, "3d_tiny_without_settings", kind=KINDS.get(trainer, "labels"), **settings)
        torch.manual_seed(0)
        made.initialize()
        return made

    def probe(case: Case, settings: Mapping[str, Any]) -> Any:
        if case.probe is start:
            built(nnUNetTrainerConfigurable, {"seed": 1}).save_checkpoint("source.pth")
        return case.probe(built(case.trainer, settings))

    return probe


def test_every_setting_has_a_case():
    assert sorted(every_setting()) == sorted(CASES)


@pytest.mark.parametrize("name", CASES)
def test_a_changed_setting_changes_what_it_sets(probed, name):
    case = CASES[name]
    before = probed(case, case.beside)
    after = probed(case, merged(case.beside, nested(name, case.value)))
    assert not same(after, before)
    if case.expected is not None:
        expected = case.expected.factor * before if isinstance(case.expected, Times) else case.expected
        assert same(after, expected)
