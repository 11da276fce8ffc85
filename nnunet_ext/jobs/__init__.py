"""Sweeps of trainings: trainers x folds x seeds, run by jobs of Slurm or of this machine, and resumable."""
