"""Lessons to search with: small, with a signal that some parameters catch better than others."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from noria.core import Schema
from noria.training.learner import Lesson


def lesson(kind: str = "two", rows: int = 240, *, text: bool = False, **options: Any) -> Lesson:
    """`two` or `three` classes, or `numbers`."""
    random = np.random.default_rng(4)
    x = random.normal(size=(rows, 4))
    value = x[:, 0] + x[:, 1] * x[:, 2] + random.normal(0, 0.5, rows)
    target = {"numbers": value, "two": (value > 0).astype(int), "three": np.digitize(value, [-0.7, 0.7])}[kind]
    frame = pl.DataFrame({f"x{i}": x[:, i] for i in range(4)})
    fields = dict.fromkeys(frame.columns, "float64")
    if text:
        frame = frame.with_columns(shop=pl.Series([("a", "b", None)[i % 3] for i in range(rows)]))
        fields["shop"] = "str?"
    given = {"metric": "rmse" if kind == "numbers" else "accuracy", "seed": 3, **options}
    return Lesson(frame, target, Schema.of(fields), **given)
