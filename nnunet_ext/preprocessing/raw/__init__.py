"""Raw datasets of nnU-Net: reading them, making new ones, and their folds."""
