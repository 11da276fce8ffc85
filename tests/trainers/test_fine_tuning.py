"""Where a fine-tuning starts from, what its strategy lets move, and how it reports what did."""

import json
import shutil

import pytest
import torch
from nnunetv2.run.load_pretrained_weights import load_pretrained_weights
from nnunetv2.run.run_training import maybe_load_checkpoint
from torch.overrides import TorchFunctionMode

from nnunet_ext.checkpoints.description import planned_model
from nnunet_ext.diagnosis.planned_training import check_fine_tuning
from nnunet_ext.errors import UserError
from nnunet_ext.files import sha256
from nnunet_ext.finetuning import lora
from nnunet_ext.finetuning.strategies import Freedom
from nnunet_ext.plans.plans_file import add_configurations
from nnunet_ext.trainers import nnUNetTrainerFineTune
from nnunet_ext.trainers.mixup import MixUpMixin
from nnunet_ext.trainers.resuming import ALLOW_CHANGED_SETTINGS
from support.changed_trainers import changed_trainer
from support.nnunet_runs import build_trainer, train
from support.public_weights import nnssl
from support.tiny_data import dataset_name

BASELINES = [
    "nnUNetTrainerFineTune",
    "nnUNetTrainerHeadOnly",
    "nnUNetTrainerDecoderOnly",
    "nnUNetTrainerBiasOnly",
    "nnUNetTrainerNormOnly",
    "nnUNetTrainerLoRA",
    "nnUNetTrainerDGST",
]
LENGTH = {"num_epochs": 1, "num_iterations_per_epoch": 3, "num_val_iterations_per_epoch": 1, "save_every": 1, "seed": 1}


@pytest.fixture(scope="session")
def source(workspace, tmp_path_factory):
    """A trained model to start from."""
    patch = pytest.MonkeyPatch()
    folder = tmp_path_factory.mktemp("source model ü")
    patch.setenv("nnUNet_results", str(folder))
    patch.setenv("nnUNet_n_proc_DA", "0")
    trainer = train("nnUNetTrainerConfigurable")
    patch.undo()
    return f"{trainer.output_folder}/checkpoint_final.pth"


@pytest.fixture
def configured(workspace):
    """Write configurations with settings into the tiny plans; taken out again afterwards."""
    file = workspace.preprocessed / dataset_name("labels") / "nnUNetPlans.json"
    kept = file.read_bytes()

    def write(name, *, network=None, **settings):
        content = {"inherits_from": "3d_fullres", **json.loads(kept)["configurations"]["3d_tiny"]}
        content["architecture"]["arch_kwargs"].update(network or {})
        content["nnunet_ext"] = {**LENGTH, **settings}
        add_configurations(file, {name: content}, command="test", force=True)
        return name

    yield write
    file.write_bytes(kept)


def weights(file):
    return torch.load(file, map_location="cpu", weights_only=False)["network_weights"]


def differing(first, second):
    return {name for name in first if not torch.equal(first[name], second[name])}


@pytest.mark.parametrize("trainer", BASELINES)
def test_without_a_source_nothing_is_trained(results, configured, trainer):
    built = build_trainer(trainer, configured("without_source"))
    with pytest.raises(UserError, match=r"fine_tuning\.source=CHECKPOINT\.pth.*-pretrained_weights"):
        built.run_training()
    assert not list(results.rglob("*.pth"))


@pytest.mark.parametrize("trainer", BASELINES)
def test_starts_from_the_source_and_moves_what_its_strategy_allows(results, configured, source, trainer):
    trained = train(trainer, configured("from_source", fine_tuning={"source": source}))
    start, end = weights(source), weights(f"{trained.output_folder}/checkpoint_final.pth")
    assert set(start) == set(end)  # the plain network's names, for LoRA too
    moved = {name for name in trained.freedoms if not torch.equal(start[name], end[name])}
    allowed = {name for name, freedom in trained.freedoms.items() if freedom is not Freedom.FROZEN}
    if trainer == "nnUNetTrainerLoRA":
        allowed |= {name for name in trained.freedoms if name.endswith("conv.weight")}
    assert moved <= allowed
    # nothing that may move stands still but what gets no gradient: a bias before an instance norm (only rounding), and
    # the head of the lowest resolution, which counts nothing in nnU-Net's loss
    without_gradient = ("conv.bias", "seg_layers.0.weight", "seg_layers.0.bias")
    assert {name for name in allowed - moved if not name.endswith(without_gradient)} == set()
    text = next(results.rglob("training_log_*.txt")).read_text()
    assert "Fine-tuning from" in text


@pytest.mark.parametrize("trainer", ["nnUNetTrainerHeadOnly", "nnUNetTrainerLoRA", "nnUNetTrainerNormOnly"])
def test_statistics_of_frozen_normalisations_stay(results, configured, trainer):
    """A forward pass of a training moves those of batch norm, which no optimizer holds back."""
    batch_norm = {"norm_op": "torch.nn.modules.batchnorm.BatchNorm3d"}
    configuration = configured("batch_norm", network=batch_norm, fine_tuning={"allow_random_start": True})
    state = train(trainer, configuration).network.state_dict()
    means = [value for name, value in state.items() if name.endswith("running_mean")]
    assert means
    assert all(bool(mean.any()) == (trainer == "nnUNetTrainerNormOnly") for mean in means)


def test_keep_heads_off_starts_with_new_heads(results, configured, source):
    heads = {}
    for keep in (True, False):
        built = build_trainer(
            "nnUNetTrainerFineTune", configured("heads", fine_tuning={"source": source, "keep_heads": keep})
        )
        built.initialize()
        built.load_start()
        heads[keep] = built.network.state_dict()
    differ = differing(heads[True], heads[False])
    assert differ
    assert all(".seg_layers." in name for name in differ)
    assert not differing(weights(source), heads[True])


def test_pretrained_weights_count_as_a_start_and_come_first(results, configured, source, tmp_path):
    other = tmp_path / "other.pth"
    checkpoint = torch.load(source, map_location="cpu", weights_only=False)
    checkpoint["network_weights"] = {name: 2 * tensor for name, tensor in checkpoint["network_weights"].items()}
    torch.save(checkpoint, other)
    built = build_trainer("nnUNetTrainerFineTune", configured("both", fine_tuning={"source": source}))
    maybe_load_checkpoint(built, False, False, str(other))
    built.load_start()
    state = built.network.state_dict()
    assert all(torch.equal(state[n], 2 * w) for n, w in weights(source).items() if ".seg_layers." not in n)
    text = next(results.rglob("training_log_*.txt")).read_text()
    assert "-pretrained_weights loaded" in text
    assert "is not used" in text


@pytest.mark.parametrize("trainer", BASELINES)
def test_nnunet_loads_pretrained_weights_into_every_strategy(results, configured, source, trainer):
    built = build_trainer(trainer, configured("pretrained"))
    built.initialize()
    load_pretrained_weights(built.network, source)
    built.load_start()
    state = built.network.state_dict()
    assert all(torch.equal(state[n], w) for n, w in weights(source).items() if ".seg_layers." not in n)


def test_continuing_does_not_need_the_source_any_more(results, configured, source, tmp_path):
    moved_away = tmp_path / "source.pth"
    shutil.copy(source, moved_away)
    configured("goes_on", num_epochs=2, fine_tuning={"source": str(moved_away)})
    built = build_trainer("nnUNetTrainerDGST", "goes_on")
    built.on_train_start()
    built.on_epoch_start()
    built.on_train_epoch_start()
    built.on_train_epoch_end([built.train_step(next(built.dataloader_train)) for _ in range(3)])
    built.on_validation_epoch_start()
    built.on_validation_epoch_end([built.validation_step(next(built.dataloader_val))])
    built.on_epoch_end()
    moved_away.unlink()
    trained = train("nnUNetTrainerDGST", "goes_on", resume=True)
    assert trained.current_epoch == 2
    shares = trained.logger.get_value("moved/convolution", step=None)
    assert 0 < shares[0] < shares[1] < 1
    logs = [file.read_text() for file in results.rglob("training_log_*.txt")]
    assert sum(text.count("Fine-tuning from") for text in logs) == 1


def test_continuing_before_the_first_checkpoint_starts_from_the_source(results, configured, source):
    trained = train("nnUNetTrainerHeadOnly", configured("first_time", fine_tuning={"source": source}), resume=True)
    end = weights(f"{trained.output_folder}/checkpoint_final.pth")
    assert all(".seg_layers." in name for name in differing(weights(source), end))


def test_the_source_may_use_the_home_folder_and_variables(results, configured, source, tmp_path, monkeypatch):
    shutil.copy(source, tmp_path / "start here.pth")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("MODELS", str(tmp_path))
    for path in ("~/start here.pth", "$MODELS/start here.pth"):
        built = build_trainer("nnUNetTrainerFineTune", configured("expanded", fine_tuning={"source": path}))
        built.initialize()
        built.load_start()
        assert not differing(weights(source), built.network.state_dict())


def test_a_missing_source_is_named(results, configured):
    built = build_trainer("nnUNetTrainerFineTune", configured("gone", fine_tuning={"source": "/nowhere/model.pth"}))
    with pytest.raises(UserError, match=r"/nowhere/model\.pth"):
        built.run_training()


def test_what_moved_is_in_the_log_the_curves_and_the_checkpoint(results, configured, source):
    trained = train("nnUNetTrainerDGST", configured("reported", fine_tuning={"source": source}))
    checkpoint = torch.load(f"{trained.output_folder}/checkpoint_final.pth", weights_only=False)
    start, end = weights(source), checkpoint["network_weights"]
    shares = checkpoint["nnunet_ext"]["moved"]["shares"]
    names = [name for name, role in trained.movement.roles.items() if role == "convolution"]
    entries = sum(start[name].numel() for name in names)
    moved = sum(int((start[name] != end[name]).sum()) for name in names)
    assert shares["convolution"] == [moved, entries]
    # three steps move at most three entries of a kernel
    assert 0 < moved <= 3 * sum(trained.rows[p].count for n, p in trained.network.named_parameters() if n in names)
    # the head of the lowest resolution has no weight in the loss
    heads = [name for name, role in trained.movement.roles.items() if role == "head" and ".seg_layers.0." not in name]
    assert shares["head"] == [sum(start[n].numel() for n in heads), sum(p.numel() for p in _heads(trained))]
    assert checkpoint["logging"]["moved/convolution"] == [pytest.approx(moved / entries)]
    text = next(results.rglob("training_log_*.txt")).read_text()
    assert f"moved/convolution {moved / entries:.4f}" in text
    assert f"convolution             {100 * moved / entries:7.3f} % of {entries:,}" in text


def test_l2_sp_replaces_the_decay_of_what_the_source_has(results, configured, source):
    settings = {"source": source, "l2_sp": 0.1, "keep_heads": False}
    trained = train("nnUNetTrainerFineTune", configured("anchored", weight_decay=0.5, fine_tuning=settings))
    decays = {name: group["weight_decay"] for name, group in _groups(trained).items()}
    assert {name for name, decay in decays.items() if decay == 0.5} == {n for n in decays if ".seg_layers." in n}
    assert {decay for name, decay in decays.items() if ".seg_layers." not in name} == {0.0}
    start = weights(source)
    for name, tensor in trained.anchor.start.items():
        assert torch.equal(tensor, start[name])
    assert set(trained.anchor.start) == {name for name in decays if ".seg_layers." not in name}
    (distance,) = trained.logger.get_value("loss/l2_sp", step=None)
    assert distance > 0


class MixedFineTuning(MixUpMixin, nnUNetTrainerFineTune):
    """MixUp before fine-tuning."""


def test_l2_sp_counts_in_steps_whose_loss_another_technique_replaces(results, configured, source):
    settings = {"source": source, "l2_sp": 0.1}
    name = configured("mixed", fine_tuning=settings, mixup={"mode": "alternate", "probability": 1.0})
    trained = changed_trainer(MixedFineTuning, name)
    trained.run_training()
    logged = trained.logger.local_logger.my_fantastic_logging
    assert "loss/mixup" in logged
    assert "loss/segmentation" not in logged
    (distance,) = logged["loss/l2_sp"]
    assert distance > 0


def test_no_double_precision_on_the_device(results, configured, source):
    """Apple's GPUs have none."""

    class Watch(TorchFunctionMode):
        def __init__(self):
            super().__init__()
            self.moved, self.doubled = [], []

        def __torch_function__(self, function, types, args=(), kwargs=None):
            result = function(*args, **(kwargs or {}))
            if function is torch.Tensor.cpu:
                self.moved.append(result)
            if isinstance(result, torch.Tensor) and result.dtype == torch.float64:
                self.doubled += [one for one in args if isinstance(one, torch.Tensor) and one.dtype != torch.float64]
            return result

    trained = build_trainer("nnUNetTrainerFineTune", configured("single", fine_tuning={"source": source, "l2_sp": 0.1}))
    with Watch() as watch:
        trained.run_training()
    allowed = {id(one) for one in watch.moved}
    assert watch.doubled
    assert not [one.shape for one in watch.doubled if id(one) not in allowed]


@pytest.mark.parametrize("trainer", ["nnUNetTrainerFineTune", "nnUNetTrainerLoRA", "nnUNetTrainerDGST"])
def test_strong_l2_sp_keeps_the_network_nearer_to_its_start(results, configured, source, trainer):
    start, distances = weights(source), []
    for number, strength in enumerate((0.0, 20.0)):
        settings = {"source": source, "l2_sp": strength}
        options = {"initial_lr": 1e-2, "momentum": 0.0, "num_iterations_per_epoch": 6}
        trained = train(trainer, configured(f"held_{number}", fine_tuning=settings, **options))
        end = weights(f"{trained.output_folder}/checkpoint_final.pth")
        names = trained.freedoms
        distances.append(sum(float((start[name] - end[name]).square().sum()) for name in names))
    assert distances[1] < distances[0]


def test_copied_weights_learn_at_a_lower_rate(results, configured, source):
    settings = {"source": source, "copied_lr_factor": 0.1, "keep_heads": False}
    trained = train("nnUNetTrainerFineTune", configured("two_rates", initial_lr=1e-2, fine_tuning=settings))
    rates = {name: group["lr"] for name, group in _groups(trained).items()}
    assert {rate for name, rate in rates.items() if ".seg_layers." in name} == {1e-2}
    assert {rate for name, rate in rates.items() if ".seg_layers." not in name} == {1e-3}


def test_kernels_of_dgst_have_a_factor_beside_that_of_copied_weights(results, configured, source):
    settings = {"source": source, "copied_lr_factor": 0.5, "keep_heads": False}
    name = configured("kernels", num_epochs=1, fine_tuning=settings, dgst={"kernel_lr_factor": 4.0})
    trained = train("nnUNetTrainerDGST", name)
    factors = {name: group["lr_factor"] for name, group in _groups(trained).items()}
    kernels = {name for name, freedom in trained.freedoms.items() if freedom is Freedom.SELECTED}
    assert {name for name, factor in factors.items() if factor == 2.0} == kernels
    assert {name for name, factor in factors.items() if factor == 1.0} == {n for n in factors if ".seg_layers." in n}
    assert set(factors.values()) == {0.5, 1.0, 2.0}


def test_pretrained_weights_count_as_copied(results, configured, source):
    name = configured("copied", fine_tuning={"l2_sp": 0.1, "copied_lr_factor": 0.5})
    built = build_trainer("nnUNetTrainerFineTune", name)
    built.initialize()
    load_pretrained_weights(built.network, source)
    built.load_start()
    factors = {name: group["lr_factor"] for name, group in _groups(built).items()}
    assert {name for name, factor in factors.items() if factor == 1.0} == {n for n in factors if ".seg_layers." in n}
    assert set(built.anchor.start) == {name for name, factor in factors.items() if factor == 0.5}


@pytest.mark.parametrize(
    ("trainer", "more"),
    [("nnUNetTrainerFineTune", {}), ("nnUNetTrainerDGST", {"dgst": {"kernel_lr_factor": 4.0}})],
)
def test_resumed_training_equals_one_that_was_never_interrupted(trainer, more, results, configured, source):
    settings = {"source": source, "l2_sp": 0.5, "copied_lr_factor": 0.5, "warmup_epochs": 1, "keep_heads": False}
    options = {"num_epochs": 3, "fine_tuning": settings, **more}
    whole = train(trainer, configured("whole", **options))
    expected = weights(f"{whole.output_folder}/checkpoint_final.pth")
    stopped = build_trainer(trainer, configured("stopped", **options))
    stopped.num_epochs, stopped.on_train_end = 2, lambda: None
    stopped.run_training()
    resumed = train(trainer, "stopped", resume=True)
    assert resumed.current_epoch == 3
    assert not differing(weights(f"{resumed.output_folder}/checkpoint_final.pth"), expected)


def test_what_a_training_is_held_near_cannot_change(results, configured, source, monkeypatch):
    settings = {"source": source, "l2_sp": 0.0, "copied_lr_factor": 0.5}
    train("nnUNetTrainerFineTune", configured("changed", num_epochs=1, fine_tuning=settings))
    monkeypatch.setenv(ALLOW_CHANGED_SETTINGS, "1")
    for change in ({"l2_sp": 0.1}, {"copied_lr_factor": 1.0}):
        configured("changed", num_epochs=2, fine_tuning=settings | change)
        with pytest.raises(UserError, match=f"(?s)cannot go on with another value .*fine_tuning.{next(iter(change))}"):
            train("nnUNetTrainerFineTune", "changed", resume=True)


def test_adapters_that_were_learned_keep_their_factor(results, configured, source, monkeypatch):
    train("nnUNetTrainerLoRA", configured("lora", num_epochs=1, fine_tuning={"source": source}))
    monkeypatch.setenv(ALLOW_CHANGED_SETTINGS, "1")
    for change in ({"lora_alpha": 32.0}, {"lora_rank": 8}):
        configured("lora", num_epochs=2, fine_tuning={"source": source, **change})
        with pytest.raises(UserError, match=f"(?s)cannot go on with another value .*fine_tuning.{next(iter(change))}"):
            train("nnUNetTrainerLoRA", "lora", resume=True)


def test_settings_at_their_defaults_leave_the_optimizer_one_group(results, configured, source):
    built = build_trainer("nnUNetTrainerFineTune", configured("plain_optimizer", fine_tuning={"source": source}))
    built.initialize()
    built.load_start()
    (group,) = built.optimizer.param_groups
    assert group["lr_factor"] == 1.0
    assert group["params"] == list(built.network.parameters())
    assert built.anchor is None


@pytest.mark.parametrize("trainer", ["nnUNetTrainerFineTune", "nnUNetTrainerDGST", "nnUNetTrainerLoRA"])
def test_groups_are_as_few_as_rates_and_decays(results, configured, source, trainer):
    settings = {"source": source, "l2_sp": 0.1, "copied_lr_factor": 0.5, "keep_heads": False}
    built = build_trainer(trainer, configured("few_groups", fine_tuning=settings))
    built.initialize()
    built.load_start()
    assert len(built.optimizer.param_groups) == 2
    assert sum(len(group["params"]) for group in built.optimizer.param_groups) == len(
        built.named_trainable_parameters()
    )


def test_checkpoint_with_a_group_for_each_parameter_goes_on(results, configured, source):
    """As earlier versions wrote it, where L2-SP or a factor was on."""
    settings = {"source": source, "l2_sp": 0.5, "copied_lr_factor": 0.5, "keep_heads": False}
    options = {"num_epochs": 3, "fine_tuning": settings}
    whole = train("nnUNetTrainerFineTune", configured("whole_of_three", **options))
    stopped = build_trainer("nnUNetTrainerFineTune", configured("of_earlier", **options))
    stopped.num_epochs, stopped.on_train_end = 2, lambda: None
    stopped.run_training()
    file = f"{stopped.output_folder}/checkpoint_latest.pth"
    content = torch.load(file, weights_only=False)
    saved = content["optimizer_state"]
    places = [place for group in saved["param_groups"] for place in group["places"]]
    groups = [{**group, "params": [0]} for group in saved["param_groups"] for _ in group["params"]]
    for group in groups:
        del group["places"]
    in_order = sorted(range(len(places)), key=places.__getitem__)
    saved["state"] = {number: saved["state"][old] for number, old in enumerate(in_order) if old in saved["state"]}
    saved["param_groups"] = [{**groups[old], "params": [number]} for number, old in enumerate(in_order)]
    torch.save(content, file)
    resumed = train("nnUNetTrainerFineTune", "of_earlier", resume=True)
    assert len(resumed.optimizer.param_groups) == 2
    ends = (weights(f"{one.output_folder}/checkpoint_final.pth") for one in (whole, resumed))
    assert not differing(*ends)


def test_tensor_that_the_source_has_in_part_is_held_in_part(results, configured, source, tmp_path):
    """A head of which the source knows two of three rows: these stay near it, and the new row decays to 0."""
    content = torch.load(source, map_location="cpu", weights_only=False)
    labels = dict(content["init_args"]["dataset_json"]["labels"])
    *_, last = labels
    content["init_args"]["dataset_json"]["labels"] = {
        ("other" if name == last else name): value for name, value in labels.items()
    }
    file = tmp_path / "other labels.pth"
    torch.save(content, file)
    settings = {"source": str(file), "l2_sp": 0.5, "copied_lr_factor": 0.5}
    name = configured("partly", weight_decay=0.25, fine_tuning=settings)
    built = build_trainer("nnUNetTrainerFineTune", name)
    built.initialize()
    built.load_start()
    head = "decoder.seg_layers.1.weight"
    group = _groups(built)[head]
    assert (group["weight_decay"], group["lr_factor"]) == (0.0, 1.0)
    weight, new = built.network.state_dict()[head].clone(), labels[last]
    assert torch.equal(built.anchor.partly_known[head].flatten(), torch.arange(len(weight)) != new)
    parameters = built.named_trainable_parameters()
    built.anchor.penalty(parameters, strength=0.5, decay=0.25).backward()
    expected = torch.zeros_like(weight)
    expected[new] = 0.25 * weight[new]
    torch.testing.assert_close(parameters[head].grad, expected)


def test_warm_up_as_long_as_the_training_is_refused(results, configured, source):
    settings = {"source": source, "warmup_epochs": 1}
    with pytest.raises(UserError, match=r"warmup_epochs is 1.*1 epochs"):
        build_trainer("nnUNetTrainerFineTune", configured("long_warm_up", fine_tuning=settings))
    assert not list(results.rglob("*.txt"))


def test_setting_that_a_checkpoint_does_not_know_was_at_its_default(results, configured, source):
    name = configured("older", num_epochs=2, fine_tuning={"source": source})
    built = build_trainer("nnUNetTrainerFineTune", name, resume=True)
    recorded = built.settings_record()
    del recorded["fine_tuning"]["l2_sp"]
    built._compare_settings(recorded, "older.pth")
    recorded["fine_tuning"]["l2_sp"] = 0.5
    with pytest.raises(UserError, match=r"fine_tuning\.l2_sp: 0\.5 -> 0\.0"):
        built._compare_settings(recorded, "older.pth")


def test_public_weights_are_a_source_and_their_licence_stays_with_the_model(results, configured, tmp_path):
    made = planned_model("901", "3d_tiny", plans_name="nnUNetPlans")
    kwargs = made.architecture()["arch_kwargs"]
    file, network = nnssl(tmp_path, family="plain", **kwargs)
    trained = train("nnUNetTrainerFineTune", configured("public", fine_tuning={"source": str(file), "l2_sp": 0.1}))
    state = torch.load(f"{trained.output_folder}/checkpoint_final.pth", weights_only=False)["nnunet_ext"]
    assert state["source"] == {
        "file": file.name,
        "sha256": sha256(file),
        "keep_heads": True,
        "reader": "nnssl",
        "kind": "restoration",
        "citation": "@article{openmind}",
        "licence": "CC BY 4.0 for OpenMind's models; others: see the page of the weights",
    }
    # only what the source has is held
    assert {name.partition(".")[0] for name in trained.anchor.start} == {"encoder"}
    for name, tensor in trained.anchor.start.items():
        assert torch.equal(tensor, network.state_dict()[name])
    resumed = build_trainer("nnUNetTrainerFineTune", "public")
    resumed.load_checkpoint(f"{trained.output_folder}/checkpoint_final.pth")
    assert resumed.origin == state["source"]


@pytest.mark.parametrize("trainer", BASELINES)
def test_weights_that_the_source_lacks_are_not_frozen_at_random_values(trainer, results, configured, tmp_path):
    """An encoder alone, as masked autoencoders leave it: whatever does not train the decoder is refused."""
    kwargs = planned_model("901", "3d_tiny", plans_name="nnUNetPlans").architecture()["arch_kwargs"]
    file, _ = nnssl(tmp_path, family="plain", **kwargs)
    name = configured("from_encoder", fine_tuning={"source": str(file)})
    built = build_trainer(trainer, name)
    built.initialize()
    model = planned_model("901", name, plans_name="nnUNetPlans")
    *_, finding = check_fine_tuning(type(built), model, built.settings)
    if trainer in ("nnUNetTrainerFineTune", "nnUNetTrainerDecoderOnly", "nnUNetTrainerDGST"):
        built.load_start()
        assert finding.severity == "ok"
        return
    with pytest.raises(UserError, match="does not train decoder.*Use nnUNetTrainerFineTune"):
        built.load_start()
    assert finding.severity == "problem"
    assert "would stay random" in finding.detail


def test_a_channel_that_the_source_lacks_is_not_frozen(results, configured):
    """Of the first kernel the source has one input channel of two."""
    name = configured("another_channel")
    trainers = [build_trainer(trainer, name) for trainer in BASELINES]
    trainers[0].initialize()
    network = trainers[0].network
    known = {key: torch.tensor(True) for key in network.state_dict()}
    first = "encoder.stages.0.0.convs.0.conv.weight"
    known[first] = torch.tensor([True, False])[None, :, None, None, None]
    for one in map(type, trainers):
        if one.__name__ in ("nnUNetTrainerFineTune", "nnUNetTrainerDGST"):
            one.refuse_random_weights(one.needed_of_source(network), known)
            continue
        with pytest.raises(UserError, match=f"does not train {first}, and the source lacks them or some of"):
            one.refuse_random_weights(one.needed_of_source(network), known)


def test_pretrained_weights_do_not_tell_what_is_random(results, configured, source, capsys):
    built = build_trainer("nnUNetTrainerHeadOnly", configured("by_option"))
    built.initialize()
    load_pretrained_weights(built.network, source)
    built.load_start()
    assert "nnUNetTrainerHeadOnly does not train every kernel. That option does not tell" in capsys.readouterr().out


def _groups(trainer):
    """The group of the optimizer that each parameter is in, by its name."""
    names = {id(parameter): name for name, parameter in trainer.network.named_parameters()}
    return {names[id(one)]: group for group in trainer.optimizer.param_groups for one in group["params"]}


def test_lora_predicts_with_the_merged_weights_as_it_validates(results, configured, source):
    trained = train("nnUNetTrainerLoRA", configured("adapters", fine_tuning={"source": source}))
    plain = build_trainer("nnUNetTrainerConfigurable")
    plain.initialize()
    plain.network.load_state_dict(weights(f"{trained.output_folder}/checkpoint_final.pth"))
    data = torch.randn(1, 1, 16, 16, 16)
    with torch.no_grad():
        for ours, theirs in zip(trained.network.eval()(data), plain.network.eval()(data)):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_loading_computes_no_sums_of_adapters(results, configured, source, monkeypatch):
    """nnU-Net asks for the state dict once for each tensor of the checkpoint."""
    trained = train("nnUNetTrainerLoRA", configured("adapters", fine_tuning={"source": source}))
    weights = trained.network.state_dict()
    monkeypatch.setattr(lora, "low_rank_update", lambda layer: pytest.fail("a sum was computed"))
    trained.load_checkpoint(f"{trained.output_folder}/checkpoint_final.pth")
    monkeypatch.undo()
    assert all(torch.equal(value, weights[key]) for key, value in trained.network.state_dict().items())


def test_default_settings_are_the_papers(results, configured, source):
    expected = {
        "nnUNetTrainerFineTune": (1e-3, 50),
        "nnUNetTrainerBiasOnly": (1e-2, 200),
        "nnUNetTrainerNormOnly": (1e-3, 200),
        "nnUNetTrainerLoRA": (1e-3, 200),
    }
    for trainer, (rate, epochs) in expected.items():
        built = build_trainer(trainer, "3d_tiny_without_settings")
        settings = built.settings
        assert (settings.initial_lr, settings.num_epochs, settings.num_iterations_per_epoch) == (rate, epochs, 250)
        assert (settings.optimizer, settings.momentum, settings.weight_decay) == ("sgd", 0.99, 3e-5)
    lora = built.settings.fine_tuning
    assert (lora.lora_rank, lora.lora_alpha, lora.lora_dropout) == (32, 16.0, 0.1)


def _heads(trainer):
    return [parameter for head in trainer.network.decoder.seg_layers for parameter in head.parameters()]
