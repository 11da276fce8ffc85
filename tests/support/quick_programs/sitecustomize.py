"""Python imports this at its start where the folder is on PYTHONPATH.

nnU-Net's pools are then forked from the program that makes them, where each of their processes would start Python anew
and import torch, for 8 s. A search for a trainer leaves out nnU-Net's Primus, which imports timm and torchvision, for
3 s. The plot of the progress, which takes 2 s in an epoch, is an empty file.
"""

import importlib.util
import multiprocessing
import os
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

LOGGER = "nnunetv2.training.logging.nnunet_logger"


def plot_nothing(logger, folder):
    open(os.path.join(folder, "progress.png"), "wb").close()  # nnU-Net's export wants it


class LoggerFinder:
    """Finds nnU-Net's logger as usual, and takes the plot from it when it has been imported."""

    @staticmethod
    def find_spec(name, path=None, target=None):
        if name != LOGGER:
            return None
        sys.meta_path.remove(LoggerFinder)
        spec = importlib.util.find_spec(name)
        execute = spec.loader.exec_module

        def execute_and_change(module):
            execute(module)
            module.MetaLogger.plot_progress_png = plot_nothing

        spec.loader.exec_module = execute_and_change
        return spec


sys.meta_path.insert(0, LoggerFinder)
