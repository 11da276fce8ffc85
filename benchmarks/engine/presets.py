"""What several experiments share: the baseline's trainer, an optimizer that starts quickly, a small network."""

from benchmarks.engine.experiment import Network

STOCK = "nnUNetTrainerConfigurable"
"""nnU-Net's own training, with settings."""

ADAMW = {"optimizer": "adamw", "weight_decay": 3e-5}
"""With it short trainings on a CPU come further than with nnU-Net's SGD."""

COARSE = Network(
    "2d",
    changes={
        "spacing": [2.5, 2.5],
        "patch_size": [64, 64],
        "batch_size": 12,
        "data_identifier": "nnUNetPlans_2d_coarse",
    },
    stages=4,
)
"""A network for the heart that one core trains in minutes."""
