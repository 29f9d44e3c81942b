"""Baselines: what a model has to beat, each judged on the same rows as the model.

- `majority` gives the most frequent class of the training part, and the classes' shares as probabilities; `mean` gives
  the mean of numbers.
- `last` repeats the entity's last value in the training part before the row's time, where rows have an entity and a
  time; for an entity without one it is the majority or the mean. It sees no more than the model may learn from: values
  in the test part may have become known too late.
- `one_feature` reads the one input that alone tells most of the training part: its bins' classes or means.

Of a model that isn't clearly better than the last two the verdict says so; one that is clearly worse isn't promoted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from noria.training.answers import Answers

ONE_FEATURE = "one_feature"
SAMPLE = 50_000
"""Training rows that bins are made of."""
_CHOOSING = 10_000
_BINS = 16
_MOST_VALUES = 50


@dataclass(frozen=True)
class Guess:
    """A baseline's answers.

    Attributes:
        title: what it does, in words.
    """

    title: str
    answers: Answers


@dataclass(frozen=True)
class Given:
    """What baselines are made of.

    Attributes:
        train: [rows, columns] entities and inputs of the rows that taught.
        test: of those that judge.
        taught: [rows] what was true of the rows that taught.
        truth: [rows] what is true of those that judge.
        train_times: event times; None without a time.
        inputs: which columns are the model's inputs.
        keys: the entity's columns; none where rows have no entity.
        classes: those that the model knows; None where it predicts numbers.
        seed: of the rows that are looked at.
    """

    train: pl.DataFrame
    test: pl.DataFrame
    taught: NDArray[Any]
    truth: NDArray[Any]
    train_times: NDArray[np.int64] | None
    test_times: NDArray[np.int64] | None
    inputs: Sequence[str]
    keys: Sequence[str]
    classes: NDArray[Any] | None
    seed: int

    def sample(self) -> NDArray[np.int64]:
        """The numbers of some rows of the training part, in order; all where they are few."""
        rows = len(self.taught)
        if rows <= SAMPLE:
            return np.arange(rows)
        return np.sort(np.random.default_rng(self.seed).choice(rows, SAMPLE, replace=False, shuffle=False))


def baselines(given: Given) -> dict[str, Guess]:
    """All that there are for these rows, by name."""
    targets = _Targets.of(given)
    simple = targets.guess(np.zeros(len(given.taught), np.int64), np.zeros(len(given.truth), np.int64), given.taught)
    name, title = ("mean", "the mean") if given.classes is None else ("majority", "the most frequent class")
    found = {name: Guess(title, simple)}
    if given.keys and given.train_times is not None:
        found["last"] = Guess("each entity's last value", _last(given, targets, simple))
    if len(given.inputs) > 1:
        best = _one_feature(given, targets)
        if best is not None:
            found[ONE_FEATURE] = best
    return found


@dataclass(frozen=True)
class _Targets:
    """Turns codes of rows into answers: per code the classes' shares or the mean, each with one row of all added."""

    classes: NDArray[Any] | None
    truth: NDArray[Any]

    @staticmethod
    def of(given: Given) -> _Targets:
        known = None if given.classes is None else np.unique(np.concatenate([given.classes, np.unique(given.taught)]))
        return _Targets(known, given.truth)

    def table(self, codes: NDArray[np.int64], taught: NDArray[Any], size: int) -> NDArray[np.float64]:
        """[size, classes] shares, or [size, 1] means."""
        if self.classes is None:
            numbers = np.asarray(taught, np.float64)
            sums = np.bincount(codes, numbers, size)[:, None]
            overall = np.array([numbers.mean()])
        else:
            places = np.searchsorted(self.classes, taught)
            width = len(self.classes)
            sums = np.bincount(codes * width + places, minlength=size * width).reshape(size, width).astype(np.float64)
            overall = sums.sum(axis=0) / len(taught)
        counts = np.bincount(codes, minlength=size)[:, None]
        made: NDArray[np.float64] = (sums + overall) / (counts + 1)
        return made

    def loss(self, table: NDArray[np.float64], codes: NDArray[np.int64], taught: NDArray[Any]) -> float:
        """How badly a table tells the rows: log loss, or the mean squared error."""
        if self.classes is None:
            return float(np.mean((table[codes, 0] - np.asarray(taught, np.float64)) ** 2))
        told = table[codes, np.searchsorted(self.classes, taught)]
        return float(-np.log(np.maximum(told, 1e-300)).mean())

    def guess(self, train: NDArray[np.int64], test: NDArray[np.int64], taught: NDArray[Any]) -> Answers:
        """Answers for rows with codes, from what rows with codes taught."""
        size = 1 + max(int(train.max(initial=0)), int(test.max(initial=0)))
        table = self.table(train, taught, size)[test]
        if self.classes is None:
            return Answers(self.truth, table[:, 0])
        return Answers(self.truth, self.classes[table.argmax(axis=1)], self.classes, table)


def _last(given: Given, targets: _Targets, simple: Answers) -> Answers:
    """The last value itself as the prediction; as probabilities, how often each class followed it."""
    assert given.train_times is not None
    assert given.test_times is not None
    keys = list(given.keys)
    past = _timed(given.train, keys, given.train_times).with_columns(at=pl.int_range(pl.len()))
    past = past.sort("time", maintain_order=True)

    def before(rows: pl.DataFrame) -> NDArray[np.int64]:
        """The training row before each row, of the same entity; -1 where there is none."""
        rows = rows.with_columns(row=pl.int_range(pl.len())).sort("time", maintain_order=True)
        found = rows.join_asof(
            past, on="time", by=keys, strategy="backward", allow_exact_matches=False, check_sortedness=False
        )
        return found.sort("row")["at"].fill_null(-1).to_numpy()

    places = before(_timed(given.test, keys, given.test_times))
    predicted = np.where(places < 0, simple.predicted, given.taught[places])
    if targets.classes is None:
        return Answers(given.truth, predicted.astype(np.float64))
    sample = given.sample()
    sampled = before(_timed(given.train[sample], keys, given.train_times[sample]))
    codes = 1 + np.searchsorted(targets.classes, given.taught)
    train, test = (np.where(at < 0, 0, codes[at]) for at in (sampled, places))
    return Answers(given.truth, predicted, targets.classes, targets.guess(train, test, given.taught[sample]).given)


def _timed(frame: pl.DataFrame, keys: list[str], times: NDArray[np.int64]) -> pl.DataFrame:
    return frame.select(keys).with_columns(time=pl.Series(times, dtype=pl.Int64))


def _one_feature(given: Given, targets: _Targets) -> Guess | None:
    sample = given.sample()
    few = sample[:: max(1, len(sample) // _CHOOSING)]
    names = [name for name in given.inputs if _can_be_read(given.train.schema[name])]
    losses = {}
    for name in names:
        column = given.train[name][few]
        codes = _codes(column, column)
        table = targets.table(codes, given.taught[few], _BINS + _MOST_VALUES + 2)
        losses[name] = targets.loss(table, codes, given.taught[few])
    if not losses:
        return None
    best = min(losses, key=lambda name: losses[name])
    column = given.train[best][sample]
    answers = targets.guess(_codes(column, column), _codes(column, given.test[best]), given.taught[sample])
    return Guess(f"one feature alone, {best}", answers)


def _can_be_read(dtype: pl.DataType) -> bool:
    return dtype.is_numeric() or dtype in (pl.Boolean, pl.String) or isinstance(dtype, (pl.Categorical, pl.Enum))


def _codes(known: pl.Series, values: pl.Series) -> NDArray[np.int64]:
    """Bins of values by what is known of the column: 0 for what is missing, 1 for a value that isn't known."""
    if known.dtype.is_numeric() or known.dtype == pl.Boolean:
        numbers = known.cast(pl.Float64).drop_nulls().drop_nans().to_numpy()
        edges = np.unique(np.quantile(numbers, np.arange(1, _BINS) / _BINS)) if len(numbers) else np.zeros(0)
        given = values.cast(pl.Float64).fill_null(float("nan")).to_numpy()
        return np.where(np.isnan(given), 0, 2 + np.searchsorted(edges, given, side="right")).astype(np.int64)
    text = known.cast(pl.String)
    frequent = text.drop_nulls().value_counts(sort=True)[text.name].head(_MOST_VALUES).sort().to_list()
    codes = values.cast(pl.String).replace_strict(
        frequent, list(range(2, 2 + len(frequent))), default=1, return_dtype=pl.Int64
    )
    return np.where(values.is_null().to_numpy(), 0, codes.to_numpy())
