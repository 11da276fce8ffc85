"""A folder for ``nnUNet_extTrainer``, beside this package's: trainers that only the benchmarks know. One module."""
