"""Gates: what a version has to be before it may become the champion.

A gate is a small frozen object that looks at what is known of the candidate and of the champion (`Evidence`) and gives
a `Verdict`. It measures nothing itself: whoever asks reads `needs` and gathers the evidence. A gate that can't be
judged hasn't been passed, and its verdict says what was missing. Anything with `needs`, `judge` and `to_dict` is one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar, Protocol, runtime_checkable

from noria.core import ConfigError, allowed

_SIZES = {"B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
_TIMES = {"us": 1e-6, "ms": 1e-3, "s": 1.0}
_SHOWN = 3


@dataclass(frozen=True)
class Needs:
    """What a gate has to know.

    Attributes:
        metrics: by name.
        gains: metrics in which the candidate's gain over the champion is wanted with its interval.
        columns: whose values make slices.
        latency: of one row.
    """

    metrics: tuple[str, ...] = ()
    gains: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    latency: bool = False


@dataclass(frozen=True)
class Evidence:
    """What is known of a version.

    Attributes:
        label: of the version.
        metrics: name to value.
        intervals: name to the value's interval (low, high), where there is one.
        gains: name to the interval (low, high) of how much better it is than the champion, on the same rows.
        slices: column to value to `rows`, and to each metric as `{"value": v}`.
        size: of all its files, bytes.
        latency: the 99th percentile of one row's answer, seconds; None where it wasn't measured.
        rows: in words, what rows the metrics are of.
        lower: the metrics of which less is better.
        missing: why something isn't known, by `metrics`, `slices` or `latency`.
    """

    label: str
    metrics: Mapping[str, float] = field(default_factory=dict)
    intervals: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    gains: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    slices: Mapping[str, Mapping[str, Mapping[str, Any]]] = field(default_factory=dict)
    size: int = 0
    latency: float | None = None
    rows: str = ""
    lower: frozenset[str] = frozenset()
    missing: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Verdict:
    """What a gate says.

    Attributes:
        gate: in words.
        passed: None where it couldn't be judged, which opens no gate.
        why: the figures.
    """

    gate: str
    passed: bool | None
    why: str

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON data."""
        return asdict(self)

    def __str__(self) -> str:
        return f"{self.gate}: {'' if self.passed is not None else 'not judged: '}{self.why}"


@runtime_checkable
class Gate(Protocol):
    """Judges a version before it may become the champion."""

    @property
    def needs(self) -> Needs:
        """What it has to know."""
        ...

    def judge(self, candidate: Evidence, champion: Evidence | None) -> Verdict:
        """Whether the candidate may pass; `champion` is None while there is none."""
        ...

    def to_dict(self) -> dict[str, Any]:
        """The definition as plain JSON data."""
        ...


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
        return Needs((self.metric,), (self.metric,) if self.sure else ())

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
    if metric in candidate.gains:
        return candidate.gains[metric][0]
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
class NoSliceWorse(_Kept):
    """On no slice of the rows is the candidate worse than the champion.

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
        worse = sorted((one for one in compared if one[0] > self.by + 1e-12), reverse=True)
        if not worse:
            return Verdict(gate, True, f"{len(compared)} slices of {self.rows:,} rows or more, on {candidate.rows}")
        more = f" and {len(worse) - _SHOWN} more" if len(worse) > _SHOWN else ""
        return Verdict(gate, False, "; ".join(told for _, told in worse[:_SHOWN]) + more)

    def _compared(self, column: str, candidate: Evidence, champion: Evidence) -> list[tuple[float, str]]:
        """By how much each slice is worse, and in words."""
        found = []
        for value, ours in candidate.slices[column].items():
            theirs = champion.slices[column].get(value, {})
            a, b = ours.get(self.metric), theirs.get(self.metric)
            if a is None or b is None or min(ours["rows"], theirs["rows"]) < self.rows:
                continue
            loss = a["value"] - b["value"] if self.metric in candidate.lower else b["value"] - a["value"]
            told = f"{column} {value}: {a['value']:.4f} against {b['value']:.4f} ({ours['rows']:,} rows)"
            found.append((loss, told))
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
        return Verdict(f"size under {_bytes(self.size)}", candidate.size < self.size, _bytes(candidate.size))


def better(metric: str, *, by: float = 0.0, sure: bool = False) -> Better:
    """Better than the champion in a metric, by at least `by`; `sure`: also at the low end of the gain's interval."""
    return Better(metric, _amount(by, "by"), sure)


def at_least(metric: str, value: float) -> Limit:
    """A metric of which more is better has this value or more."""
    return Limit(metric, least=value)


def at_most(metric: str, value: float) -> Limit:
    """A metric of which less is better has this value or less."""
    return Limit(metric, most=value)


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


def refusal(verdicts: Sequence[Verdict]) -> str:
    """Why the gates stay closed, in words; empty when all are passed."""
    return "; ".join(str(one) for one in verdicts if not one.passed)


def _unknown(gate: str, of: Evidence, part: str, what: str) -> Verdict:
    return Verdict(gate, None, f"{what} ({of.missing[part]})" if of.missing.get(part) else what)


def _amount(value: float, field: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < float("inf"):
        raise ConfigError(f"{field}={value!r} is no amount", hint="write a number from 0: 0.002", field=field)
    return float(value)


def _quantity(text: str, units: Mapping[str, float], what: str, examples: str) -> float:
    found = re.fullmatch(r"(\d+(?:\.\d+)?) ?([A-Za-z]+)", text.strip()) if isinstance(text, str) else None
    if found is None or found[2] not in units or float(found[1]) == 0:
        raise ConfigError(f"{text!r} is no {what}", hint=f"as in {examples}; units: {', '.join(units)}")
    return float(found[1]) * units[found[2]]


def _bytes(size: float) -> str:
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.4g} GB"
