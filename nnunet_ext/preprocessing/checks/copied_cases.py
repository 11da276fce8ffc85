"""Cases with the same images: what is measured on one of them is too good if the other was trained on."""

from collections.abc import Collection, Iterator, Mapping
from hashlib import sha256

import numpy as np
import numpy.typing as npt

from nnunet_ext.findings import Finding
from nnunet_ext.formats.splits import Fold
from nnunet_ext.messages import some

TITLE = "same images"


def content_of(images: npt.NDArray[np.float32]) -> bytes | None:
    """What tells the images of a case from others, (C, Z, Y, X); None if all voxels of each channel are equal."""
    if all((channel == channel.flat[0]).all() for channel in images):
        return None
    return sha256(np.ascontiguousarray(images).data).digest()


def check_same_images(
    training: Mapping[str, bytes], test: Mapping[str, bytes], folds: Collection[Fold]
) -> Iterator[Finding]:
    """Look for cases with the same images in training and test, and in the two parts of a fold.

    Args:
        training: the contents of the cases in imagesTr, by name.
        test: those of the cases in imagesTs.
        folds: of the dataset; none if there are none yet, where nnU-Net's own may part any two cases.
    """
    named: dict[bytes, list[str]] = {}
    for name, content in training.items():
        named.setdefault(content, []).append(name)
    trained = [f"{name} ({named[content][0]})" for name, content in test.items() if content in named]
    if trained:
        detail = (
            f"{len(trained)} of {len(test)} cases of imagesTs have the images of a case of imagesTr: {some(trained)}. "
            "Scores on them are too good. Remove them from one of the two folders."
        )
        yield Finding("warning", TITLE, detail)
    groups = [names for names in named.values() if len(names) > 1]
    if apart := [" = ".join(names) for names in groups if _is_parted(names, folds)]:
        fix = "Remove one of them, or keep them together in splits_final.json."
        which = "A fold trains on one and validates on the other" if folds else "nnU-Net's own folds may part them"
        yield Finding("warning", TITLE, f"cases of imagesTr have the same images: {some(apart)}. {which}. {fix}")
    if not trained and not apart:
        yield Finding("ok", TITLE, "no case has those of another that it is measured with.")


def _is_parted(names: Collection[str], folds: Collection[Fold]) -> bool:
    """Whether a fold trains on some of the cases and validates on others of them; True without folds."""
    parted = (set(names) & set(fold["train"]) and set(names) & set(fold["val"]) for fold in folds)
    return not folds or any(parted)
