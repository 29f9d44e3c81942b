"""The gates that noria has: what a version has to be before it may become the champion."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from noria.core import ConfigError, allowed
from noria.registry.evidence import Evidence, Gate, Needs, Verdict

_SIZES = {"B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
_TIMES = {"us": 1e-6, "ms": 1e-3, "s": 1.0}
_SHOWN = 3


class _Kept:
    """What is the same for all gates of ours: how they are kept."""

    kind: ClassVar[str]

    def to_dict(self) -> dict[str, Any]:
        """The definition as plain JSON data."""
        return {"gate": self.kind, **asdict(self)}  # type: ignore[call-overload]


@dataclass(frozen=True)
class Better(_Kept):
    """The candidate is better than the champion, on the same rows where these can be read.

    Attributes:
        metric: by which.
        by: by how much at least.
        sure: whether chance has to be ruled out: the low end of the gain's 95 % interval counts.
    """

    kind: ClassVar[str] = "better"
    metric: str
    by: float = 0.0
    sure: bool = False

    @property
    def needs(self) -> Needs:
        return Needs((self.metric,))

    def judge(self, candidate: Evidence, champion: Evidence | None) -> Verdict:
        gate = f"better in {self.metric} by {self.by:g}{' for sure' if self.sure else ''}"
        if champion is None:
            return Verdict(gate, True, "there is no champion to compare with")
        for one in (candidate, champion):
            if self.metric not in one.metrics:
                return _unknown(gate, one, "metrics", f"the {self.metric} of {one.label} isn't known")
        ours, theirs = candidate.metrics[self.metric], champion.metrics[self.metric]
        gain = theirs - ours if self.metric in candidate.lower else ours - theirs
        told = f"{ours:.4f} against {theirs:.4f} of {champion.label}, on {candidate.rows}"
        if self.sure:
            low = _least_gain(self.metric, candidate, theirs)
            if low is None:
                return _unknown(gate, candidate, "intervals", f"the {self.metric} of {candidate.label} has no interval")
            gain, told = low, f"{told}; {low:+.4f} at the low end of the gain's 95 % interval"
        return Verdict(gate, gain > 0 and gain >= self.by - 1e-12, told)


def _least_gain(metric: str, candidate: Evidence, theirs: float) -> float | None:
    """The low end of the gain; without common rows, of the candidate's own interval against the champion's value."""
    if candidate.gain is not None:
        return candidate.gain(metric)[0]
    if metric not in candidate.intervals:
        return None
    low, high = candidate.intervals[metric]
    return theirs - high if metric in candidate.lower else low - theirs


@dataclass(frozen=True)
class Limit(_Kept):
    """A metric has a least or a greatest value."""

    kind: ClassVar[str] = "limit"
    metric: str
    least: float | None = None
    most: float | None = None

    @property
    def needs(self) -> Needs:
        return Needs((self.metric,))

    def judge(self, candidate: Evidence, champion: Evidence | None) -> Verdict:
        gate = f"{self.metric} at {'most' if self.least is None else 'least'} {self.bound:g}"
        if self.metric not in candidate.metrics:
            return _unknown(gate, candidate, "metrics", f"the {self.metric} of {candidate.label} isn't known")
        value = candidate.metrics[self.metric]
        fits = value <= self.bound if self.least is None else value >= self.bound
        return Verdict(gate, fits, f"{value:.4f}, on {candidate.rows}")

    @property
    def bound(self) -> float:
        """The one of both that is given."""
        return float(self.most if self.least is None else self.least)  # type: ignore[arg-type]


@dataclass(frozen=True)
class _Loss:
    """By how much a slice is worse, and that in words."""

    loss: float
    column: str
    value: str
    told: str


@dataclass(frozen=True)
class NoSliceWorse(_Kept):
    """On no slice of the rows is the candidate worse than the champion, beyond chance.

    A slice is worse when the metric is, by more than `by`, and when the 95 % interval of the loss leaves out 0: of many
    slices some are worse by chance. Where the versions have no common rows, the values alone decide.

    Attributes:
        metric: by which.
        by: how much worse it may be.
        columns: whose values make the slices; empty: all columns by which slices are known.
        rows: a slice with fewer says too little, and isn't judged.
    """

    kind: ClassVar[str] = "no_slice_worse"
    metric: str
    by: float = 0.0
    columns: tuple[str, ...] = ()
    rows: int = 200

    @property
    def needs(self) -> Needs:
        return Needs((self.metric,), columns=self.columns)

    def judge(self, candidate: Evidence, champion: Evidence | None) -> Verdict:
        of = f" of {', '.join(self.columns)}" if self.columns else ""
        gate = f"no slice{of} worse in {self.metric} by {self.by:g}"
        if champion is None:
            return Verdict(gate, True, "there is no champion to compare with")
        columns = self.columns or tuple(candidate.slices)
        for one in (candidate, champion):
            lacking = [column for column in columns if column not in one.slices]
            if lacking or not columns:
                which = f" by {lacking[0]}" if lacking else ""
                return _unknown(gate, one, "slices", f"{one.label} has no slices{which}")
        compared = [found for column in columns for found in self._compared(column, candidate, champion)]
        if not compared:
            return Verdict(gate, None, f"no slice has {self.rows:,} rows and a {self.metric} in both versions")
        losses = sorted((one for one in compared if one.loss > self.by + 1e-12), key=lambda one: -one.loss)
        worse = [one for one in losses if self._is_sure(one, candidate)]
        chance = f"; {len(losses) - len(worse)} worse within chance" if len(losses) > len(worse) else ""
        if not worse:
            told = f"{len(compared)} slices of {self.rows:,} rows or more, on {candidate.rows}{chance}"
            return Verdict(gate, True, told)
        more = f" and {len(worse) - _SHOWN} more" if len(worse) > _SHOWN else ""
        return Verdict(gate, False, "; ".join(one.told for one in worse[:_SHOWN]) + more + chance)

    def _is_sure(self, loss: _Loss, candidate: Evidence) -> bool:
        return candidate.gain is None or candidate.gain(self.metric, loss.column, loss.value)[1] < 0

    def _compared(self, column: str, candidate: Evidence, champion: Evidence) -> list[_Loss]:
        """By how much each slice is worse."""
        found = []
        for value, ours in candidate.slices[column].items():
            theirs = champion.slices[column].get(value, {})
            a, b = ours.get(self.metric), theirs.get(self.metric)
            if a is None or b is None or min(ours["rows"], theirs["rows"]) < self.rows:
                continue
            loss = a["value"] - b["value"] if self.metric in candidate.lower else b["value"] - a["value"]
            told = f"{column} {value}: {a['value']:.4f} against {b['value']:.4f} ({ours['rows']:,} rows)"
            found.append(_Loss(loss, column, value, told))
        return found


@dataclass(frozen=True)
class LatencyUnder(_Kept):
    """One row is answered within `seconds`, 99 times of 100, on the machine that asks."""

    kind: ClassVar[str] = "latency_under"
    seconds: float

    @property
    def needs(self) -> Needs:
        return Needs(latency=True)

    def judge(self, candidate: Evidence, champion: Evidence | None) -> Verdict:
        gate = f"latency under {self.seconds * 1e3:g} ms"
        if candidate.latency is None:
            return _unknown(gate, candidate, "latency", "it wasn't measured")
        told = f"99 of 100 answers to one row within {candidate.latency * 1e3:.3g} ms on this machine"
        return Verdict(gate, candidate.latency < self.seconds, told)


@dataclass(frozen=True)
class SizeUnder(_Kept):
    """The version's files are smaller than this."""

    kind: ClassVar[str] = "size_under"
    size: int

    @property
    def needs(self) -> Needs:
        return Needs()

    def judge(self, candidate: Evidence, champion: Evidence | None) -> Verdict:
        return Verdict(f"size under {size_text(self.size)}", candidate.size < self.size, size_text(candidate.size))


def better(metric: str, *, by: float = 0.0, sure: bool = False) -> Better:
    """Better than the champion in a metric, by at least `by`; `sure`: also at the low end of the gain's interval."""
    return Better(metric, _amount(by, "by"), sure)


def at_least(metric: str, value: float) -> Limit:
    """A metric of which more is better has this value or more."""
    return Limit(metric, least=_bound(value))


def at_most(metric: str, value: float) -> Limit:
    """A metric of which less is better has this value or less."""
    return Limit(metric, most=_bound(value))


def no_slice_worse(metric: str, *, by: float = 0.0, columns: Sequence[str] = (), rows: int = 200) -> NoSliceWorse:
    """Worse than the champion by more than `by` on no slice of `rows` or more that a value of `columns` makes."""
    named = (columns,) if isinstance(columns, str) else tuple(columns)
    return NoSliceWorse(metric, _amount(by, "by"), named, rows)


def latency_under(limit: str) -> LatencyUnder:
    """One row is answered faster than this, 99 times of 100: `5ms`, `0.5ms`, `200us`."""
    return LatencyUnder(_quantity(limit, _TIMES, "latency", "5ms, 0.5ms or 200us"))


def size_under(limit: str) -> SizeUnder:
    """The files are smaller than this: `50MB`, `1.5GiB`."""
    return SizeUnder(int(_quantity(limit, _SIZES, "size", "50MB, 800kB or 1.5GiB")))


_KINDS: dict[str, type[Any]] = {kind.kind: kind for kind in (Better, Limit, NoSliceWorse, LatencyUnder, SizeUnder)}


def gate_from_dict(state: Mapping[str, Any]) -> Gate:
    """The reverse of `to_dict`, for the gates of this file.

    Raises:
        ConfigError: it is none of them.
    """
    given = {name: tuple(value) if isinstance(value, list) else value for name, value in state.items()}
    kind = str(given.pop("gate", ""))
    if kind not in _KINDS:
        raise ConfigError(f"the gate {kind!r} is unknown", hint=allowed(_KINDS, kind))
    made: Gate = _KINDS[kind](**given)
    return made


def _unknown(gate: str, of: Evidence, part: str, what: str) -> Verdict:
    return Verdict(gate, None, f"{what} ({of.missing[part]})" if of.missing.get(part) else what)


def _amount(value: float, field: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < float("inf"):
        raise ConfigError(f"{field}={value!r} is no amount", hint="write a number from 0: 0.002", field=field)
    return float(value)


def _bound(value: float) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ConfigError(f"{value!r} is no bound of a metric", hint="write a number: 0.7", field="value")
    return float(value)


def _quantity(text: str, units: Mapping[str, float], what: str, examples: str) -> float:
    found = re.fullmatch(r"(\d+(?:\.\d+)?) ?([A-Za-z]+)", text.strip()) if isinstance(text, str) else None
    if found is None or found[2] not in units or float(found[1]) == 0:
        raise ConfigError(f"{text!r} is no {what}", hint=f"as in {examples}; units: {', '.join(units)}")
    return float(found[1]) * units[found[2]]


def size_text(size: float) -> str:
    """Bytes for people: `1.2 MB`."""
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.4g} GB"
