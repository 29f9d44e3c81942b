"""Predictions: what servers recorded of the requests that they answered, each traced to its model and features."""

from __future__ import annotations

from typing import Any

import msgspec

from noria.core import NotFoundError, RequestError
from noria.monitoring.console.desk import Desk
from noria.monitoring.tracing import traced
from noria.serving.prediction_files import Prediction, PredictionReader, newest


class Newest(msgspec.Struct):
    """Which: of a model (`late` or `late@3`), and how many at most."""

    model: str | None = None
    limit: int = 50


def listing(desk: Desk, query: Newest) -> list[Prediction]:
    """The newest recorded predictions, the newest first."""
    if not 1 <= query.limit <= 10_000:
        raise RequestError(f"limit={query.limit}", hint="allowed: 1 to 10000", field="limit")
    return newest(_reader(desk), model=query.model or None, limit=query.limit)[::-1]


def show(desk: Desk, id: str) -> list[dict[str, Any]]:
    """A prediction by its request's id, with its model and features; several where clients used an id again."""
    found = [one for one in _reader(desk) if one.id == id]
    if not found:
        share = desk.project.settings.predictions.log_share
        raise NotFoundError(
            f"no prediction {id!r} is recorded",
            hint=f"a share of {share:g} of the requests is recorded, and the oldest go first",
        )
    return [traced(one, desk.project.workspace()) for one in found]


def _reader(desk: Desk) -> PredictionReader:
    return PredictionReader(desk.project.settings.state_dir / "predictions")
