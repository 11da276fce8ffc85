"""Names that nnU-Net gives to what it writes, and its defaults."""

TRAINER = "nnUNetTrainer"
PLANS = "nnUNetPlans"
"""The plans file that nnU-Net makes unless another is asked for."""
FINAL, LATEST, BEST = "checkpoint_final.pth", "checkpoint_latest.pth", "checkpoint_best.pth"
CHECKPOINTS = (FINAL, LATEST, BEST)
"""In the order in which ``nnUNetv2_train --c`` looks for them."""
EPOCHS = 1000
"""Of a training, where neither the plans nor the trainer say otherwise."""
SPLITS = "splits_final.json"
"""The folds, in nnUNet_preprocessed; a raw dataset may have one that planning takes over."""
