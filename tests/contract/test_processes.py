"""Several processes: distributed training, data loading workers however they are started, and torch.compile."""

from __future__ import annotations

import multiprocessing
import pickle
import shutil
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import distributed as dist
from torch._inductor import config as inductor_config
from torch.nn.parallel import DistributedDataParallel

from nnunet_ext.losses.consistency import entropy
from nnunet_ext.losses.hard_labels import (
    label_log_probabilities,
    log_probabilities,
    one_hot,
    partial_cross_entropy,
    squared_dice_loss,
    tversky_loss,
)
from nnunet_ext.losses.partial_labels import exclusion_loss
from nnunet_ext.losses.soft_targets import Total, masked_mean, of_this_process
from nnunet_ext.trainers.base import nnUNetTrainerConfigurable
from support.nnunet_runs import build_trainer, run_in_new_process, train
from support.trainers_under_test import EVERY_TRAINER, data_kind, one_per_network, trainer_class

WORLD_SIZE = 2


def train_as_rank(rank: int, store: str, name: str, kind: str, file: str, is_compiled: bool = False) -> None:
    """One process of a distributed training on CPU.

    nnU-Net's DDP is for CUDA alone: it picks the device and passes it to torch's wrapper. So the trainer is built
    first, told of the process group afterwards, and the wrapper gets no device.
    """
    import nnunetv2.training.nnUNetTrainer.nnUNetTrainer as stock

    torch.set_num_threads(1)
    buckets = {}
    if is_compiled:  # with buckets so small that the compiler splits the graph of a tiny network, too
        trainer_class(name)._do_i_compile = lambda self: True
        torch.compile = partial(torch.compile, backend="aot_eager")
        dist._DEFAULT_FIRST_BUCKET_BYTES = 2**12
        buckets = {"bucket_cap_mb": 0.02}
    stock.DDP = lambda network, device_ids: DistributedDataParallel(network, **buckets)
    trainer = build_trainer(name, "3d_tiny_batch_of_four", kind=kind)
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=WORLD_SIZE)
    trainer.is_ddp, trainer.local_rank = True, rank
    step, cases = trainer.train_step, []

    def recorded_step(batch: dict[str, Any]) -> dict[str, np.ndarray]:
        cases.append(list(batch["keys"]))
        return step(batch)

    trainer.train_step = recorded_step
    trainer.run_training()
    assert isinstance(trainer.network.module, torch._dynamo.OptimizedModule) == is_compiled
    logged = trainer.logger.local_logger.my_fantastic_logging
    found = {"weights": trainer.unwrapped_network().state_dict(), "logged": logged, "cases": cases}
    torch.save(found, f"{file}_{rank}.pth")
    dist.destroy_process_group()


def as_two_ranks(target: Callable[..., None], *arguments: Any) -> None:
    context = multiprocessing.get_context("fork")  # this process has not used torch's thread pool yet
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder, "store").as_uri()  # of a port, another process may be faster
        ranks = [context.Process(target=target, args=(rank, store, *arguments)) for rank in range(WORLD_SIZE)]
        for process in ranks:
            process.start()
        for process in ranks:
            process.join()
    assert all(process.exitcode == 0 for process in ranks)


COMPILED_IN_TWO_PROCESSES = (
    "nnUNetTrainerMixUp",  # two forward passes before one backward pass
    "nnUNetTrainerHeadOnly",  # most parameters are frozen
    "nnUNetTrainerDBDMP",  # a head of no weight
    "nnUNetTrainerPartialLabelsMixUp",  # processes whose batches are annotated for other labels
)

needs_gloo = pytest.mark.skipif(
    not dist.is_available() or not dist.is_gloo_available(), reason="this torch has no gloo backend"
)


@needs_gloo
@pytest.mark.full
@pytest.mark.capability("two processes (DDP)")
@pytest.mark.parametrize("name", EVERY_TRAINER)
def test_two_processes_keep_equal_weights(name, results, tmp_path):
    assert run_in_new_process(as_two_ranks, train_as_rank, name, data_kind(name, "labels"), str(tmp_path / "rank")) == 0
    first, second = (torch.load(tmp_path / f"rank_{rank}.pth", weights_only=False) for rank in range(WORLD_SIZE))
    assert np.isfinite(first["logged"]["train_losses"]).all()
    # the patches would differ anyway: nnU-Net looks for foreground in the second process alone
    assert first["cases"] != second["cases"], "each process must draw cases of its own"
    assert len(first["cases"]) == len(second["cases"])
    for name_of_term, values in first["logged"].items():
        if name_of_term.startswith("loss/"):
            assert values == second["logged"][name_of_term], "each process must log the mean over all of them"
    assert all(torch.equal(value, second["weights"][key]) for key, value in first["weights"].items())


def draw_as_rank(rank: int, store: str, file: str) -> None:
    """One process's draws after `initialize` without a seed, those of the processes together and its own."""
    import nnunetv2.training.nnUNetTrainer.nnUNetTrainer as stock

    torch.set_num_threads(1)
    stock.DDP = lambda network, device_ids: DistributedDataParallel(network)
    trainer = build_trainer("nnUNetTrainerConfigurable", "3d_tiny_without_settings")
    assert trainer.settings.seed is None
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=WORLD_SIZE)
    trainer.is_ddp, trainer.local_rank = True, rank
    trainer.initialize()
    torch.save({"shared": trainer.shared_rng.random(), "own": trainer.rng.random()}, f"{file}_{rank}.pth")
    dist.destroy_process_group()


@needs_gloo
def test_without_a_seed_two_processes_draw_alike_what_they_must(results, tmp_path):
    assert run_in_new_process(as_two_ranks, draw_as_rank, str(tmp_path / "rank")) == 0
    first, second = (torch.load(tmp_path / f"rank_{rank}.pth") for rank in range(WORLD_SIZE))
    assert first["shared"] == second["shared"]
    assert first["own"] != second["own"]


@needs_gloo
@pytest.mark.full
@pytest.mark.parametrize("chosen", COMPILED_IN_TWO_PROCESSES)
def test_two_compiled_processes_train_as_plain_ones(chosen, results, tmp_path, monkeypatch):
    """nnU-Net's default on several GPUs, where the compiler splits the graph at the buckets of torch's wrapper."""
    kind = data_kind(chosen, "labels")
    for folder, is_compiled in (("plain", False), ("compiled", True)):
        monkeypatch.setenv("nnUNet_results", str(results / folder))
        file = str(tmp_path / folder)
        assert run_in_new_process(as_two_ranks, train_as_rank, chosen, kind, file, is_compiled) == 0
    plain, *ranks = (
        torch.load(tmp_path / file, weights_only=False) for file in ("plain_0.pth", "compiled_0.pth", "compiled_1.pth")
    )
    losses = [one["logged"]["train_losses"] for one in (plain, *ranks)]
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-3)
    # the losses say little of the gradients, and nothing of the last step
    torch.testing.assert_close(ranks[0]["weights"], plain["weights"], rtol=1e-3, atol=1e-5)
    assert all(torch.equal(value, ranks[1]["weights"][key]) for key, value in ranks[0]["weights"].items())


def two_patches() -> tuple[torch.Tensor, torch.Tensor]:
    """Logits and labels; the first patch has no foreground, as of the GPU for which nnU-Net does not look for any."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 3, (2, 1, 4, 5), generator=generator)
    labels[0] = 0
    return torch.randn((2, 3, 4, 5), generator=generator), labels


def losses_over_the_batch(logits: torch.Tensor, labels: torch.Tensor, total: Total) -> list[torch.Tensor]:
    log_p, target, foreground = log_probabilities(logits), one_hot(labels, 3), labels > 0
    annotated = torch.tensor([[True, False, True], [True, True, True]])[foreground.flatten(1).any(dim=1).long()]
    return [
        tversky_loss(log_p, target, total=total),
        squared_dice_loss(log_p, target, total=total),
        partial_cross_entropy(label_log_probabilities(log_p, target), foreground, total=total),
        exclusion_loss(logits, labels == 0, annotated, total=total),
        masked_mean(entropy(log_p), foreground, total=total),
    ]


def differentiate_as_rank(rank: int, store: str, file: str) -> None:
    """One process's gradients, as torch's wrapper takes them: divided by the number of processes, then summed."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=WORLD_SIZE)
    total = partial(nnUNetTrainerConfigurable.total, SimpleNamespace(is_ddp=True))
    logits, labels = (one[rank : rank + 1] for one in two_patches())
    logits.requires_grad_()
    losses = losses_over_the_batch(logits, labels, total)
    gradients = [torch.autograd.grad(loss, logits, retain_graph=True)[0] / WORLD_SIZE for loss in losses]
    torch.save({"losses": torch.stack(losses).detach(), "gradients": torch.stack(gradients)}, f"{file}_{rank}.pth")
    dist.destroy_process_group()


@needs_gloo
def test_losses_over_the_batch_are_of_the_batches_of_all_processes(tmp_path):
    assert run_in_new_process(as_two_ranks, differentiate_as_rank, str(tmp_path / "rank")) == 0
    first, second = (torch.load(tmp_path / f"rank_{rank}.pth") for rank in range(WORLD_SIZE))
    logits, labels = two_patches()
    logits.requires_grad_()
    # of one process with both patches
    losses = losses_over_the_batch(logits, labels, of_this_process)
    gradients = torch.stack([torch.autograd.grad(loss, logits, retain_graph=True)[0] for loss in losses])
    for process in (first, second):
        torch.testing.assert_close(process["losses"], torch.stack(losses).detach())
    torch.testing.assert_close(torch.cat([first["gradients"], second["gradients"]], dim=1), gradients)
    assert (gradients.abs().amax(dim=(1, 2, 3, 4)) > 1e-4).all()


@pytest.fixture
def start_method(request):
    """How processes begin, for the time of a test."""
    if request.param not in multiprocessing.get_all_start_methods():
        pytest.skip(f"this platform has no {request.param}")
    before = multiprocessing.get_start_method(allow_none=True)
    multiprocessing.set_start_method(request.param, force=True)
    yield request.param
    multiprocessing.set_start_method(before, force=True)


WITH_WORKERS = (
    "nnUNetTrainerTDNet",  # marks what lies outside the image
    "nnUNetTrainerDualEncoderMixUp",  # splits the channels, and mixes cases
)
"""What a worker is sent is tested for every trainer, below."""


@pytest.mark.full
@pytest.mark.parametrize("start_method", ["spawn", "forkserver"], indirect=True)
@pytest.mark.parametrize("chosen", WITH_WORKERS)
def test_trains_with_workers_that_are_not_forked(chosen, start_method, results, monkeypatch):
    kind = data_kind(chosen, "labels")
    monkeypatch.setenv("nnUNet_n_proc_DA", "1")
    with_worker = train(chosen, kind=kind).network.state_dict()
    monkeypatch.setenv("nnUNet_n_proc_DA", "0")
    without = train(chosen, kind=kind).network.state_dict()
    # under a seed the batches do not depend on the workers; the number of threads may round differently
    for key, value in without.items():
        torch.testing.assert_close(with_worker[key], value, rtol=1e-3, atol=1e-4)


def save_batches(pickled: dict[str, bytes], file: str) -> None:
    """Save the first batch of each loader, in a process that knows of it what a worker knows that is not forked."""
    torch.set_num_threads(1)
    torch.save({name: next(pickle.loads(loader)) for name, loader in pickled.items()}, file)


@pytest.fixture(scope="module")
def batches_elsewhere(workspace, tmp_path_factory):
    """The first batches for training and validation of each trainer's loaders, made here and in another process."""
    here, pickled = {}, {}
    file = tmp_path_factory.mktemp("batches") / "elsewhere.pth"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("nnUNet_results", str(file.parent))
        patch.setenv("nnUNet_n_proc_DA", "0")
        for name in EVERY_TRAINER:
            trainer = build_trainer(name, kind=data_kind(name, "labels"))
            trainer.initialize()
            for purpose, augmenter in zip(("training", "validation"), trainer.get_dataloaders()):
                pickled[f"{name} {purpose}"] = pickle.dumps(augmenter.data_loader)
                here[f"{name} {purpose}"] = next(augmenter.data_loader)
    assert run_in_new_process(save_batches, pickled, str(file)) == 0
    return here, torch.load(file, weights_only=False)


@pytest.mark.full
@pytest.mark.capability("workers that are not forked")
@pytest.mark.parametrize("name", EVERY_TRAINER)
def test_a_loader_that_is_sent_to_another_process_makes_the_same_batches(name, batches_elsewhere):
    for purpose in ("training", "validation"):
        here, elsewhere = (batches[f"{name} {purpose}"] for batches in batches_elsewhere)
        assert list(elsewhere["keys"]) == list(here["keys"])
        for key in ("data", "target"):
            torch.testing.assert_close(elsewhere[key], here[key])


@pytest.fixture(scope="module")
def loading_elsewhere(workspace):
    """The exit code of a process that loads every trainer's class, and has imported none but the base before."""
    return run_in_new_process(pickle.loads, pickle.dumps([trainer_class(name) for name in EVERY_TRAINER]))


@pytest.mark.capability("found and pickled")
@pytest.mark.parametrize("name", EVERY_TRAINER)
def test_trainer_class_survives_pickling(name, loading_elsewhere):
    from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name

    found = recursive_find_trainer_class_by_name(name)
    assert found is trainer_class(name)
    assert recursive_find_trainer_class_by_name(name) is found, "a second lookup must find the same class"
    assert pickle.loads(pickle.dumps(found)) is found
    assert loading_elsewhere == 0


# code for this processor, the compiler's last stage, is made for the plain network and the one with most decoders
GENERATED = ("nnUNetTrainerPartialCE", "nnUNetTrainerTDNet")
assert set(GENERATED) <= set(one_per_network())


needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile on CPU needs a C++ compiler")


@pytest.mark.full
@pytest.mark.capability("torch.compile")
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[needs_compiler] * (name in GENERATED)) for name in one_per_network()]
)
def test_compiled_training_step_equals_plain(name, results, monkeypatch):
    kind = data_kind(name, "labels")
    plain = train(name, kind=kind)
    monkeypatch.setattr(trainer_class(name), "_do_i_compile", lambda self: True)
    monkeypatch.setenv("nnUNet_results", str(results / "compiled"))
    if name not in GENERATED:
        monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    with inductor_config.patch(fallback_random=True):  # dropout draws as without compilation
        compiled = train(name, kind=kind)
    assert isinstance(compiled.network, torch._dynamo.OptimizedModule)
    np.testing.assert_allclose(
        compiled.logger.get_value("train_losses", step=None),
        plain.logger.get_value("train_losses", step=None),
        rtol=1e-3,
    )
    saved = torch.load(f"{compiled.output_folder}/checkpoint_final.pth", weights_only=False)["network_weights"]
    assert list(saved) == list(plain.network.state_dict())
    # the losses say little of the gradients, and nothing of the last step
    torch.testing.assert_close(saved, plain.network.state_dict(), rtol=1e-3, atol=1e-4)
