import multiprocessing
import random

import numpy as np
import pytest
import torch
from batchgenerators.dataloading.nondet_multi_threaded_augmenter import NonDetMultiThreadedAugmenter
from batchgenerators.dataloading.single_threaded_augmenter import SingleThreadedAugmenter
from batchgeneratorsv2.transforms.nnunet.remove_connected_components import (
    RemoveRandomConnectedComponentFromOneHotEncodingTransform,
)
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
from batchgeneratorsv2.transforms.utils.random import RandomTransform

from nnunet_ext.trainers.reproducibility import (
    restored_global_generators,
    seed_global_generators,
    seeded_augmenter,
    single_torch_thread,
)
from support.nnunet_runs import build_trainer, run_in_new_process, train


class RandomBatches:
    """Draws on every global generator, as nnU-Net's loader does, and shuffles a transform's list as in a cascade."""

    infinite = True

    def __init__(self):
        channels = RemoveRandomConnectedComponentFromOneHotEncodingTransform([1, 2, 3, 4, 5])
        self.transforms = ComposeTransforms([RandomTransform(channels, apply_probability=0.4)])

    def set_thread_id(self, worker):
        pass

    def __iter__(self):
        return self

    def __next__(self):
        shuffled = self.transforms.transforms[0].transform.get_parameters()["apply_to_channels"]
        return (random.random(), np.random.rand(), torch.rand(()).item(), tuple(shuffled))


def drawn(augmenter, count):
    batches = [next(augmenter) for _ in range(count)]
    if hasattr(augmenter, "_finish"):
        augmenter._finish()
    return batches


def augmenter_with(workers):
    if workers == 0:
        return SingleThreadedAugmenter(RandomBatches(), None)
    return NonDetMultiThreadedAugmenter(RandomBatches(), None, workers, num_cached=2)


def test_batches_do_not_depend_on_the_number_of_workers():
    sequences = [drawn(seeded_augmenter(augmenter_with(n), entropy=(5, 0), first=0), 7) for n in (0, 1, 3)]
    assert sequences[0] == sequences[1] == sequences[2]
    assert len(set(sequences[0])) == 7, "batches must differ from each other"


class Unreadable:
    """What a worker can send, and nobody can receive."""

    def __reduce__(self):
        return int, ("no number",)


class UnreadableBatches(RandomBatches):
    def __next__(self):
        return Unreadable()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_an_error_between_workers_and_network_ends_the_training():
    augmenter = NonDetMultiThreadedAugmenter(UnreadableBatches(), None, 1, num_cached=2)
    with pytest.raises(RuntimeError, match="background workers"):
        next(seeded_augmenter(augmenter, entropy=(5, 0), first=0))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_stream_that_begins_later_is_the_rest_of_the_whole_stream(workers):
    whole = drawn(seeded_augmenter(augmenter_with(workers), entropy=(5, 0), first=0), 6)
    rest = drawn(seeded_augmenter(augmenter_with(workers), entropy=(5, 0), first=4), 2)
    assert rest == whole[4:]


def test_streams_of_other_seeds_and_purposes_differ():
    streams = [
        drawn(seeded_augmenter(augmenter_with(0), entropy=entropy, first=0), 3) for entropy in ((5, 0), (5, 1), (6, 0))
    ]
    assert len({batch for stream in streams for batch in stream}) == 9


def test_making_a_batch_in_process_leaves_the_global_generators_alone():
    augmenter = seeded_augmenter(augmenter_with(0), entropy=(5,), first=0)
    seed_global_generators(1)
    expected = next(RandomBatches())
    seed_global_generators(1)
    next(augmenter)
    assert next(RandomBatches()) == expected


def test_making_a_batch_in_process_leaves_the_generators_of_gpus_alone(monkeypatch):
    seeds = []
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeds.append)
    augmenter = seeded_augmenter(augmenter_with(0), entropy=(5,), first=0)
    next(augmenter)
    assert seeds == []
    seed_global_generators(1)
    assert len(seeds) == 1


def test_generators_are_restored_after_an_error():
    seed_global_generators(1)
    expected = next(RandomBatches())
    seed_global_generators(1)
    with pytest.raises(ZeroDivisionError), restored_global_generators():
        next(RandomBatches())
        raise ZeroDivisionError
    assert next(RandomBatches()) == expected


class MatrixProducts(RandomBatches):
    """A loader that needs torch's thread pool, unless torch is held to one thread."""

    def __next__(self):
        return torch.ones(700, 700) @ torch.ones(700, 700), torch.get_num_threads()


def fork_workers_behind_a_used_thread_pool():
    multiprocessing.set_start_method("fork", force=True)
    torch.set_num_threads(2)
    torch.ones(700, 700) @ torch.ones(700, 700)
    with single_torch_thread():
        training = seeded_augmenter(
            NonDetMultiThreadedAugmenter(MatrixProducts(), None, 1, num_cached=2), entropy=(1,), first=0
        )
    assert torch.get_num_threads() == 2, "the training itself keeps its threads"
    torch.ones(700, 700) @ torch.ones(700, 700)
    (product, threads), _ = drawn(training, 2)
    assert threads == 1
    assert product[0, 0] == 700


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="this platform does not fork")
def test_workers_forked_behind_a_used_thread_pool_do_not_hang():
    assert run_in_new_process(fork_workers_behind_a_used_thread_pool) == 0


def test_without_a_seed_two_trainings_differ(workspace, results, monkeypatch):
    losses = []
    for run in ("a", "b"):
        monkeypatch.setenv("nnUNet_results", str(results / run))
        trainer = build_trainer("nnUNetTrainerConfigurable", "3d_tiny_without_settings")
        trainer.num_epochs, trainer.num_iterations_per_epoch, trainer.num_val_iterations_per_epoch = 1, 1, 1
        trainer.run_training()
        losses.append(trainer.logger.get_value("train_losses", step=0))
    assert losses[0] != losses[1]


def test_with_a_seed_two_trainings_are_equal(results, monkeypatch):
    weights = []
    for run in ("a", "b"):
        monkeypatch.setenv("nnUNet_results", str(results / run))
        weights.append(train("nnUNetTrainerMixUp").network.state_dict())
    assert all(torch.equal(value, weights[1][key]) for key, value in weights[0].items())
