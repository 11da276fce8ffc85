"""Versions: of this package, and the oldest of what it stands on."""

__version__ = "0.1.0"

OLDEST_PYTHON = (3, 10)
OLDEST_TORCH = (2, 6)
"""Before this, ``weights_only=True`` could be made to run code (CVE-2025-32434)."""
OLDEST_NNUNET, FIRST_UNKNOWN_NNUNET = (2, 8), (3,)
