"""What is kept of a search with the version: compact, as plain JSON data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from noria.training.search.report import COMPLETE, Report


def best_of(reports: Iterable[Report], greater_is_better: bool) -> Report | None:
    """The complete one with the best score, the first of several; None if none is complete."""
    sign = 1 if greater_is_better else -1
    return max((r for r in reports if r.end == COMPLETE), key=lambda report: sign * report.score, default=None)


def entry(number: int, kept: Mapping[str, Any], report: Report) -> dict[str, Any]:
    """One trial."""
    parameters = kept.get("report", {}).get("parameters", {})
    said: dict[str, Any] = {"trial": number, "parameters": {name: _short(value) for name, value in parameters.items()}}
    if report.end == COMPLETE:
        said["score"] = _short(report.score)
    else:
        said["end"] = report.end
    if report.reason:
        said["reason"] = report.reason
    return {**said, "seconds": round(report.seconds, 2)}


def noted(
    by: str, metric: str, seconds: float, best: Report | None, note: str, history: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """A search."""
    ends = Counter(str(one.get("end", COMPLETE)) for one in history)
    said: dict[str, Any] = {"by": by, "metric": metric, "score": None if best is None else _short(best.score)}
    if note:
        said["note"] = note
    return {**said, "seconds": round(seconds, 2), "trials": dict(sorted(ends.items())), "history": list(history)}


def _short(value: Any) -> Any:
    return float(f"{value:.6g}") if isinstance(value, float) else value
