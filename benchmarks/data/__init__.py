"""Preparation of the experiments' datasets and folds."""
