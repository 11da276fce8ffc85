"""Python imports this at its start where the folder is on PYTHONPATH: nnU-Net's pools are then forked from the program
that makes them, where each of their processes would start Python anew and import torch, for 8 s. A search for a trainer
leaves out nnU-Net's Primus, which imports timm and torchvision, for 3 s."""

import multiprocessing
import sys
import types

if "fork" in multiprocessing.get_all_start_methods():
    get_context = multiprocessing.get_context

    def forked(method=None):
        if method != "spawn":
            return get_context(method)
        if "torch" in sys.modules:  # a forked process waits for ever for threads that it did not inherit
            sys.modules["torch"].set_num_threads(1)
        return get_context("fork")

    multiprocessing.get_context = forked

PRIMUS = "nnunetv2.training.nnUNetTrainer.primus.primus_trainers"
sys.modules[PRIMUS] = types.ModuleType(PRIMUS)
