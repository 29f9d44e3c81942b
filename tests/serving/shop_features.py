"""A small project with feature groups: what each test of reading features over HTTP starts from."""

from __future__ import annotations

from datetime import UTC, datetime

import polars as pl

import noria as nr
from noria.storage import Workspace

ratings = nr.Source(
    "ratings", "r.csv", schema={"user_id": "int64", "item_id": "int64", "stars": "float64", "at": nr.Timestamp("s")}
)
TASTE = nr.FeatureGroup(
    "taste",
    "user_id",
    ratings,
    {"mean_rating": nr.mean("stars"), "ratings": nr.count(), "last_items": nr.last("item_id", n=2)},
)
POPULARITY = nr.FeatureGroup("popularity", "item_id", ratings, {"ratings": nr.count()})
PAIR = nr.FeatureGroup("pair", ("user_id", "item_id"), ratings, {"stars": nr.latest("stars")})
RECENT = nr.FeatureGroup("recent", "user_id", ratings, {"ratings": nr.count()}, ttl="1h")
AT = datetime(2026, 1, 5, 10, tzinfo=UTC)
MICROS = int(AT.timestamp()) * 1_000_000
EVENTS = pl.DataFrame(
    {"user_id": [1, 1, 2], "item_id": [7, 8, 7], "stars": [4.0, 5.0, 3.0], "at": [AT] * 3},
    schema_overrides={"at": pl.Datetime("us", "UTC")},
)


def materialize(workspace: Workspace, *groups: nr.FeatureGroup) -> None:
    for group in groups:
        nr.FeatureStore(workspace).materialize(group, events=EVENTS)
