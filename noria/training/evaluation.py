"""Judging a model: metrics with intervals, beside baselines, also for parts of the rows; and a verdict that says so.

A model is clearly better or worse than a baseline where the interval of the difference between them, drawn from the
same resamples, leaves out zero. The verdict is better where it is clearly better than guessing, and clearly worse than
no baseline. Everything is computed from rows that the model didn't learn from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from noria.training.answers import Answers, answer
from noria.training.baselines import Given, baselines
from noria.training.bootstrap import FEWEST_RESAMPLES, LEVEL, Interval, Rows, Task, intervals, metric_tasks
from noria.training.learner import Learned, rows_of
from noria.training.metrics import METRICS, check_answers
from noria.training.slices import Slice, Sliced, sliced

FEW = 20
"""Slices of fewer rows, or of fewer entities where rows share them, have no metrics: they would say too little."""
FEWEST_ENTITIES = 50
"""Resampling fewer entities than that tells too little of how much they differ."""
_SLICED_ROWS = 150_000
"""Rows of all slices that are drawn together, in each resample."""
_MOST_OF_A_SLICE, _LEAST_OF_A_SLICE = 4_000, 500


@dataclass(frozen=True)
class Trial:
    """A model and the rows that judge it.

    Attributes:
        learned: the model.
        frame: [rows, columns] all rows with their entities, time, inputs, and what slices read.
        inputs: which columns the model reads.
        target: [rows].
        train: which rows taught.
        test: which rows judge.
        metrics: names; the first one decides.
        times: [rows] event times in microseconds; None without a time.
        time: the column of `frame` that has them.
        entities: the columns of each entity that the rows belong to.
        slices: by what to slice; nothing for the default.
        seed: of everything random.
    """

    learned: Learned
    frame: pl.DataFrame
    inputs: Sequence[str]
    target: NDArray[Any]
    train: NDArray[np.bool_]
    test: NDArray[np.bool_]
    metrics: Sequence[str]
    times: NDArray[np.int64] | None = None
    time: str | None = None
    entities: Sequence[Sequence[str]] = ()
    slices: Sequence[Slice] = ()
    seed: int = 0


@dataclass(frozen=True)
class Part:
    """A slice: how many rows (and entities) it has, and its metrics, if it isn't too small for any."""

    rows: int
    entities: int | None
    metrics: dict[str, Interval] = field(default_factory=dict)


@dataclass(frozen=True)
class Evaluation:
    """What came of it.

    Attributes:
        answers: what the model said of the rows that judge.
        metrics: by name; those that aren't defined for these rows aren't there.
        baselines: by name: the metrics of each.
        titles: what each baseline does, in words.
        differences: by baseline: by how much the model is better, in the deciding metric; negative where it is worse;
            none where that metric isn't defined.
        slices: by column and value.
        entity: the columns by whose values rows were drawn together; none if one by one.
        is_better: whether it is clearly better than guessing, and not clearly worse than any baseline.
        verdict: the same in words.
    """

    answers: Answers
    metrics: dict[str, Interval]
    baselines: dict[str, dict[str, float]]
    titles: dict[str, str]
    differences: dict[str, Interval]
    slices: dict[str, dict[str, Part]]
    entity: tuple[str, ...]
    is_better: bool
    verdict: str

    @property
    def values(self) -> dict[str, float]:
        """The metrics without their intervals."""
        return {name: one.value for name, one in self.metrics.items()}

    @property
    def baseline(self) -> dict[str, float]:
        """The metrics of guessing: the most frequent class, or the mean."""
        return next(iter(self.baselines.values()))

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON data, as it is kept with the version."""
        return {
            "metrics": {name: one.to_dict() for name, one in self.metrics.items()},
            "slices": {
                column: {value: _part_to_dict(part) for value, part in parts.items()}
                for column, parts in self.slices.items()
            },
            "baselines": self.baselines,
            "titles": self.titles,
            "differences": {name: one.to_dict() for name, one in self.differences.items()},
            "rows": len(self.answers),
            "by": list(self.entity),
            "level": LEVEL,
            "verdict": self.verdict,
        }

    def line(self) -> str:
        """The metrics in a line: `roc_auc 0.7312 [0.7251, 0.7370], accuracy 0.81 …`."""
        return ", ".join(f"{name} {interval_text(one)}" for name, one in self.metrics.items())


def interval_text(one: Interval) -> str:
    """`0.7312 [0.7251, 0.7370]`, with four digits or more."""
    ends = [one.low, one.high]
    if None in ends:
        return short_text(one.value)
    return f"{short_text(one.value)} [{', '.join(short_text(end) for end in ends if end is not None)}]"


def evaluate(trial: Trial) -> Evaluation:
    """Judge a model.

    Raises:
        ConfigError: a metric can't judge what the model gives.
    """
    names = tuple(trial.metrics)
    shown, truth = rows_of(trial.frame, trial.test), trial.target[trial.test]
    answers = answer(trial.learned, shown.select(trial.inputs), truth)
    check_answers(names, answers)
    guesses = baselines(_given(trial, shown, truth, answers))
    scored = {name: _scored(names, guess.answers) for name, guess in guesses.items()}
    entity, rows = _rows(trial, shown)
    rivals = {name: guesses[name].answers for name, values in scored.items() if names[0] in values}
    metrics, differences = _judged(names, answers, rivals, rows)
    titles = {name: guess.title for name, guess in guesses.items()}
    is_better, verdict = _verdict(names[0], metrics, differences, scored, titles)
    columns = sliced(shown, trial.slices, trial.inputs, trial.time)
    return Evaluation(
        answers,
        metrics,
        scored,
        titles,
        differences,
        _sliced(columns, names, answers, rows),
        entity,
        is_better,
        verdict,
    )


def _given(trial: Trial, shown: pl.DataFrame, truth: NDArray[Any], answers: Answers) -> Given:
    keys = max(trial.entities, key=lambda keys: _distinct(shown, keys), default=())
    numbers = not answers.has_classes or all(METRICS[name].of == "numbers" for name in trial.metrics)
    return Given(
        rows_of(trial.frame, trial.train),
        shown,
        trial.target[trial.train],
        truth,
        None if trial.times is None else trial.times[trial.train],
        None if trial.times is None else trial.times[trial.test],
        trial.inputs,
        keys,
        None if numbers else answers.classes,
        trial.seed,
    )


def _distinct(frame: pl.DataFrame, keys: Sequence[str]) -> int:
    return int(frame.select(pl.struct(keys).n_unique()).item())


def _scored(names: tuple[str, ...], answers: Answers) -> dict[str, float]:
    values = {name: METRICS[name].value(answers) for name in names}
    return {name: value for name, value in values.items() if np.isfinite(value)}


def _rows(trial: Trial, shown: pl.DataFrame) -> tuple[tuple[str, ...], Rows]:
    """How the rows are drawn: by the entity with the fewest values of those that have enough, or one by one.

    The fewest, for then the fewest rows are taken to be independent of each other.
    """
    rows = Rows(len(shown), seed=trial.seed)
    counts = {tuple(keys): _distinct(shown, keys) for keys in trial.entities}
    enough = {keys: count for keys, count in counts.items() if FEWEST_ENTITIES <= count < len(shown)}
    if not enough:
        return (), rows
    keys = min(enough, key=lambda one: enough[one])
    units = shown.select(pl.struct(list(keys)).rank("dense")).to_series().to_numpy().astype(np.int64) - 1
    return keys, replace(rows, units=units)


def _judged(
    names: tuple[str, ...], answers: Answers, rivals: dict[str, Answers], rows: Rows
) -> tuple[dict[str, Interval], dict[str, Interval]]:
    """The metrics, and by how much the first one is better than the rivals'."""
    order = _ranking(answers)
    if order is not None:
        answers, rows = answers.take(order), rows.take(order)
        rivals = {name: rival.take(order) for name, rival in rivals.items()}
    first = METRICS[names[0]]
    tasks = [*metric_tasks(names, answers), *(Task(first, rival) for rival in rivals.values())]
    places = range(len(names), len(tasks))
    pairs = [(0, place) if first.greater_is_better else (place, 0) for place in places]
    found, differences = intervals(tasks, rows, minus=pairs)
    metrics = {name: one for name, one in zip(names, found, strict=False) if np.isfinite(one.value)}
    return metrics, dict(zip(rivals, differences, strict=True)) if names[0] in metrics else {}


def _ranking(answers: Answers) -> NDArray[np.int64] | None:
    """The rows by score: metrics that rank them have then nothing to look up."""
    if not (answers.has_probabilities and answers.is_binary):
        return None
    return np.argsort(answers.probabilities[:, 1], kind="stable")


def _sliced(
    columns: Sequence[Sliced], names: tuple[str, ...], answers: Answers, rows: Rows
) -> dict[str, dict[str, Part]]:
    parts = sum(len(column.values) for column in columns)
    most_rows = min(_MOST_OF_A_SLICE, max(_LEAST_OF_A_SLICE, _SLICED_ROWS // max(1, parts)))
    found: dict[str, dict[str, Part]] = {}
    for column in columns:
        order = np.argsort(column.codes, kind="stable")
        ends = np.cumsum(np.bincount(column.codes, minlength=len(column.values)))
        for value, start, end in zip(column.values, [0, *ends], ends, strict=False):
            if end > start:
                part = _part(names, answers, rows, order[start:end], most_rows)
                found.setdefault(column.title, {})[value] = part
    return found


def _part(names: tuple[str, ...], answers: Answers, rows: Rows, chosen: NDArray[np.int64], most_rows: int) -> Part:
    own = rows.take(chosen)
    entities = None if own.units is None else own.drawn
    if own.drawn < FEW:
        return Part(len(chosen), entities)
    tasks = metric_tasks(names, answers.take(chosen))
    found, _ = intervals(tasks, own, most_rows=most_rows, most=FEWEST_RESAMPLES)
    return Part(len(chosen), entities, {n: one for n, one in zip(names, found, strict=True) if one.low is not None})


def _part_to_dict(part: Part) -> dict[str, Any]:
    entities = {} if part.entities is None else {"entities": part.entities}
    return {"rows": part.rows, **entities, **{name: one.to_dict() for name, one in part.metrics.items()}}


def _verdict(
    metric: str,
    metrics: dict[str, Interval],
    differences: dict[str, Interval],
    scored: dict[str, dict[str, float]],
    titles: dict[str, str],
) -> tuple[bool, str]:
    """Whether it is better, and why: beside the best baseline of those that say so."""
    if not differences:
        return False, f"not judged: {metric} isn't defined for the rows that judge; are they all of one class?"
    guessing, *others = differences
    worse = [name for name, one in differences.items() if one.high is not None and one.high < 0]
    beaten = [name for name, one in differences.items() if one.low is not None and one.low > 0]
    is_better = guessing in beaten and not worse
    shown = beaten if is_better else worse or [guessing]
    name = min(shown, key=lambda one: differences[one].value)
    text = f"{_compared(differences[name])} {titles[name]}: {metric} {interval_text(metrics[metric])}"
    text += f" against {short_text(scored[name][metric])}"
    for other in others if is_better else ():
        if other not in beaten:
            text += f"; {_compared(differences[other])} {titles[other]}: {short_text(scored[other][metric])}"
    return is_better, text


def _compared(difference: Interval) -> str:
    if difference.low is not None and difference.low > 0:
        return "better than"
    return "not clearly better than" if difference.value > 0 else "not better than"


def short_text(value: float) -> str:
    """A metric's value: four digits after the point, where it isn't large."""
    return f"{value:.4f}" if abs(value) < 100 else f"{value:,.1f}"
