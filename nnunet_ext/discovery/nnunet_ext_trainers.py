"""What nnU-Net sees of this package: every trainer, looked up by its name where it really lives."""

from nnunet_ext.trainers import __dir__, __getattr__

__all__ = ["__dir__", "__getattr__"]
