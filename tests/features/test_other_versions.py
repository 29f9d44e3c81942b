"""What another version of noria has stored is told as such, and left as it is."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from shop_features import AT, EVENTS, MICROS, POPULARITY, TASTE, ratings

import noria as nr
from noria.core import DataError, IntegrityError, NoriaError, Settings
from noria.storage import Put, Workspace

VERSIONS, KEY = "feature_versions", "taste/000001"


def without(*path: str) -> Callable[[dict[str, Any]], None]:
    def change(data: dict[str, Any]) -> None:
        for name in path[:-1]:
            data = data[name]
        del data[path[-1]]

    return change


def put(value: Any, *path: str) -> Callable[[dict[str, Any]], None]:
    def change(data: dict[str, Any]) -> None:
        for name in path[:-1]:
            data = data[name]
        data[path[-1]] = value

    return change


@pytest.mark.parametrize(
    ("change", "kind", "said"),
    [
        (put("zstd", "online", "codec"), IntegrityError, "unknown field `codec`"),
        (without("online", "empty"), IntegrityError, "missing required field `empty`"),
        (without("state"), IntegrityError, "has no 'state'"),
        (without("state", "features"), DataError, "'features' is missing"),
        (put("median", "state", "features", "ratings", "kind"), DataError, "no kind of feature 'median'"),
        (put("1d", "state", "features", "ratings", "grace"), DataError, "'grace'"),
        (put("decimal", "state", "source", "schema", "stars"), DataError, "unknown type 'decimal'"),
        (put({"polars": "9"}, "state", "features", "ratings", "where"), DataError, "isn't one of this version"),
    ],
)
def test_a_definition_of_another_version(
    tmp_path: Path, change: Callable[[dict[str, Any]], None], kind: type[NoriaError], said: str
) -> None:
    with Workspace.open(Settings(tmp_path)) as workspace:
        store = nr.FeatureStore(workspace)
        store.materialize(TASTE, events=EVENTS)
        store.materialize(POPULARITY, events=EVENTS)
        data = copy.deepcopy(dict(workspace.records.get(VERSIONS, KEY).data))
        change(data)
        workspace.records.commit(Put(VERSIONS, KEY, data))
        with pytest.raises(kind) as caught:
            store.catalog.get("taste").group()
        assert "version" in caught.value.hint
        assert said in str(caught.value)
        assert workspace.records.get(VERSIONS, KEY).data == data
        # Other groups, and the values by a definition that is at hand, are read as before.
        assert store.get_online("popularity", [7]).columns == {"popularity.ratings": [2]}
        assert store.get_online(TASTE, [1]).columns["taste.ratings"] == [2]


@pytest.mark.parametrize("ids", [[1], [1, 2]])
@pytest.mark.parametrize("value", [[0], [0, 1, 2, 3, 4, 5, 6], [MICROS, 4.5, 2, [8, 7], MICROS, b"no"], {"n": 1}])
def test_a_value_of_another_layout(tmp_path: Path, ids: list[int], value: Any) -> None:
    week = nr.FeatureGroup("taste", "user_id", ratings, {**TASTE.features, "ratings": nr.count(window="7d")})
    with Workspace.open(Settings(tmp_path)) as workspace:
        store = nr.FeatureStore(workspace)
        store.materialize(week, events=EVENTS)
        spec = week.online_spec()
        workspace.online.write(spec.place, [spec.key(1)], [MICROS + 2], [msgspec.msgpack.encode(value)])
        with pytest.raises(IntegrityError, match="a value of feature group 'taste' in the online store is damaged"):
            store.get_online(week, ids)
        assert store.get_online(week, [2]).columns["taste.ratings"] == [1]
        workspace.online.drop(spec.place)
        store.materialize(week, events=EVENTS)
        assert store.get_online(week, [1]).event_times == [int(AT.timestamp()) * 1_000_000]
