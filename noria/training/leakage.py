"""Leakage: does the training part know what it will be asked about the test part?

A model that has seen the answers is judged well and serves badly. A look at the rows before the fit finds the usual
ways in which that happens; what it finds is written down with the version, and what is suspicious is said aloud.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from noria.core import DataError
from noria.training.ranking import roc_area

ROWS = 20_000
"""Training rows on which features are looked at alone."""
GIVEAWAY = 0.99
"""From this AUC (or R²) on, a feature alone predicts the target almost perfectly."""
_BINS = 64
_DISTINCT = 0.5
"""Where at least this share of the training rows differ from all others, equal ones are no chance."""
_COPIES = 0.01
_TELLING = 4
"""Columns of fractions that are looked at first: rows that are no copies differ in them, nearly always."""
_FEW_ROWS = 50
"""Entities with at most so many rows are people and things; those with more (shops, airports) come again anyway."""


@dataclass(frozen=True)
class Leakage:
    """What was found.

    Attributes:
        features: how well each feature alone predicts the target: AUC for two classes, R² of the ranks for numbers,
            for more classes the share of wrong guesses that it saves; only those of at least `GIVEAWAY`.
        shared_entities: the share of test rows whose entity has training rows too; None without entities.
        future: the share of test rows than which some training row is newer; None without event times.
        copies: the share of test rows that stand, input by input and with their target, in the training part.
        warnings: what of this is suspicious, in words.
    """

    features: Mapping[str, float] = field(default_factory=dict)
    shared_entities: float | None = None
    future: float | None = None
    copies: float = 0.0
    warnings: Sequence[str] = ()

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON data, shares to six places."""
        shares = {"shared_entities": self.shared_entities, "future": self.future, "copies": self.copies}
        plain: dict[str, Any] = {name: round(share, 6) for name, share in shares.items() if share is not None}
        features = {name: round(score, 6) for name, score in self.features.items()}
        return {**plain, "features": features, "warnings": list(self.warnings)}


def find_leakage(
    inputs: pl.DataFrame,
    target: NDArray[Any],
    train: NDArray[np.bool_],
    test: NDArray[np.bool_],
    *,
    split: Any,
    times: NDArray[np.int64] | None = None,
    entities: NDArray[Any] | None = None,
    seed: int = 0,
) -> Leakage:
    """Look for what the training part knows of the test part.

    Raises:
        DataError: a split broke what it promises: entities or the order of time.
    """
    shared, rows_each = (None, 0.0) if entities is None else _shared(entities, train, test)
    future = None if times is None else float((times[test] <= times[train].max()).mean())
    _check_promises(split, shared, future)
    copies, distinct = _copies(inputs, target, train, test)
    features = giveaways(inputs, target, train, seed)
    warnings = [_giveaway(name, score, target) for name, score in features.items()]
    kind = type(split).__name__
    is_by_entity = getattr(split, "by", None) is not None or kind == "LeaveLastOut"
    is_ordered = getattr(split, "is_ordered", False)
    if shared and rows_each <= _FEW_ROWS and not is_by_entity and not is_ordered:
        warnings.append(
            f"{shared:.1%} of the test rows are of entities with training rows too: if the model will meet new ones, "
            "use nr.GroupSplit"
        )
    if future and not is_ordered and kind != "LeaveLastOut":
        warnings.append(
            f"some training row is newer than {future:.1%} of the test rows: if the model will predict the future, "
            "use nr.TimeSplit"
        )
    if copies >= _COPIES and distinct >= _DISTINCT:
        warnings.append(
            f"{copies:.1%} of the test rows stand in the training part too, inputs and target: drop copies with "
            "nr.Deduplicate in the source"
        )
    return Leakage(features, shared, future, copies, warnings)


def _check_promises(split: Any, shared: float | None, future: float | None) -> None:
    kind = type(split).__name__
    if shared and kind == "GroupSplit":
        raise DataError(f"{kind} left an entity on both sides ({shared:.1%} of the test rows)", hint="mend the split")
    if future and getattr(split, "is_ordered", False):
        raise DataError(
            f"{kind} trains on rows that are no older than {future:.1%} of the test rows", hint="mend the split"
        )


def _shared(entities: NDArray[Any], train: NDArray[np.bool_], test: NDArray[np.bool_]) -> tuple[float, float]:
    """The share of test rows whose entity trains too, and how many training rows an entity has."""
    known = pl.Series(entities[train]).unique()
    again = pl.Series(entities[test]).is_in(known.implode()).to_numpy()
    return float(again.mean()), float(train.sum() / len(known))


def _copies(
    inputs: pl.DataFrame, target: NDArray[Any], train: NDArray[np.bool_], test: NDArray[np.bool_]
) -> tuple[float, float]:
    """The share of test rows that stand in the training part, and the share of training rows that differ.

    Rows that differ in a few columns of fractions differ: then the others needn't be looked at.
    """
    fractions = [name for name, dtype in inputs.schema.items() if dtype.is_float()][:_TELLING]
    if fractions and not _again(inputs.select(fractions).hash_rows(seed=0), train, test).any():
        return 0.0, 1.0
    hashes = inputs.with_columns(pl.Series("__target__", target)).hash_rows(seed=0)
    known = hashes.filter(pl.Series(train))
    return float(_again(hashes, train, test).mean()), known.n_unique() / len(known)


def _again(hashes: pl.Series, train: NDArray[np.bool_], test: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """[test rows] whether a training row has the same hash."""
    return hashes.filter(pl.Series(test)).is_in(hashes.filter(pl.Series(train)).implode()).to_numpy()


def giveaways(inputs: pl.DataFrame, target: NDArray[Any], train: NDArray[np.bool_], seed: int) -> dict[str, float]:
    """Features that alone predict the target almost perfectly, on at most `ROWS` training rows.

    A feature's values are sorted into at most 64 bins (text: by itself; missing ones apart). Half of the rows say what
    the target is in each bin, the other half judge that: so a feature with many values isn't taken for a good one.
    """
    rows = np.flatnonzero(train)
    random = np.random.default_rng(seed)
    if len(rows) > ROWS:
        rows = np.sort(random.choice(rows, ROWS, replace=False))
    if len(rows) < 20:
        return {}
    some, truth = inputs[rows], target[rows]
    known = random.permutation(len(rows)) < len(rows) // 2
    aims = _aims(truth)
    found = {}
    for column in some.iter_columns():
        bins = _binned(column, known)
        score = math.nan if bins is None else _score(bins, aims, known, is_number=truth.dtype.kind == "f")
        if score >= GIVEAWAY:
            found[column.name] = score
    return found


def _aims(truth: NDArray[Any]) -> NDArray[np.float64]:
    """[rows, aims] numbers to predict: the target's rank, or for each class whether it is that one (two have one)."""
    if truth.dtype.kind == "f":
        return pl.Series(truth).rank("average").to_numpy()[:, None]  # a long tail would outweigh all the rest
    classes, number, counts = np.unique(truth, return_inverse=True, return_counts=True)
    chosen = np.argsort(-counts)[:_BINS]
    if len(classes) == 2:
        chosen = np.array([1])
    return np.asarray(number[:, None] == chosen[None, :], np.float64)


def _binned(column: pl.Series, known: NDArray[np.bool_]) -> NDArray[np.int64] | None:
    """Each row's bin; None for what isn't a value by itself."""
    if column.dtype == pl.String:
        return column.fill_null("").rank("dense").to_numpy().astype(np.int64)
    if not (column.dtype.is_numeric() or column.dtype == pl.Boolean):
        return None
    values = column.cast(pl.Float64).fill_null(float("nan")).to_numpy()
    distinct = np.unique(values[known])
    distinct = distinct[~np.isnan(distinct)]
    if len(distinct) > _BINS:
        # Of ranks, not of values: long tails get bins too.
        ordered = np.sort(values[known & ~np.isnan(values)])
        distinct = np.unique(ordered[np.linspace(0, len(ordered) - 1, _BINS).astype(np.int64)])
    return np.where(np.isnan(values), 0, 1 + np.searchsorted(distinct, values)).astype(np.int64)


def _score(bins: NDArray[np.int64], aims: NDArray[np.float64], known: NDArray[np.bool_], is_number: bool) -> float:
    """How well the bins' means predict the other half; NaN where there is nothing to tell apart."""
    size, judged = int(bins.max()) + 1, ~known
    rows = np.bincount(bins[known], minlength=size)
    means = aims[known].mean(axis=0)
    sums = np.stack([np.bincount(bins[known], weights=aim, minlength=size) for aim in aims[known].T], axis=1)
    table = np.where(rows[:, None] > 0, sums / np.maximum(rows, 1)[:, None], means)
    guess, truth = table[bins[judged]], aims[judged]
    if is_number:
        spread = float(((truth - truth.mean()) ** 2).sum())
        return math.nan if spread == 0 else 1 - float(((truth - guess) ** 2).sum()) / spread
    if aims.shape[1] == 1:
        return float(roc_area(truth[:, 0] > 0, guess[:, 0])(np.ones((1, len(guess))))[0])
    wrong = float((truth.argmax(axis=1) != guess.argmax(axis=1)).mean())
    blind = 1 - float(truth.mean(axis=0).max())
    return math.nan if blind == 0 else 1 - wrong / blind


def _giveaway(name: str, score: float, target: NDArray[Any]) -> str:
    kind = (
        "R² of ranks" if target.dtype.kind == "f" else "AUC" if len(np.unique(target)) == 2 else "accuracy over chance"
    )
    return (
        f"feature {name!r} alone predicts the target almost perfectly ({kind} {score:.3f}): is it known before the "
        "target is?"
    )
