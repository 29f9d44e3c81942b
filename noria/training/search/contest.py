"""A contest of model families: who is tried next, and who wins.

First each family with good parameters, the most promising on a few rows first; then the better a family is, the more
trials it gets: of every ten, five go to the best, three to the second and two to the third. Nothing is begun that, by
what trials have taken so far, wouldn't be ready in time together with the winner's last fit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np

from noria.training.estimator import Estimator
from noria.training.learner import Lesson
from noria.training.metrics import METRICS
from noria.training.search.budget import Budget
from noria.training.search.families import Family, Problem
from noria.training.search.folds import Fold
from noria.training.search.history import best_of, entry, noted
from noria.training.search.journal import Study, report_of
from noria.training.search.report import COMPLETE, FAILED, LATE, Report, bars
from noria.training.search.spaces import draw_all, plain
from noria.training.search.trial import Trial

PATIENCE = 30
"""Rounds of boosting without a better value."""
PILOT = 1_500
"""Rows from which a family's costs are told."""
FEW_ROUNDS, MORE_ROUNDS = 40, 5.0
"""Of scikit-learn's boosting on a few rows; and how many times as many a trial is thought to take."""
TURNS = (0, 1, 0, 2, 0, 1, 0, 2, 0, 1)
"""The rank of the family that is next."""
MARGIN = 0.9
"""Of the time that is planned with."""


@dataclass(frozen=True)
class Winner:
    """What is fitted to all rows in the end.

    Attributes:
        estimator: unfitted.
        onehot: whether its text becomes a column for each category.
        rows: at most, where there is no time for all.
    """

    estimator: Estimator
    onehot: bool = False
    rows: int | None = None

    def some_of(self, lesson: Lesson) -> Lesson:
        """The rows that it is fitted to: all, or so many, drawn at random."""
        if self.rows is None or self.rows >= len(lesson):
            return lesson
        chosen = np.zeros(len(lesson), np.bool_)
        chosen[np.random.default_rng(lesson.seed).permutation(len(lesson))[: self.rows]] = True
        return lesson.part(chosen)


@dataclass
class Entrant:
    """A family in the contest."""

    family: Family
    study: Study
    seconds: float = 0.0
    """Of one trial, as far as it is known."""
    pilot: Report | None = None
    reports: list[Report] = field(default_factory=list)

    def best(self, greater_is_better: bool) -> Report | None:
        return best_of(self.reports, greater_is_better)


class Contest:
    """One contest under way."""

    def __init__(
        self,
        storage: Any,
        families: Mapping[Family, str],
        problem: Problem,
        metric: str,
        folds_of: Callable[[Family], list[Fold]],
        budget: Budget,
        rule: str,
        lesson: Lesson,
    ) -> None:
        self.problem, self.metric, self.all_folds, self.budget = problem, metric, folds_of, budget
        self.rule, self.lesson = rule, lesson
        self.better = METRICS[metric].greater_is_better
        self.trial = Trial(metric, PATIENCE, quiet=True, clock=budget.clock)
        self.left_out = {family.name: why for family, why in families.items() if why}
        make = partial(Study, storage, seed=lesson.seed, greater_is_better=self.better)
        self.entrants = [Entrant(family, make(family.name)) for family, why in families.items() if not why]
        self.memory = self.entrants[0].study
        self.is_short = bool(self.memory.remembered("is_short"))
        self.task = f"{lesson.name}: auto" if lesson.name else "auto"
        self.turn = 0

    def run(self) -> None:
        """Everything but the last fit."""
        self.baselines = {name: self._judge_baseline(made) for name, made in baselines(self.problem).items()}
        self._go_on()
        if self.budget.minutes is not None:
            self._try_on_few_rows()
        while (entrant := self._next()) is not None:
            self._try(entrant)

    def folds_of(self, family: Family) -> list[Fold]:
        """Those on which it is judged."""
        folds = self.all_folds(family)
        return folds[-1:] if self.is_short else folds

    def _has_reports(self) -> bool:
        return any(entrant.reports for entrant in self.entrants)

    def _judge_baseline(self, made: Estimator) -> Report:
        return self.trial.run(lambda: made, self.folds_of(self.entrants[0].family))

    def _go_on(self) -> None:
        """Take up what an earlier process left, if one was killed."""
        for entrant in self.entrants:
            for trial in entrant.study.finished:
                report = report_of(trial)
                entrant.reports.append(report)
                entrant.seconds = max(entrant.seconds, report.seconds)
                self.budget = self.budget.spent(trial.user_attrs.get("report", {}).get("elapsed", 0.0))
            if not len(entrant.study):
                for first in entrant.family.first:
                    entrant.study.queue(first)
        self.turn = sum(max(0, len(entrant.reports) - 1) for entrant in self.entrants)
        self._tell_progress(sum(len(entrant.reports) for entrant in self.entrants))

    def _try_on_few_rows(self) -> None:
        """What a trial costs, and who is promising: by one fit to a few rows."""
        share = self.budget.left() or 0.0
        for entrant in self.entrants:
            folds = self.folds_of(entrant.family)
            few = some_rows(folds[0], PILOT, self.lesson.seed)
            first, more = dict(entrant.family.first[0]), 1.0
            if entrant.family.name == "hist_boosting":  # it can't be stopped between rounds
                first |= {entrant.family.rounds: FEW_ROUNDS}
                more = MORE_ROUNDS
            made = self._maker(entrant.family, first)
            report = self.trial.run(made, [few], seconds=0.3 * share, each=0.02 * share)
            entrant.pilot = report
            entrant.seconds = max(entrant.seconds, more * report.seconds * _rows(folds) / len(few.y))
            if (
                self.budget.left() or 0.0
            ) < 0.7 * share:  # even few rows take long: better one model than seven guesses
                break
        known = [entrant for entrant in self.entrants if entrant.pilot is not None]
        sign = 1 if self.better else -1
        # Whoever costs a quarter of the time on all folds leaves nothing for the others: then one fold judges.
        if not self._has_reports() and min(e.seconds for e in known) > 0.25 * (self.budget.left() or 0.0):
            self.is_short = True
            self.memory.remember("is_short", True)
            for entrant in known:
                entrant.seconds *= len(self.folds_of(entrant.family)[0].y) / _rows(self.all_folds(entrant.family))
            self.baselines = {name: self._judge_baseline(made) for name, made in baselines(self.problem).items()}
        known.sort(key=lambda e: -sign * e.pilot.score if e.pilot and e.pilot.end == COMPLETE else np.inf)
        self.entrants = known

    def _next(self) -> Entrant | None:
        """Whose turn it is; None when the budget is used up."""
        done = sum(len(entrant.reports) for entrant in self.entrants)
        if self.budget.trials is not None and done >= self.budget.trials:
            return None
        able = [entrant for entrant in self.entrants if self._has_time(entrant)]
        cut_off = [entrant for entrant in able if entrant.study.cut_off]
        fresh = [entrant for entrant in able if not entrant.reports]
        if cut_off or fresh:
            return (cut_off or fresh)[0]
        sign = 1 if self.better else -1
        judged = [(entrant.best(self.better), entrant) for entrant in able]
        ranked = sorted(((-sign * best.score, e) for best, e in judged if best), key=lambda pair: pair[0])
        if not ranked:
            return None
        turn = TURNS[self.turn % len(TURNS)]
        self.turn += 1
        return ranked[min(turn, len(ranked) - 1)][1]

    def _has_time(self, entrant: Entrant) -> bool:
        left = self.budget.left()
        if left is None:
            return True
        # Boosting adds as many rounds as there is time for.
        least = 0.05 if entrant.family.rounds and entrant.family.name != "hist_boosting" else 1.0
        return left * MARGIN > least * entrant.seconds * (1 + self._refit_share(entrant.family))

    def _refit_share(self, family: Family) -> float:
        return len(self.lesson) / _rows(self.folds_of(family))

    def _maker(self, family: Family, parameters: Mapping[str, Any]) -> Callable[[], Estimator]:
        return partial(family.make, self.problem, parameters)

    def _try(self, entrant: Entrant) -> None:
        cut_off = entrant.study.cut_off
        draws = entrant.study.begin(cut_off[0] if cut_off else None)
        parameters = draw_all(entrant.family.space, draws)
        folds = self.folds_of(entrant.family)
        limits = bars(self.rule, [r.steps for r in entrant.reports], greater_is_better=self.better)
        seconds = each = None
        left = self.budget.left()
        if left is not None:
            seconds = left * MARGIN / (1 + self._refit_share(entrant.family))
            waiting = sum(not other.reports and self._has_time(other) for other in self.entrants)
            each = seconds / len(folds) / (waiting + 1 if waiting else 1) * 0.8
        report = self.trial.run(self._maker(entrant.family, parameters), folds, limits, seconds, each=each)
        shown = {name: plain(value) for name, value in parameters.items()}
        entrant.study.tell(draws, report, self.budget.elapsed(), shown)
        entrant.reports.append(report)
        known = [r.seconds for r in entrant.reports if r.end in (COMPLETE, LATE)]
        entrant.seconds = float(np.mean(known)) if known else entrant.seconds
        self._tell_progress(1)

    def _tell_progress(self, steps: int) -> None:
        best = best_of((r for entrant in self.entrants for r in entrant.reports), self.better)
        note = ""
        if best is not None:
            leader = next(entrant for entrant in self.entrants if best in entrant.reports)
            note = f"best {self.metric} {best.score:.4f} ({leader.family.name})"
        self.lesson.progress.advance(self.task, steps, note)

    def result(self) -> tuple[Winner, dict[str, Any]]:
        """The winner, and what is kept of the contest."""
        sign = 1 if self.better else -1
        floor = best_of(self.baselines.values(), self.better)
        name = next((name for name, report in self.baselines.items() if report is floor), next(iter(self.baselines)))
        best = best_of((r for entrant in self.entrants for r in entrant.reports), self.better)
        winner, note, chosen = Winner(baselines(self.problem)[name]), "", name
        if best is not None and (floor is None or sign * best.score > sign * floor.score):
            entrant = next(e for e in self.entrants if any(r is best for r in e.reports))
            winner, chosen = Winner(self._final(entrant, best), entrant.family.onehot), entrant.family.name
        elif best is not None:
            note = f"nothing was better than the baseline, {name}: it is what was taken"
        else:
            hurried = self._in_a_hurry(floor)
            if hurried is not None:
                winner, chosen = hurried
                rows = f"{winner.rows} of {len(self.lesson)}"
                note = f"the minutes were too short for one trial on all rows: fitted to {rows}"
            else:
                note = f"the minutes were too short for a single trial: the baseline, {name}, is what was taken"
                failed = [r.reason for e in self.entrants for r in e.reports if r.end == FAILED]
                if failed:
                    note = f"every trial failed: the baseline, {name}, is what was taken; the first one: {failed[0]}"
        return winner, self._notes(best, note, chosen)

    def _final(self, entrant: Entrant, best: Report) -> Estimator:
        """The estimator with the best trial's parameters, and as many rounds as its folds found best."""
        place = next(number for number, report in enumerate(entrant.reports) if report is best)
        trial = entrant.study.finished[place]
        parameters = draw_all(entrant.family.space, entrant.study.drawn(trial.number))
        if entrant.family.rounds and best.rounds:
            parameters[entrant.family.rounds] = max(1, round(float(np.mean(best.rounds))))
        return entrant.family.make(self.problem, parameters)

    def _in_a_hurry(self, floor: Report | None) -> tuple[Winner, str] | None:
        """The best on a few rows, for as many rows as there is time for; None if it is no better than the baseline."""
        pilots = {e.family.name: e for e in self.entrants if e.pilot is not None and e.pilot.end == COMPLETE}
        best = best_of((e.pilot for e in pilots.values() if e.pilot), self.better)
        left, sign = self.budget.left(), 1 if self.better else -1
        if best is None or left is None or left <= 0 or floor is None or sign * best.score <= sign * floor.score:
            return None
        entrant = next(e for e in pilots.values() if e.pilot is best)
        parameters = dict(entrant.family.first[0])
        if entrant.family.rounds and best.rounds:
            parameters[entrant.family.rounds] = max(1, best.rounds[0])
        rows = min(len(self.lesson), int(PILOT * max(1.0, 0.5 * left / max(best.seconds, 1e-3))))
        made = Winner(entrant.family.make(self.problem, parameters), entrant.family.onehot, rows)
        return made, entrant.family.name

    def _notes(self, best: Report | None, note: str, chosen: str) -> dict[str, Any]:
        sign = 1 if self.better else -1
        board = [{"model": name, "score": _score(report)} for name, report in self.baselines.items()]
        history = []
        for entrant in self.entrants:
            trials, top = entrant.study.finished, entrant.best(self.better)
            history += [
                {"model": entrant.family.name, **entry(trial.number, trial.user_attrs, report)}
                for trial, report in zip(trials, entrant.reports, strict=True)
            ]
            spent = round(sum(report.seconds for report in entrant.reports), 2)
            row = {"model": entrant.family.name, "score": _score(top), "trials": len(trials), "seconds": spent}
            board.append(row | ({"on_few_rows": _score(entrant.pilot)} if entrant.pilot else {}))
        board.sort(key=lambda row: np.inf if row["score"] is None else -sign * float(row["score"]))
        notes = noted("auto", self.metric, self.budget.elapsed(), best, note, history)
        return {**notes, "chosen": chosen, "leaderboard": board, "left_out": self.left_out}


def baselines(problem: Problem) -> dict[str, Estimator]:
    """What says the same of every row."""
    from sklearn.dummy import DummyClassifier, DummyRegressor

    if problem.is_regression:
        return {"mean": DummyRegressor(strategy="mean"), "median": DummyRegressor(strategy="median")}
    return {"majority": DummyClassifier(strategy="prior")}


def some_rows(fold: Fold, rows: int, seed: int) -> Fold:
    """A fold with at most so many rows on each side, drawn at random, of classification at least one of each class."""
    random = np.random.default_rng(seed)
    learn = random.permutation(len(fold.y))
    # The first row of each class goes first, so that no class is lost.
    _, firsts = np.unique(fold.y[learn], return_index=True) if fold.y.dtype.kind != "f" else (None, np.array([], int))
    learn = np.concatenate([learn[firsts], np.delete(learn, firsts)])[:rows]
    judge = random.permutation(len(fold.judging_y))[:rows]
    weights = None if fold.weights is None else fold.weights[learn]
    return replace(
        fold,
        x=fold.x[learn],
        y=fold.y[learn],
        weights=weights,
        judging_x=fold.judging_x[judge],
        judging_y=fold.judging_y[judge],
    )


def _rows(folds: list[Fold]) -> int:
    return sum(len(fold.y) for fold in folds)


def _score(report: Report | None) -> float | None:
    return None if report is None or report.end != COMPLETE else float(f"{report.score:.6g}")
