"""Run with Feast's own Python, with the server's URL, an empty folder and an API key: prints what the client got, as JSON."""

from __future__ import annotations

import json
import sys
import warnings
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, PushSource, RepoConfig, ValueType
from feast.protos.feast.serving.ServingService_pb2 import FieldStatus
from feast.types import Array, Float64, Int64

warnings.simplefilter("ignore")
url, folder, key = sys.argv[1], Path(sys.argv[2]), sys.argv[3]
store = FeatureStore(
    config=RepoConfig(
        project="shop",
        provider="local",
        registry=str(folder / "registry.db"),
        online_store={"type": "remote", "path": url},
        offline_store={"type": "file"},
        auth={"type": "oidc", "token": key},
        entity_key_serialization_version=3,
    )
)
user = Entity(name="user", join_keys=["user_id"], value_type=ValueType.INT64)
batch = FileSource(name="batch", path=str(folder / "none.parquet"), timestamp_field="event_timestamp")
taste = FeatureView(
    name="taste",
    entities=[user],
    ttl=timedelta(days=9999),
    schema=[
        Field(name="user_id", dtype=Int64),
        Field(name="mean_rating", dtype=Float64),
        Field(name="ratings", dtype=Int64),
        Field(name="last_items", dtype=Array(Int64)),
    ],
    source=batch,
)
clicks = FeatureView(
    name="clicks",
    entities=[user],
    schema=[Field(name="user_id", dtype=Int64), Field(name="stars", dtype=Float64)],
    source=PushSource(name="clicks_push", batch_source=batch),
)
store.registry.apply_entity(user, "shop")
store.registry.apply_feature_view(taste, "shop")
store.registry.apply_feature_view(clicks, "shop")


def read(features: list[str], rows: list[dict[str, Any]], **options: Any) -> dict[str, Any]:
    return store.get_online_features(features=features, entity_rows=rows, **options).to_dict()


def refused(features: list[str]) -> str:
    try:
        read(features, [{"user_id": 1}])
    except RuntimeError as error:
        return str(error)
    return "not refused"


at = datetime(2026, 1, 6, tzinfo=UTC)
pushed = pd.DataFrame({"user_id": [1, 2], "stars": [4.5, 3.0], "event_timestamp": [at, at]})
expired = store.get_online_features(["recent:ratings"], [{"user_id": 1}, {"user_id": 5}]).proto.results[1]
said = {
    "read": read(["taste:mean_rating", "taste:ratings", "taste:last_items"], [{"user_id": 1}, {"user_id": 3}]),
    "full": read(["taste:mean_rating"], [{"user_id": 2}], full_feature_names=True),
    "two keys": read(["pair:stars"], [{"user_id": 1, "item_id": 8}]),
    "statuses": [FieldStatus.Name(status) for status in expired.statuses],
    "unknown": refused(["nothing:x"]),
}
store.push("clicks_push", pushed)
print(json.dumps(said))
