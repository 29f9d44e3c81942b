"""A Feast repository with the newest features in SQLite: `FOLDER EVENTS NAMES`."""

import json
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

from feast import Entity, FeatureStore, FeatureView, Field, FileSource, ValueType
from feast.types import Float64

folder, events, names = Path(sys.argv[1]), sys.argv[2], json.loads(Path(sys.argv[3]).read_text())
folder.mkdir()
(folder / "feature_store.yaml").write_text(
    "project: bench\nprovider: local\nregistry: registry.db\nentity_key_serialization_version: 3\n"
    "online_store:\n  type: sqlite\n  path: online.db\noffline_store:\n  type: dask\n"
)
store = FeatureStore(str(folder))
user = Entity(name="user", join_keys=["user"], value_type=ValueType.INT64)
view = FeatureView(
    name="g",
    entities=[user],
    ttl=timedelta(0),
    schema=[Field(name=name, dtype=Float64) for name in names],
    source=FileSource(name="events", path=events, timestamp_field="at"),
    online=True,
)
store.apply([user, view])
store.materialize(datetime(2023, 1, 1, tzinfo=UTC), datetime(2026, 1, 1, tzinfo=UTC))
