"""What is read from nnU-Net's files, looked at before anything uses it: types, names and values."""
