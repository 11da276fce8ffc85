"""The few-shot experiment with another shift: the heart at the end of diastole, and at the end of systole."""

from benchmarks.data.domain_shift import HEART
from benchmarks.experiments.few_shot import FewShot

EXPERIMENT = FewShot(HEART).experiment("few_shot_acdc", "Fine-tuning with few cases: the heart's other phase")
