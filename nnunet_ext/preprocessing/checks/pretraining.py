"""Data for self-supervised pre-training: labels are not looked at, but planning needs some."""

from collections.abc import Iterator

from nnunet_ext.findings import Finding
from nnunet_ext.preprocessing.raw.raw_dataset import Labels, RawDataset
from nnunet_ext.preprocessing.raw.unlabelled import is_unlabelled


class PlaceholderCheck:
    """Tells whether labels are placeholders, and whether nnU-Net can plan with them."""

    def __init__(self, dataset: RawDataset) -> None:
        self.made_here = is_unlabelled(dataset)
        self.number = dataset.folder.name[len("Dataset") :][:3]
        self.foreground = False
        self.background = False

    def look_at(self, case: str, labels: Labels) -> None:
        self.foreground |= bool(labels.any())
        self.background |= not labels.all()

    def findings(self) -> Iterator[Finding]:
        if not self.foreground:
            detail = (
                "are all empty. Training does not look at them, but nnU-Net's planning takes intensities from "
                "labelled voxels only, and stops. Make placeholders:"
            )
            fix = f"nnunet_ext unlabelled IMAGES -o Dataset{self.number}_NAME"
            yield Finding("warning", "labels", detail, fix)
        elif self.made_here or not self.background:
            detail = "are placeholders: nothing is learned from them. `nnunet_ext advise` says what the images are for."
            yield Finding("ok", "labels", detail)
        else:
            yield Finding("ok", "labels", "are there; pre-training does not look at them.")
