"""Python imports this at its start where the folder is on PYTHONPATH: nnU-Net's pools are then forked from the program
that makes them, where each of their processes would start Python anew and import torch, for 8 s."""

import multiprocessing

if "fork" in multiprocessing.get_all_start_methods():
    get_context = multiprocessing.get_context
    multiprocessing.get_context = lambda method=None: get_context("fork" if method == "spawn" else method)
