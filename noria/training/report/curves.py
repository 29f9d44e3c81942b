"""What the charts of a report show: curves, calibration, confusion, residuals, as plain numbers."""

from __future__ import annotations

from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from noria.training.answers import Answers

POINTS = 160
"""Of a curve at most."""
_BINS = 10
_GRID = 24
_BARS = 30
_MOST_CLASSES = 12
_Z = NormalDist().inv_cdf(0.975)


def curves(answers: Answers) -> dict[str, Any]:
    """ROC, precision over recall, calibration and the spread of the scores: of two classes with probabilities."""
    if not (answers.has_probabilities and answers.is_binary):
        return {}
    scores, positive = answers.probabilities[:, 1], answers.true_codes == 1
    if positive.all() or not positive.any():
        return {}
    order = np.argsort(-scores, kind="stable")
    found, taken = np.cumsum(positive[order]), np.arange(1, len(order) + 1)
    is_last = np.append(scores[order][1:] != scores[order][:-1], True)
    found, taken = found[is_last], taken[is_last]
    recall, others = found / found[-1], (taken - found) / (len(scores) - found[-1])
    roc = np.column_stack([np.append(0, others), np.append(0, recall)])
    pr = np.column_stack([recall, found / taken])
    return {
        "roc": _thinned(roc),
        "pr": _thinned(pr),
        "share": _number(positive.mean()),
        "calibration": _calibration(scores, positive),
        "scores": _scores(scores, positive),
    }


def _thinned(points: NDArray[np.float64]) -> list[list[float]]:
    """Some of a curve's points, at equal lengths of its way."""
    if len(points) > POINTS:
        way = np.append(0, np.cumsum(np.abs(np.diff(points, axis=0)).sum(axis=1)))
        places = np.searchsorted(way, np.linspace(0, way[-1], POINTS))
        points = points[np.unique(np.minimum(places, len(points) - 1))]
    return [[_number(x), _number(y)] for x, y in points]


def _calibration(scores: NDArray[np.float64], positive: NDArray[np.bool_]) -> list[dict[str, float]]:
    """Bins with equally many rows: what was said, what happened (with Wilson's interval), and how many rows."""
    edges = np.unique(np.quantile(scores, np.arange(1, _BINS) / _BINS))
    bins = np.searchsorted(edges, scores, side="right")
    rows = np.bincount(bins, minlength=len(edges) + 1)
    said, happened = np.bincount(bins, scores), np.bincount(bins, positive)
    made = []
    for count, sum_said, sum_happened in zip(rows, said, happened, strict=False):
        if count:
            low, high = wilson(sum_happened, count)
            values = {"said": sum_said / count, "happened": sum_happened / count, "low": low, "high": high}
            made.append({"rows": int(count), **{name: _number(value) for name, value in values.items()}})
    return made


def wilson(part: float, whole: float) -> tuple[float, float]:
    """The 95 % interval of a share (Wilson 1927).

    >>> [round(end, 3) for end in wilson(5, 10)]
    [0.237, 0.763]
    """
    share, z2 = part / whole, _Z**2
    centre = (share + z2 / (2 * whole)) / (1 + z2 / whole)
    half = _Z / (1 + z2 / whole) * np.sqrt(share * (1 - share) / whole + z2 / (4 * whole**2))
    low, high = float(centre - half), float(centre + half)
    return max(0.0, min(low, share)), min(1.0, max(high, share))  # at the ends but for rounding


def _scores(scores: NDArray[np.float64], positive: NDArray[np.bool_]) -> dict[str, Any]:
    edges = np.linspace(0, 1, _BARS + 1)
    return {
        "edges": [_number(edge) for edge in edges],
        "positive": np.histogram(scores[positive], edges)[0].tolist(),
        "negative": np.histogram(scores[~positive], edges)[0].tolist(),
    }


def confusion(answers: Answers) -> dict[str, Any]:
    """How often which class was taken for which; beyond `_MOST_CLASSES`, the rarest are one together."""
    names = [str(name) for name in answers.classes]
    true, predicted = answers.true_codes, answers.predicted_codes
    if len(names) > _MOST_CLASSES:
        frequent = np.sort(np.argsort(-np.bincount(true, minlength=len(names)), kind="stable")[: _MOST_CLASSES - 1])
        place = np.full(len(names), len(frequent))
        place[frequent] = np.arange(len(frequent))
        names = [*(names[one] for one in frequent), "(other)"]
        true, predicted = place[true], place[predicted]
    counts = np.bincount(true * len(names) + predicted, minlength=len(names) ** 2).reshape(len(names), -1)
    return {"classes": names, "counts": counts.tolist()}


def residuals(answers: Answers) -> dict[str, Any]:
    """Predicted beside true values as a grid of counts, and the spread of the errors; the outermost 1 % is cut."""
    truth, errors = answers.numbers, answers.errors
    predicted = truth + errors
    known = np.isfinite(truth) & np.isfinite(predicted)
    if not known.any():
        return {}
    truth, predicted, errors = truth[known], predicted[known], errors[known]
    low, high = np.quantile(np.concatenate([truth, predicted]), [0.005, 0.995])
    high = high if high > low else low + 1.0
    edges = np.linspace(low, high, _GRID + 1)
    counts = np.histogram2d(truth, predicted, (edges, edges))[0].astype(int)
    first, last = np.quantile(errors, [0.005, 0.995])
    bars = np.linspace(first, last if last > first else first + 1.0, _BARS + 1)
    return {
        "edges": [_number(edge) for edge in edges],
        "counts": counts.tolist(),
        "error_edges": [_number(edge) for edge in bars],
        "errors": np.histogram(errors, bars)[0].tolist(),
        "mean_error": _number(errors.mean()),
        "quantiles": {str(q): _number(np.quantile(errors, q)) for q in (0.05, 0.25, 0.5, 0.75, 0.95)},
    }


def _number(value: Any) -> float:
    return float(f"{float(value):.5g}")
