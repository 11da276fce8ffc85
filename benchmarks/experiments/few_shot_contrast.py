"""The same as `few_shot_phase` with a simulated shift: the heart with inverted contrast and noise."""

from benchmarks.data.domain_shift import HEART_CONTRAST
from benchmarks.experiments.few_shot import FewShot
from benchmarks.experiments.few_shot_phase import experiment

EXPERIMENT = experiment(
    FewShot(HEART_CONTRAST, source_steps=2000),
    "few_shot_contrast",
    "Fine-tuning with few cases in 1,000 steps: another contrast of the heart",
    margin=0.01,
    more_seeds=(),  # in the other shift seeds differed by a tenth of what patients do
    more_steps=(3000,),
    more_entries=(8,),
    kernel_lr_factors=(10,),
)
