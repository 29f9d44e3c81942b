"""A small fitted model of rows, for tests of what answers them."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
from sklearn.ensemble import HistGradientBoostingClassifier

from noria.core import Schema
from noria.pipelines import fit_steps
from noria.pipelines.dtypes import polars_schema
from noria.registry import ModelVersion
from noria.registry.version import Lineage, Signature
from noria.training.inputs import ModelInputs
from noria.training.servable import TabularServable

SCHEMA = Schema.of({"f": "float64?", "short": "float32", "n": "int8?", "on": "bool?", "s": "str?"})


def servable(schema: Schema, *steps: Any, example: Any = None) -> TabularServable:
    random = np.random.default_rng(0)
    frame = pl.DataFrame(
        {
            "f": random.normal(size=50),
            "short": random.normal(size=50).astype("f4"),
            "n": random.integers(-9, 9, 50).astype("i1"),
            "on": random.random(50) < 0.5,
            "s": random.choice(["a", "b", "é"], 50),
        },
        schema=polars_schema(SCHEMA),
    ).select(schema.names)
    fitted, _ = fit_steps(steps, frame)
    inputs = ModelInputs(schema, tuple(fitted))
    estimator = HistGradientBoostingClassifier(max_iter=5, min_samples_leaf=3, random_state=0).fit(
        inputs.matrix(frame), random.random(50) < 0.5
    )
    return TabularServable(version(schema, example), estimator, inputs, None, {}, [])


def version(schema: Schema, example: Any = None) -> ModelVersion:
    signature = Signature(schema.to_dict(), {}, example or {})
    return ModelVersion("late", 3, "tabular", {}, {}, {}, {}, signature, Lineage(), "r", 0)
