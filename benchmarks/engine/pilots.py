"""What the pilot chooses, on cases that are in no test: learning rates, and thresholds of the probability."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NoReturn

import pandas as pd

from benchmarks.engine.experiment import Method, Training
from benchmarks.engine.journal import NotDone
from benchmarks.engine.operating_points import read_points
from benchmarks.engine.statistics import figure
from nnunet_ext.errors import UserError
from nnunet_ext.evaluation.operating_points import best_point

if TYPE_CHECKING:
    from benchmarks.engine.runner import Runner


class Pilots:
    """The pilot of an experiment; what a choice needs and is missing is trained and scored by the runner."""

    def __init__(self, runner: Runner) -> None:
        self.runner, self.experiment, self.journal = runner, runner.experiment, runner.journal

    def chosen_lr(self, method: Method, steps: int) -> float:
        """The best learning rate of a method at a length; tries what is missing.

        Raises:
            NotDone: if no rate that was tried has a score.
        """
        pilot = self.experiment.pilot
        assert pilot is not None
        first, step = pilot.first_for(method.family_name), f"rate_of_{method.name}_{steps}steps"
        scores: dict[float, float] = {}
        while (lr := next_rate(pilot.rates, first, scores)) is not None:
            for training in self.experiment.trials(method, steps, lr):
                self.runner.score(training, [self.experiment.pilot_test])
            score = self.score_of(method, steps, lr)
            if self.journal.is_dry and score is None:
                return best_rate(scores) if scores else first
            scores[lr] = float("nan") if score is None else score
        if all(score != score for score in scores.values()):
            wanted = f"{pilot.level} F1" if pilot.level else pilot.metric
            reason = f"No training of {method.name}'s pilot has a {wanted}. Give another Pilot.first."
            self._give_up(step, reason)
        self.journal.forget_failure(step)
        return best_rate(scores)

    def score_of(self, method: Method, steps: int, lr: float) -> float | None:
        """The mean score of a rate over the pilot's seeds; None before all are scored, NaN if one is undefined."""
        pilot, test = self.experiment.pilot, self.experiment.pilot_test
        assert pilot is not None
        trials = self.experiment.trials(method, steps, lr)
        if not all(self.runner.is_scored(training, test) for training in trials):
            return None
        if pilot.level:
            best = best_point(self.operating_points(trials, pilot.level))
            return float("nan") if best is None else float(best["f1"])
        values = [figure(self.runner.scores(training, test), pilot.metric) for training in trials]
        return sum(values) / len(values)

    def chosen_threshold(self, training: Training, level: str) -> float:
        """The threshold of the probability that has the best F1 in the pilot, for a method at its learning rate.

        Raises:
            NotDone: if no threshold has an F1 above 0.
        """
        pilot, test = self.experiment.pilot, self.experiment.pilot_test
        assert pilot is not None
        steps = pilot.steps or training.steps
        trials = self.experiment.trials(training.method, steps, self.runner.lr_of(training))
        for trial in trials:
            self.runner.score(trial, [test])
        if self.journal.is_dry:
            return 0.5
        best = best_point(self.operating_points(trials, level))
        if best is None:
            self._give_up(f"threshold_{trials[0].name}", f"{trials[0].name} finds no {level} at any threshold.")
        threshold = float(best["threshold"])
        shown = f"{training.method.name}, {steps} steps: threshold {threshold:g}"
        self.journal.do(f"threshold_{trials[0].name}", lambda: None, shown=shown)
        return threshold

    def _give_up(self, step: str, reason: str) -> NoReturn:
        """Keep why nothing can be chosen; only what needs the choice is left out."""

        def fail() -> None:
            raise UserError(reason)

        self.journal.do(step, fail, shown=step.replace("_", " "))
        raise NotDone(step)

    def operating_points(self, trials: Sequence[Training], level: str) -> pd.DataFrame:
        """The F1 of voxels or lesions at each threshold, the mean over the trials; an undefined one counts as 0."""
        folders = [self.runner.evaluation(trial, self.experiment.pilot_test) for trial in trials]
        points = pd.concat([read_points(folder) for folder in folders])
        chosen = points[points.level == level]
        return chosen.fillna({"f1": 0.0}).groupby("threshold", as_index=False)["f1"].mean()


def best_rate(scores: Mapping[float, float]) -> float:
    """The rate of the highest score, the smaller one of equals; one without a score is never the best."""
    return min(scores, key=lambda lr: (-scores[lr] if scores[lr] == scores[lr] else float("inf"), lr))


def next_rate(rates: Sequence[float], first: float, scores: Mapping[float, float]) -> float | None:
    """The rate to try next; None where the best one has tried neighbours on both sides, or is the last there is."""
    if not scores:
        return first
    best = rates.index(best_rate(scores))
    neighbours = [rates[place] for place in (best + 1, best - 1) if 0 <= place < len(rates)]
    return next((lr for lr in neighbours if lr not in scores), None)


def searched_rates(rates: Sequence[float], first: float, known: Mapping[float, float]) -> dict[float, float]:
    """The scores that a search has come to, of all that are known; all of them if the search began elsewhere."""
    scores: dict[float, float] = {}
    while (lr := next_rate(rates, first, scores)) is not None and lr in known:
        scores[lr] = known[lr]
    return scores or dict(known)
