"""Statistics of features, kept at each materialization: how many, how many missing, how spread, how far moved."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from noria.storage import Put
from noria.storage.records import Records

_COLLECTION = "feature_statistics"
_SHARES = (0.0, 0.01, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.99, 1.0)
_DECILES = slice(2, 11)  # of the shares
_WEEK = 7 * 86_400_000_000
_TOP = 20


def describe(column: pl.Series, before: Mapping[str, Any] | None) -> dict[str, Any]:
    """One feature's statistics over all entities.

    `count` entities, `missing` of them without a value, `distinct` values; of numbers `mean`, `std` and `quantiles`
    (the shares 0, .01, .1 to .9, .99, 1); of others the `top` values with their counts; of lists how long they are.
    `psi` is the population stability index against the statistics before: Σ (q - p) · ln(q / p) over the old deciles
    (or top values), where above 0.25 is usually taken for a shift that needs a look.
    """
    if isinstance(column.dtype, pl.List):
        column = column.list.len().alias(column.name)
    known = column.drop_nulls()
    found: dict[str, Any] = {"count": len(column), "missing": column.null_count(), "distinct": known.n_unique()}
    if column.dtype.is_numeric():
        values = known.cast(pl.Float64).to_numpy()
        values = values[np.isfinite(values)]
        if len(values):
            found |= {"mean": float(values.mean()), "std": float(values.std())}
            found["quantiles"] = [float(v) for v in np.quantile(values, _SHARES)]
            edges = sorted(set(found["quantiles"][_DECILES]))
            found["bins"] = {"edges": edges, "shares": _shares(values, edges)}
        if before and before.get("bins") and len(values):
            found["psi"] = _psi(before["bins"]["shares"], _shares(values, before["bins"]["edges"]))
    else:
        top = known.cast(pl.String).value_counts().sort(["count", column.name], descending=[True, False]).head(_TOP)
        found["top"] = [[value, int(count)] for value, count in top.rows()]
        if before and before.get("top"):
            found["psi"] = _psi(*_by_value(found, before))
    return found


def _shares(values: NDArray[np.float64], edges: list[float]) -> list[float]:
    """The shares of the values between edges."""
    places = np.searchsorted(np.array(edges), values, side="right")
    shares: list[float] = (np.bincount(places, minlength=len(edges) + 1) / len(values)).tolist()
    return shares


def _by_value(now: Mapping[str, Any], before: Mapping[str, Any]) -> tuple[list[float], list[float]]:
    old, new = dict(before["top"]), dict(now["top"])
    all_old, all_new = max(1, before["count"] - before["missing"]), max(1, now["count"] - now["missing"])
    shares = [(old[value] / all_old, new.get(value, 0) / all_new) for value in old]
    rest = 1 - math.fsum(p for p, _ in shares), 1 - math.fsum(q for _, q in shares)
    return [*(p for p, _ in shares), rest[0]], [*(q for _, q in shares), rest[1]]


def _psi(before: list[float], now: list[float]) -> float:
    smooth = 1e-4
    pairs = [(max(p, 0.0) + smooth, max(q, 0.0) + smooth) for p, q in zip(before, now, strict=True)]
    return math.fsum((q - p) * math.log(q / p) for p, q in pairs)


def keep(records: Records, place: str, as_of: int, columns: list[pl.Series]) -> None:
    """Keep the statistics of a group's features as of an instant, compared with those of a week before."""
    before = a_week_before(records, place, as_of) or {}
    found = {column.name: describe(column, before.get(column.name)) for column in columns}
    records.commit(Put(_COLLECTION, f"{place}/{_number(as_of)}", {"as_of": as_of, "features": found}))


def newest(records: Records, place: str) -> dict[str, Any] | None:
    """The newest statistics: `as_of` and `features`."""
    found = records.list(_COLLECTION, f"{place}/", newest_first=True, limit=1)
    return found[0].data if found else None


def a_week_before(records: Records, place: str, as_of: int) -> dict[str, Any] | None:
    """The features' newest statistics that are at least a week older."""
    key = f"{place}/{_number(as_of - _WEEK)}"
    for record in records.list(_COLLECTION, f"{place}/", newest_first=True):
        if record.key <= key:
            features: dict[str, Any] = record.data["features"]
            return features
    return None


def _number(instant: int) -> str:
    """An instant as text that sorts like it."""
    return f"{instant + 2**62:020d}"
