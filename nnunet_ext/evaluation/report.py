"""Names that `nnunet_ext.evaluation.scoring` takes from here; their home is `nnunet_ext.evaluation.scores`."""

from nnunet_ext.evaluation.scores import Scores, nanmean

__all__ = ["Scores", "nanmean"]
