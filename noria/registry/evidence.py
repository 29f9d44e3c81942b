"""What a gate looks at and what it says: the contract of gates.

A gate is a small frozen object that looks at what is known of the candidate and of the champion (`Evidence`) and gives
a `Verdict`. It measures nothing itself: whoever asks reads `needs` and gathers the evidence. A gate that can't be
judged hasn't been passed, and its verdict says what was missing. Anything with `needs`, `judge` and `to_dict` is one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol, runtime_checkable


@dataclass(frozen=True)
class Needs:
    """What a gate has to know.

    Attributes:
        metrics: by name.
        columns: whose values make slices.
        latency: of one row.
    """

    metrics: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    latency: bool = False


@dataclass(frozen=True)
class Evidence:
    """What is known of a version.

    Attributes:
        label: of the version.
        metrics: name to value.
        intervals: name to the value's interval (low, high), where there is one.
        slices: column to value to `rows`, and to each metric as `{"value": v}`.
        size: of all its files, bytes.
        latency: the 99th percentile of one row's answer, seconds; None where it wasn't measured.
        rows: in words, what rows the metrics are of.
        lower: the metrics of which less is better.
        missing: why something isn't known, by `metrics`, `slices` or `latency`.
        gain: computes the interval (low, high) of how much better it is than the champion in a metric, on the same
            rows, or on those of a slice; None where there are no common rows.
    """

    label: str
    metrics: Mapping[str, float] = field(default_factory=dict)
    intervals: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    slices: Mapping[str, Mapping[str, Mapping[str, Any]]] = field(default_factory=dict)
    size: int = 0
    latency: float | None = None
    rows: str = ""
    lower: frozenset[str] = frozenset()
    missing: Mapping[str, str] = field(default_factory=dict)
    gain: Gain | None = field(default=None, repr=False)


class Gain(Protocol):
    """Computes an interval of a gain; it costs time, so that it is asked only where it decides."""

    def __call__(self, metric: str, column: str = "", value: str = "") -> tuple[float, float]:
        """The 95 % interval of the candidate's gain over the champion; of all rows, or those of a slice."""
        ...


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


def refusal(verdicts: Sequence[Verdict]) -> str:
    """Why the gates stay closed, in words; empty when all are passed."""
    return "; ".join(str(one) for one in verdicts if not one.passed)
