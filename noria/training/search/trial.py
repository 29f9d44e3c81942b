"""A trial: an estimator with some parameters, judged on folds."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from noria.core import NoriaError
from noria.training.estimator import Estimator, fresh_copy, probabilities
from noria.training.metrics import METRICS, judge
from noria.training.search.folds import Fold
from noria.training.search.report import COMPLETE, FAILED, LATE, PRUNED, RUNGS, Report, is_worse
from noria.training.search.rounds import Ended, Judged, Watch, as_read, fit_watched

Clock = Callable[[], float]
"""Seconds that only go forward."""


@dataclass(frozen=True)
class Trial:
    """How an estimator is tried.

    Attributes:
        metric: of `METRICS`, that decides.
        patience: rounds of boosting without a better value that are enough; 0: all that the parameters ask for.
        quiet: whether the libraries' warnings are of no interest.
        clock: for budgets and durations.
    """

    metric: str
    patience: int = 0
    quiet: bool = False
    clock: Clock = time.monotonic

    def run(
        self,
        make: Callable[[], Estimator],
        folds: Sequence[Fold],
        bars: Mapping[int, float] | None = None,
        seconds: float | None = None,
        *,
        each: float | None = None,
        strict: bool = False,
    ) -> Report:
        """Fit to each fold and judge.

        Args:
            make: gives the estimator, unfitted; may fail.
            folds: at least one.
            bars: the value that it has to reach at each step.
            seconds: after which it has to end; what has begun to fit goes on, unless its rounds can be watched.
            each: seconds of one fit after which boosting adds no more rounds.
            strict: raise a user's mistake instead of reporting it.
        """
        attempt = _Attempt(self, folds, bars or {}, self.clock(), seconds, each)
        try:
            with warnings.catch_warnings():
                if self.quiet:
                    warnings.simplefilter("ignore")
                end, reason = attempt.run(make), ""
        except Ended as ended:
            end, reason = str(ended), ""
        except Exception as error:  # whatever a library raises: the search goes on
            if strict and isinstance(error, NoriaError):
                raise
            end = FAILED
            reason = error.message if isinstance(error, NoriaError) else f"{type(error).__name__}: {error}"
        score = float(np.mean(attempt.scores)) if end == COMPLETE else np.nan
        if end == COMPLETE and not np.isfinite(score):
            end, reason = FAILED, f"its {self.metric} is {score}"
        taken = self.clock() - attempt.began
        return Report(end, float(score), attempt.steps, taken, reason[:300], tuple(attempt.rounds))


class _Attempt:
    """One trial under way."""

    def __init__(
        self,
        trial: Trial,
        folds: Sequence[Fold],
        bars: Mapping[int, float],
        began: float,
        seconds: float | None,
        each: float | None,
    ) -> None:
        self.trial, self.folds, self.bars, self.each = trial, folds, bars, each
        self.began, self.until = began, None if seconds is None else began + seconds
        self.scores: list[float] = []
        self.steps: dict[int, float] = {}
        self.rounds: list[int] = []

    def run(self, make: Callable[[], Estimator]) -> str:
        for number, given in enumerate(self.folds):
            self._check_time()
            estimator = fresh_copy(make())
            self.fold = fold = as_read(estimator, given)
            self.fit_began = self.trial.clock()
            watch = Watch(self._after, self.trial.patience, self.trial.metric, self._is_enough)
            rounds = fit_watched(estimator, fold, watch)
            if rounds is not None:
                self.rounds.append(rounds)
            predicted = np.asarray(estimator.predict(fold.judging_x)).reshape(len(fold.judging_y))
            self.scores.append(self._score((predicted, probabilities(estimator, fold.judging_x)), fold))
            # After the last fold it is known anyway.
            self._come_to(len(RUNGS) + number, float(np.mean(self.scores)), ends=number < len(self.folds) - 1)
        return COMPLETE

    def _score(self, answer: Judged, fold: Fold) -> float:
        predicted, given = answer
        classes = np.unique(fold.y) if given is not None and given.ndim == 2 else None
        return judge((self.trial.metric,), fold.judging_y, predicted, given, classes=classes)[self.trial.metric]

    def _after(self, rounds: int, predict: Callable[[], Judged] | None) -> None:
        self._check_time()
        if predict is not None and not self.scores and rounds in RUNGS:
            self._come_to(RUNGS.index(rounds), self._score(predict(), self.fold))

    def _is_enough(self) -> bool:
        return self.each is not None and self.trial.clock() - self.fit_began > self.each

    def _come_to(self, step: int, value: float, *, ends: bool = True) -> None:
        self.steps[step] = value
        better = METRICS[self.trial.metric].greater_is_better
        if ends and is_worse(value, self.bars.get(step), greater_is_better=better):
            raise Ended(PRUNED)

    def _check_time(self) -> None:
        if self.until is not None and self.trial.clock() > self.until:
            raise Ended(LATE)
