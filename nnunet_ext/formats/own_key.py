"""Where files of nnU-Net hold what is this package's."""

KEY = "nnunet_ext"
"""In dataset.json, in a configuration of a plans file, and in a checkpoint."""
