"""Volumes of reference and prediction in mm³, or areas in mm² of 2D images."""

from nnunet_ext.evaluation.metrics.metric import Metric

VOLUME_REFERENCE = Metric(
    "volume_reference",
    "reference volume",
    "dice",
    lambda label: (label.voxels.reference * label.voxel_size, 1.0),
    unit="mm³",
    has_figure=False,
)
VOLUME_PREDICTED = Metric(
    "volume_predicted",
    "predicted volume",
    "dice",
    lambda label: (label.voxels.predicted * label.voxel_size, 1.0),
    unit="mm³",
    has_figure=False,
)
