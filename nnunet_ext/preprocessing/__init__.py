"""Preparation of datasets: which cases to train on."""
