"""Benchmarks: step time and memory of every trainer, and accuracy on real data."""
