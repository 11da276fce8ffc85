"""Share of the reference's instances that are found, from the counts of all cases."""

from nnunet_ext.evaluation.metrics.metric import Metric

LESION_RULE = (
    "lesions are instances of a label. Those of the reference come from the maps in the folder instances. Without "
    "maps, and for labels that a map leaves out, they are connected components, as those of the prediction always are. "
    "An instance of the reference is found if at least the share overlap of its voxels is predicted. A predicted "
    "instance is right if at least that share of its voxels is in the reference. Ignored voxels do not count. Recall "
    "is null without an instance in the reference, precision without a predicted one, F1 without either. F1 is 0 if "
    "only one side has instances. A label's lesions are sums over all cases, and the rates of these sums."
)

LESIONS_RECALL = Metric(
    "lesions_recall",
    "instance recall",
    "lesions",
    lambda label: (label.lesions.found, label.lesions.reference),
    of_cases=False,
    parts=("found", "reference"),
    rule=LESION_RULE,
)
