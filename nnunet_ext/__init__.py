"""Label-efficient training techniques for nnU-Net v2.

Importing this package imports neither torch nor nnunetv2, so that the command line stays quick.
"""

from nnunet_ext.registration import register
from nnunet_ext.version import __version__

__all__ = ["__version__", "register"]
