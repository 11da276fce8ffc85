"""Benchmarks: step time and memory of every trainer, and accuracy on real data."""

import os

# torch's profiler reports its own start and stop on stderr otherwise; it reads this when torch is imported
os.environ.setdefault("KINETO_LOG_LEVEL", "99")
