"""Normalized surface Dice at a tolerance that the user gives for each label."""

from nnunet_ext.evaluation.metrics.metric import Metric, plain

NSD = Metric(
    "nsd",
    "NSD",
    "nsd",
    lambda label: plain(label.surface_dice),
    full_title="Normalized surface Dice (NSD)",
    where_absent=1.0,
    mean="foreground_nsd",
    rule="nsd, normalized surface Dice, is the share of the voxels at both surfaces that are at most the label's "
    "tolerance away from the other surface. tolerances are in mm, or in pixels for images without a spacing. Voxels "
    "are counted; implementations that weigh by area give other numbers. NSD is 0 if a label is in reference or "
    "prediction alone. It is null if the label is in neither, and nsd_mean leaves such cases out. Predictions on "
    "ignored voxels are removed first.",
)
