"""What takes the place of one of nnU-Net's datasets and changes its cases while they are loaded."""

from typing import Any


class ChangedCases:
    """What nnU-Net's data loader needs of a dataset, but for ``load_case``, which a subclass has."""

    def __init__(self, cases: Any) -> None:
        """
        Args:
            cases: the dataset: ``identifiers`` and ``load_case``.
        """
        self.cases, self.identifiers = cases, cases.identifiers

    def __len__(self) -> int:
        return len(self.cases)
