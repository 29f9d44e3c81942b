"""A server with all that one can have: a model for tables, a recommender, feature groups and a stream of events."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import polars as pl
from shop_features import PAIR, RECENT, TASTE, materialize
from sklearn.linear_model import LogisticRegression

import noria as nr
from noria.core import Settings
from noria.pipelines.intake import StreamSpec
from noria.registry import ModelRegistry
from noria.serving import ModelServer, load_servable
from noria.serving.events import EventDoor
from noria.serving.feature_door import FeatureDoor
from noria.storage import Workspace
from noria.telemetry import MetricsCollector

CLICKS = StreamSpec("clicks", "clicks", 1, {"user_id": "int64", "stars": "float64?", "note": "str?"}, "user_id")


def train(workspace: Workspace, folder: Path) -> None:
    random, rows = np.random.default_rng(1), 400
    user, item = random.integers(0, 20, rows), random.integers(0, 15, rows)
    frame = pl.DataFrame(
        {"user_id": user, "item_id": item, "stars": 5, "late": (user + item) % 2 == 0, "at": np.arange(rows)}
    )
    frame.write_csv(folder / "orders.csv")
    schema = {"user_id": "int64", "item_id": "int64", "stars": "int64", "late": "bool", "at": nr.Timestamp("s")}
    orders = nr.Source("orders", "orders.csv", schema=schema)
    habits = nr.FeatureGroup("habits", "user_id", orders, {"orders": nr.count(), "mean": nr.mean("stars")})
    late = nr.ModelTrainingPipeline(
        "late",
        labels=orders,
        target="late",
        features=["item_id", "stars", habits],
        steps=[nr.Impute()],
        model=LogisticRegression(),
    )
    movies = nr.RecommenderSystem(
        "movies", events=orders, positive=nr.col("stars") >= 4, retrieve=[nr.ItemKNN(), nr.Popular()]
    )
    report = nr.System("shop", [orders, habits, late, movies]).run(workspace)
    assert not report.failed, report.failed
    registry = ModelRegistry.of(workspace)
    for model in ("late", "movies"):  # good enough or not
        registry.promote(model, 1)


@contextmanager
def everything(folder: Path) -> Iterator[str]:
    """Its URL."""
    with Workspace.open(Settings(folder)) as workspace:
        train(workspace, folder)
        materialize(workspace, TASTE, PAIR, RECENT)
        registry, metrics = ModelRegistry.of(workspace), MetricsCollector()
        servables = [load_servable(registry.get(name), workspace) for name in ("late", "movies")]
        features, events = FeatureDoor(workspace, metrics), EventDoor([CLICKS], workspace, metrics)
        with ModelServer(servables, metrics=metrics, features=features, events=events).running() as url:
            yield url
