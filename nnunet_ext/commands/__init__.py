"""One module for each subcommand of ``nnunet_ext``."""
