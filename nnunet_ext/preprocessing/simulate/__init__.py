"""Weaker labels simulated from dense ones."""
