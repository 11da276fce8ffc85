"""Models of TotalSegmentator: nnU-Net v2 in its usual folders, some with plans of nnU-Net 2.0 to 2.1."""

from nnunet_ext.checkpoints.description import ModelDescription
from nnunet_ext.checkpoints.sources.nnunet import NNUNetReader
from nnunet_ext.checkpoints.sources.source import Given


class TotalSegmentatorReader(NNUNetReader):
    """A folder ``DatasetNNN_Name/TRAINER__nnUNetPlans__3d_fullres``, or a checkpoint in it."""

    name = "totalsegmentator"
    citation = (
        "Wasserthal et al., TotalSegmentator, Radiology: Artificial Intelligence 5 (2023), doi 10.1148/ryai.230024"
    )
    licence = (
        "Apache-2.0 for the models that TotalSegmentator offers for any use; others are for non-commercial use or need "
        "a licence key: look the task up in TotalSegmentator's README"
    )

    def recognises(self, given: Given) -> bool:
        if not super().recognises(given):
            return False
        model = ModelDescription.of(given.content)
        names = [] if model is None else [str(model.plans["dataset_name"])]
        names += [] if given.folder is None else [given.folder.parent.name]
        return any("totalseg" in name.lower() for name in names)
