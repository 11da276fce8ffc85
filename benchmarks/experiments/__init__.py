"""Experiments as declarations, one in a file: data, folds, methods, lengths, tests and comparisons."""
