"""Runs that can be repeated and resumed exactly: every batch and every draw follows from a seed and a position."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from time import sleep
from typing import Any

import numpy as np
import torch
from batchgenerators.dataloading.multi_threaded_augmenter import MultiThreadedAugmenter
from batchgenerators.dataloading.single_threaded_augmenter import SingleThreadedAugmenter
from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform


def seed_global_generators(*entropy: int, on_devices: bool = True) -> None:
    """Seed Python's, numpy's and torch's global generators, on which nnU-Net draws, with non-negative integers.

    Without `on_devices` torch's generators of GPUs stay as they are.
    """
    for_python, for_numpy, for_torch = (int(word) for word in np.random.SeedSequence(entropy).generate_state(3))
    random.seed(for_python)
    np.random.seed(for_numpy)  # noqa: NPY002  nnU-Net's data loading uses numpy's global generator
    if on_devices:
        torch.manual_seed(for_torch)
    else:
        torch.default_generator.manual_seed(for_torch)


@contextmanager
def restored_global_generators() -> Iterator[None]:
    """Give the global generators of Python, numpy and torch (CPU) back as they were when the block began."""
    of_python, of_numpy, of_torch = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    try:
        yield
    finally:
        random.setstate(of_python)
        np.random.set_state(of_numpy)  # noqa: NPY002
        torch.set_rng_state(of_torch)


def shuffled_in_place(transform: Any) -> Iterator[list[int]]:
    """The lists that transforms of a cascade shuffle in place, so that a batch would depend on those before it."""
    if isinstance(transform, BasicTransform):
        channels = getattr(transform, "channel_idx", None)
        if isinstance(channels, list):
            yield channels
        for value in vars(transform).values():
            for inner in value if isinstance(value, (list, tuple)) else [value]:
                yield from shuffled_in_place(inner)


class SeededBatches:
    """Stands in for nnU-Net's loader; its g-th batch depends on `entropy` (seed, rank, purpose) and on g alone.

    Worker w of W makes the batches w, w + W, …, and `MultiThreadedAugmenter` hands them out in turn, so the sequence is
    the same for any number of workers, and a training that resumes at batch g sees what it would have seen without the
    interruption.
    """

    def __init__(self, loader: Any, *, entropy: tuple[int, ...], first: int, workers: int) -> None:
        self.loader, self.entropy, self.workers = loader, entropy, workers
        self.first = self.position = first
        shuffled = shuffled_in_place(getattr(loader, "transforms", None))
        self.orders = [(channels, list(channels)) for channels in shuffled]

    def set_thread_id(self, worker: int) -> None:
        """Called by the augmenter inside each worker, with its number."""
        self.loader.set_thread_id(worker)
        self.position = self.first + worker

    def __iter__(self) -> SeededBatches:
        return self

    def __next__(self) -> Any:
        with restored_global_generators():
            # batches are made on the CPU, and may be so in the process whose network draws on a GPU
            seed_global_generators(*self.entropy, self.position, on_devices=False)
            for channels, order in self.orders:
                channels[:] = order
            batch = next(self.loader)
        self.position += self.workers
        return batch


class WatchedAugmenter(MultiThreadedAugmenter):
    """batchgenerators' augmenter, which waits for ever where its thread between workers and network has failed."""

    def __next__(self) -> Any:
        try:
            self._wait()
        except KeyboardInterrupt:
            self.abort_event.set()
            self._finish()
            raise
        return super().__next__()

    def _wait(self) -> None:
        while self.was_initialized and self.pin_memory_queue.empty() and not self.abort_event.is_set():
            if not self.pin_memory_thread.is_alive():
                self.abort_event.set()  # its error has been printed
            sleep(self.wait_time)


def seeded_augmenter(augmenter: Any, *, entropy: tuple[int, ...], first: int) -> Any:
    """An augmenter of `SeededBatches`, single-threaded or with as many workers as nnU-Net's, which is ended."""
    if isinstance(augmenter, SingleThreadedAugmenter):
        batches = SeededBatches(augmenter.data_loader, entropy=entropy, first=first, workers=1)
        return SingleThreadedAugmenter(batches, None)
    augmenter._finish()
    workers = augmenter.num_processes
    batches = SeededBatches(augmenter.generator, entropy=entropy, first=first, workers=workers)
    options = {"pin_memory": augmenter.pin_memory, "wait_time": augmenter.wait_time}
    seeded = WatchedAugmenter(batches, None, num_processes=workers, **options)
    seeded._start()  # by itself it would wait for the first batch to be asked for
    return seeded


@contextmanager
def single_torch_thread() -> Iterator[None]:
    """Hold torch to one thread in this process, and so in every worker that is forked meanwhile.

    A forked process inherits torch's thread pool without its threads: if the pool was used before, e.g. to load a
    checkpoint, the first parallel operation of a worker on CPU (a matrix product inside MKL, which nnU-Net's own limits
    do not reach) waits for them forever. With one thread there is no such operation.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
