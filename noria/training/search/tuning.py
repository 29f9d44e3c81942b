"""`tune`: the best parameters of an estimator, found by trying."""

from __future__ import annotations

import inspect
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from noria.core import ConfigError, DataError, allowed, task
from noria.training.estimator import Estimator, definition, fresh_copy
from noria.training.families import family_of
from noria.training.learner import Learned, Lesson, fit_once
from noria.training.metrics import METRICS, check_metrics
from noria.training.search import spaces
from noria.training.search.budget import Budget
from noria.training.search.folds import Fold, fold_of, masks
from noria.training.search.history import best_of, entry, noted
from noria.training.search.journal import Draws, Study, open_storage, report_of
from noria.training.search.report import COMPLETE, FAILED, Report, bars, pruning_rule
from noria.training.search.spaces import SearchSpace, check_space, draw_all, plain
from noria.training.search.trial import Clock, Trial
from noria.training.search.workers import Job, Workers, workers


def tune(
    estimator: Estimator,
    space: SearchSpace,
    *,
    trials: int | None = 50,
    minutes: float | None = None,
    pruning: bool | str = True,
    folds: int = 3,
    compute: str | None = None,
) -> Tuned:
    """A model whose parameters are looked for on the training part, then fitted to all of it.

    Args:
        estimator: with what isn't looked for; as it is, it is what has to be beaten.
        space: by the parameter's name, `nr.uniform`, `nr.log`, `nr.integer` or `nr.choice`; or a function of a trial.
        trials: at most so many; None: as many as the minutes allow.
        minutes: at most so long, the last fit included as far as its time can be told before; None: no limit.
        pruning: whether unpromising trials end early: `True` or "median": those worse than half of the others at the
            same point; "halving": only the best third goes on at each point; `False`: none.
        folds: on which each trial is judged: by time, from the past to what came next, where the rows have times; else
            of classes alike, rows of one entity together.
        compute: who runs the trials: "local", "ray" or "ray://HOST:PORT"; by default what the project's setting says.

    Raises:
        ConfigError: an empty space, a parameter that the estimator doesn't have, or no budget.
    """
    return Tuned(estimator, space, trials, minutes, pruning, folds, compute)


@dataclass(frozen=True)
class Tuned:
    """A learner that looks for parameters; see `tune`."""

    estimator: Estimator
    space: SearchSpace
    trials: int | None = 50
    minutes: float | None = None
    pruning: bool | str = True
    folds: int = 3
    compute: str | None = None
    clock: Clock = field(default=time.monotonic, repr=False)

    def __post_init__(self) -> None:
        check_space(self.space)
        pruning_rule(self.pruning)
        Budget(self.trials, self.minutes, self.clock)
        if not callable(self.space):
            check_names(self.estimator, self.space)

    def to_dict(self) -> dict[str, Any]:
        return {
            "learner": "tune",
            "estimator": definition(self.estimator),
            "space": spaces.definition(self.space),
            "trials": self.trials,
            "minutes": self.minutes,
            "pruning": pruning_rule(self.pruning),
            "folds": self.folds,
        }

    def learn(self, lesson: Lesson) -> Learned:
        """Search, then fit the best to all rows.

        Raises:
            ConfigError: the estimator can't give what the metric needs.
            DataError: every trial failed.
        """
        check_gives(self.estimator, lesson.metric)
        better = METRICS[lesson.metric].greater_is_better
        study = Study(open_storage(lesson.directory), "tune", seed=lesson.seed, greater_is_better=better)
        from sklearn.base import is_regressor

        pairs = masks(lesson, self.folds, is_regression=is_regressor(self.estimator))
        folds = [fold_of(lesson, *pair, family_of(self.estimator)) for pair in pairs]
        search = _Search(self, lesson, study, folds)
        with task(lesson.progress, search.task, self.trials):
            search.run()
        best, notes = search.result()
        learned = fit_once(with_parameters(self.estimator, best), lesson)
        return Learned(learned.estimator, learned.inputs, {**learned.notes, "search": notes})


class _Search:
    """One search under way."""

    def __init__(self, tuned: Tuned, lesson: Lesson, study: Study, folds: list[Fold]) -> None:
        self.tuned, self.lesson, self.study, self.folds = tuned, lesson, study, folds
        self.better = METRICS[lesson.metric].greater_is_better
        self.rule = pruning_rule(tuned.pruning)
        self.budget = Budget(tuned.trials, tuned.minutes, tuned.clock).begun(study.remembered("elapsed") or 0.0)
        self.trial = Trial(lesson.metric, clock=tuned.clock)
        self.task = " ".join(filter(None, (lesson.name and f"{lesson.name}:", "tune", type(tuned.estimator).__name__)))
        self.drawn: dict[int, tuple[Draws, dict[str, Any]]] = {}

    def run(self) -> None:
        self.given = self._try_as_given()
        finished = self.study.finished
        if finished:
            self.budget = self.budget.spent(max(t.user_attrs.get("report", {}).get("elapsed", 0.0) for t in finished))
        self._tell_progress(len(finished))
        address = self.tuned.compute or self.lesson.compute
        pool = workers(address, self.trial, self.folds, self.tuned.estimator)
        waiting = self.study.cut_off
        while True:
            while len(self.drawn) < pool.slots and self._may_begin(bool(waiting)):
                self._begin(pool, waiting.pop(0) if waiting else None)
            if not self.drawn:
                return
            number, report = pool.wait()
            draws, parameters = self.drawn.pop(number)
            shown = {name: plain(value) for name, value in parameters.items()}
            self.study.tell(draws, report, self.budget.elapsed(), shown)
            self._tell_progress(1)

    def _try_as_given(self) -> Report:
        """The estimator as it was written, once in the life of a search; a mistake of ours ends it here."""
        kept = self.study.remembered("given")
        if kept is not None:
            return Report(kept["end"], kept["score"] if kept["score"] is not None else float("nan"), reason=kept["why"])
        report = self.trial.run(lambda: self.tuned.estimator, self.folds, seconds=self.budget.left(), strict=True)
        score = report.score if report.end == COMPLETE else None
        self.study.remember("given", {"end": report.end, "score": score, "why": report.reason})
        self.study.remember("elapsed", self.budget.elapsed())
        return report

    def _may_begin(self, is_waiting: bool) -> bool:
        complete = [report_of(trial).seconds for trial in self.study.finished if trial.value is not None]
        each = sum(complete) / len(complete) if complete else 0.0
        left = self.budget.left()
        fits = left is None or left > each * (1 + self._refit_share())
        return fits and (is_waiting or self.tuned.trials is None or len(self.study) < self.tuned.trials)

    def _refit_share(self) -> float:
        """The time of the last fit as a share of a trial's: by the rows that both learn from."""
        return len(self.lesson) / sum(len(fold.y) for fold in self.folds)

    def _begin(self, pool: Workers, number: int | None) -> None:
        draws = self.study.begin(number)
        parameters = draw_all(self.tuned.space, draws)
        check_names(self.tuned.estimator, parameters)
        reports = [report_of(trial) for trial in self.study.finished]
        limits = bars(self.rule, [report.steps for report in reports], greater_is_better=self.better)
        left = self.budget.left()
        make = partial(with_parameters, self.tuned.estimator, parameters)
        pool.start(draws.number, Job(make, limits, None if left is None else left / (1 + self._refit_share())))
        self.drawn[draws.number] = (draws, parameters)

    def _tell_progress(self, steps: int) -> None:
        best = best_of([self.given, *(report_of(trial) for trial in self.study.finished)], self.better)
        note = "" if best is None else f"best {self.lesson.metric} {best.score:.4f}"
        self.lesson.progress.advance(self.task, steps, note)

    def result(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """The best parameters, and what is kept of the search."""
        trials = self.study.finished
        reports = [report_of(trial) for trial in trials]
        best = best_of([self.given, *reports], self.better)
        if best is None and any(report.end == FAILED for report in (self.given, *reports)):
            why = next(r.reason for r in (*reports, self.given) if r.end == FAILED)
            raise DataError(
                f"{self.task}: all {len(reports) + 1} trials failed; the first one: {why}",
                hint="check the space, and that the estimator can learn from these rows as it is",
            )
        note, parameters = "", {}
        if best is None:
            note = "the minutes were too short for a single trial: the estimator is as it was given"
        elif best is self.given:
            note = "no trial was better than the estimator as it was given"
        else:
            number = next(trial.number for trial, report in zip(trials, reports, strict=True) if report is best)
            parameters = self._parameters(number)
        history = [entry(trial.number, trial.user_attrs, report) for trial, report in zip(trials, reports, strict=True)]
        shown = {name: plain(value) for name, value in parameters.items()}
        notes = noted("tune", self.lesson.metric, self.budget.elapsed(), best, note, history)
        given = self.given.score if self.given.end == COMPLETE else None
        return parameters, {**notes, "best": shown, "given": given, "folds": len(self.folds)}

    def _parameters(self, number: int) -> dict[str, Any]:
        """The values themselves: the journal keeps of a choice only its place."""
        return draw_all(self.tuned.space, self.study.drawn(number))


def with_parameters(estimator: Estimator, parameters: Mapping[str, Any]) -> Estimator:
    """A copy with these parameters."""
    copy: Any = fresh_copy(estimator)
    return copy.set_params(**parameters) if parameters else copy  # type: ignore[no-any-return]


def check_names(estimator: Estimator, parameters: Mapping[str, Any]) -> None:
    """Refuse parameters that the estimator doesn't have.

    Raises:
        ConfigError: with those that it has.
    """
    kind = type(estimator).__name__
    if not (hasattr(estimator, "get_params") and hasattr(estimator, "set_params")):
        raise ConfigError(
            f"{kind} has no parameters that can be set",
            hint="give it get_params and set_params, as sklearn.base.BaseEstimator does",
        )
    # CatBoost's `get_params` has only those that were given.
    signature = inspect.signature(type(estimator)).parameters.values()
    known = {*estimator.get_params(), *(one.name for one in signature if one.kind is not one.VAR_KEYWORD)}
    for name in parameters:
        if name not in known:
            raise ConfigError(f"{kind} has no parameter {name!r}", hint=allowed(known, name), field=name)


def check_gives(estimator: Estimator, metric: str) -> None:
    """Refuse a metric that reads probabilities of an estimator that gives none.

    Raises:
        ConfigError: it can't give them.
    """
    check_metrics((metric,))
    if METRICS[metric].needs_scores and not hasattr(estimator, "predict_proba"):
        raise ConfigError(
            f"metric {metric!r} needs probabilities, which {type(estimator).__name__} doesn't give",
            hint="take another metric first, or an estimator with predict_proba",
            field="metrics",
        )
