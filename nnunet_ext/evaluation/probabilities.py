"""What a trained model says of a case before it decides: the probability of every label in every voxel."""

import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.preprocessing.resampling.default_resampling import compute_new_shape

from nnunet_ext.errors import UserError
from nnunet_ext.messages import counted
from nnunet_ext.preprocessing.raw.raw_dataset import Case, check_files, check_finite, read_images


class Predictor(nnUNetPredictor):
    """nnU-Net's predictor, which stops where an image or the model's answer holds values that are no numbers.

    nnU-Net would decide for background there, as if the model had found nothing.
    """

    def predict_logits_from_preprocessed_data(self, data: torch.Tensor) -> torch.Tensor:
        if not torch.isfinite(data).all():
            raise UserError(
                "An image holds values that are not finite (NaN or infinite) once it is normalised. Fix its values."
            )
        logits = super().predict_logits_from_preprocessed_data(data)
        if not torch.isfinite(logits).all():
            raise UserError(
                "The model's prediction holds values that are no numbers (NaN). Its training has probably diverged: "
                "look at its progress.png, and take another checkpoint."
            )
        return logits


def predict_probabilities(
    predictor: nnUNetPredictor, images: Sequence[Path], weights: Sequence[Mapping[str, Any]]
) -> npt.NDArray[np.float32]:
    """A model's probabilities in the geometry of the image files; see `predict_case`.

    Args:
        predictor: with a model of plain labels, no regions.
        images: the files of one case, one for each channel.
        weights: those of the predictor's ``list_of_parameters`` to predict with; several are an ensemble.
    """
    predictor.list_of_parameters = list(weights)
    with redirect_stdout(io.StringIO()):  # where nnU-Net tells of every step
        return predict_case(predictor, images)[1]


def predict_case(
    predictor: nnUNetPredictor, images: Sequence[Path]
) -> tuple[npt.NDArray[np.integer], npt.NDArray[np.float32]]:
    """What nnU-Net decides for a case, and the probabilities behind it, in the geometry of the image files.

    Args:
        predictor: with the model; all of its ``list_of_parameters`` predict, as an ensemble.
        images: the files of one case, one for each channel.

    Returns:
        The label map (Z, Y, X), and probabilities (C, Z, Y, X): background, then each label in the order of its value,
        or each region in the order of dataset.json.

    Raises:
        UserError: if the image was cut off or holds values that are no numbers; from a `Predictor` also if the model
            gives such values.
    """
    with unreadable_images_named(predictor, [images]):
        ((labels, probabilities),) = predictor.predict_from_files_sequential(
            [[str(image) for image in images]], None, save_probabilities=True
        )
    return labels, probabilities


@contextmanager
def unreadable_images_named(predictor: nnUNetPredictor, cases: Iterable[Sequence[Path]]) -> Iterator[None]:
    """Raise a UserError for images that were cut off, before the block, or that it cannot take, in place of its error.

    The block may raise anything for an image that cannot be read, is too small or holds values that are no numbers.
    """
    cases = list(cases)
    check_files(image for images in cases for image in images)  # a reader fills what is missing with zeros
    try:
        yield
    except Exception:  # whatever a library raises for a file; raised again if nothing is wrong with the file
        for images in cases:
            reader = predictor.plans_manager.image_reader_writer_class()
            data, properties = read_images(reader, Case(tuple(images), images[0]))
            _check_channels(predictor, len(data), images)
            _check_size(predictor, data.shape[1:], properties["spacing"], images[0])
            check_finite(data, images)
        raise


def _check_channels(predictor: nnUNetPredictor, found: int, images: Sequence[Path]) -> None:
    """Raise a UserError if a case has other channels than the model takes, as a picture in colour among grey ones."""
    wanted = len(predictor.configuration_manager.normalization_schemes)
    if found != wanted:
        raise UserError(
            f"{', '.join(map(str, images))}: found {counted(found, 'channel')}, and the model takes {wanted}. Convert "
            "the case as those that the model was trained on, or remove it."
        )


def _check_size(predictor: nnUNetPredictor, shape: Sequence[int], spacing: Sequence[float], file: Path) -> None:
    """Raise a UserError if nothing is left of an image at the model's spacing."""
    axes = predictor.plans_manager.transpose_forward
    shape, spacing = [shape[axis] for axis in axes], [spacing[axis] for axis in axes]
    target = predictor.configuration_manager.spacing
    target = [*spacing[: len(spacing) - len(target)], *target]  # a network of slices leaves their distance as it is
    if min(compute_new_shape(shape, spacing, target)) < 1:
        shown = [" × ".join(f"{value:g}" for value in values) for values in (shape, spacing, target)]
        raise UserError(
            f"{file} has {shown[0]} voxels of {shown[1]} mm. At the model's {shown[2]} mm nothing is left of it. Is "
            "its spacing right?"
        )
