"""Pairs of a prior and a current scan, registered into one dataset."""
