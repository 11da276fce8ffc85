"""Several processes: distributed training, data loading workers however they are started, and torch.compile."""

from __future__ import annotations

import multiprocessing
import pickle
import shutil
import socket
from functools import partial

import numpy as np
import pytest
import torch
from torch import distributed as dist
from torch._inductor import config as inductor_config
from torch.nn.parallel import DistributedDataParallel

from support.nnunet_runs import build_trainer, run_in_new_process, train
from support.trainers_under_test import EVERY_TRAINER, data_kind, one_per_network, trainer_class

WORLD_SIZE = 2


def train_as_rank(rank: int, port: int, name: str, kind: str, file: str) -> None:
    """One process of a distributed training on CPU.

    nnU-Net's DDP is for CUDA alone: it picks the device and passes it to torch's wrapper. So the trainer is built
    first, told of the process group afterwards, and the wrapper gets no device.
    """
    import nnunetv2.training.nnUNetTrainer.nnUNetTrainer as stock

    torch.set_num_threads(1)
    stock.DDP = lambda network, device_ids: DistributedDataParallel(network)
    trainer = build_trainer(name, "3d_tiny_batch_of_four", kind=kind)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=WORLD_SIZE)
    trainer.is_ddp, trainer.local_rank = True, rank
    trainer.run_training()
    logged = trainer.logger.local_logger.my_fantastic_logging
    torch.save({"weights": trainer.network.module.state_dict(), "logged": logged}, f"{file}_{rank}.pth")
    dist.destroy_process_group()


def train_as_two_ranks(name: str, kind: str, file: str) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    context = multiprocessing.get_context("fork")  # this process has not used torch's thread pool yet
    ranks = [context.Process(target=train_as_rank, args=(rank, port, name, kind, file)) for rank in range(WORLD_SIZE)]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join()
    assert all(process.exitcode == 0 for process in ranks)


@pytest.mark.skipif(not dist.is_available() or not dist.is_gloo_available(), reason="this torch has no gloo backend")
@pytest.mark.full
@pytest.mark.capability("two processes (DDP)")
@pytest.mark.parametrize("name", EVERY_TRAINER)
def test_two_processes_keep_equal_weights(name, results, tmp_path):
    assert run_in_new_process(train_as_two_ranks, name, data_kind(name, "labels"), str(tmp_path / "rank")) == 0
    first, second = (torch.load(tmp_path / f"rank_{rank}.pth", weights_only=False) for rank in range(WORLD_SIZE))
    assert np.isfinite(first["logged"]["train_losses"]).all()
    for name_of_term, values in first["logged"].items():
        if name_of_term.startswith("loss/"):
            assert values == second["logged"][name_of_term], "each process must log the mean over all of them"
    assert all(torch.equal(value, second["weights"][key]) for key, value in first["weights"].items())


@pytest.fixture
def start_method(request):
    """How processes begin, for the time of a test."""
    if request.param not in multiprocessing.get_all_start_methods():
        pytest.skip(f"this platform has no {request.param}")
    before = multiprocessing.get_start_method(allow_none=True)
    multiprocessing.set_start_method(request.param, force=True)
    yield request.param
    multiprocessing.set_start_method(before, force=True)


@pytest.mark.full
@pytest.mark.capability("{start_method} workers")
@pytest.mark.parametrize("start_method", ["spawn", "forkserver"], indirect=True)
@pytest.mark.parametrize("name", one_per_network())
def test_trains_with_workers_that_are_not_forked(name, start_method, results, monkeypatch):
    kind = data_kind(name, "labels")
    monkeypatch.setenv("nnUNet_n_proc_DA", "1")
    with_worker = train(name, kind=kind).network.state_dict()
    monkeypatch.setenv("nnUNet_n_proc_DA", "0")
    without = train(name, kind=kind).network.state_dict()
    # under a seed the batches do not depend on the workers; the number of threads may round differently
    for key, value in without.items():
        torch.testing.assert_close(with_worker[key], value, rtol=1e-3, atol=1e-4)


@pytest.mark.capability("found and pickled")
@pytest.mark.parametrize("name", EVERY_TRAINER)
def test_trainer_class_survives_pickling(name, workspace):
    from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name

    found = recursive_find_trainer_class_by_name(name)
    assert found is trainer_class(name)
    assert recursive_find_trainer_class_by_name(name) is found, "a second lookup must find the same class"
    assert pickle.loads(pickle.dumps(found)) is found


# the compiler's last stage, code for this processor, does not depend on the technique
GENERATED = ("nnUNetTrainerPartialCE", "nnUNetTrainerTDNet")


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile on CPU needs a C++ compiler")
@pytest.mark.full
@pytest.mark.capability("torch.compile")
@pytest.mark.parametrize("name", one_per_network())
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
    names = list(torch.load(f"{compiled.output_folder}/checkpoint_final.pth", weights_only=False)["network_weights"])
    assert names == list(plain.network.state_dict())
