"""Feast's forms: its client's requests as they were recorded, and under `make soak` the client itself."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from shop_features import PAIR, POPULARITY, RECENT, TASTE, materialize

import noria as nr
from noria.core import Settings
from noria.features.feed import feeds
from noria.pipelines import StreamProcessor
from noria.pipelines.intake import StreamSpec
from noria.serving import Access, KeyRing, ModelServer
from noria.serving.events import EventDoor
from noria.serving.feature_door import FeatureDoor
from noria.storage import Workspace
from noria.telemetry import MetricsCollector

ENVIRONMENT = Path(__file__).parents[2] / ".bench" / "feast"
"""Feast's own virtual environment: it is large, and its libraries are others than ours."""

NEVER, AT = "1970-01-01T00:00:00Z", "2026-01-05T10:00:00Z"
CLICKS = StreamSpec(
    "clicks", "clicks", 1, {"user_id": "int64", "stars": "float64?", "event_timestamp": "timestamp[iso]"}, "user_id"
)


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Workspace]:
    with Workspace.open(Settings(tmp_path)) as opened:
        materialize(opened, TASTE, POPULARITY, PAIR, RECENT)
        yield opened


def server(workspace: Workspace, **options: Any) -> ModelServer:
    metrics = MetricsCollector()
    features, events = FeatureDoor(workspace, metrics), EventDoor([CLICKS], workspace, metrics)
    return ModelServer([], metrics=metrics, features=features, events=events, **options)


@pytest.fixture
def client(workspace: Workspace) -> Iterator[httpx.Client]:
    with server(workspace).running() as url, httpx.Client(base_url=url) as made:
        yield made


def stored(workspace: Workspace) -> list[dict[str, Any]]:
    log = workspace.log
    if "clicks" not in log.topics():
        return []
    return [json.loads(value) for value in log.read("clicks", 0, log.bounds("clicks")[0][0], 1000).values]


# --- recorded from the client of Feast 0.67


def test_a_read_of_the_client_is_answered_as_by_its_own_server(client: httpx.Client) -> None:
    sent = (
        '{"entities": {"user_id": [1, 3]}, "full_feature_names": false, "include_feature_view_version_metadata": false,'
        ' "features": ["taste:mean_rating", "taste:ratings", "taste:last_items"]}'
    )
    answer = client.post("/get-online-features", content=sent, headers={"content-type": "application/json"})
    here, times = ["PRESENT", "NOT_FOUND"], [AT, NEVER]
    assert answer.json() == {
        "metadata": {"feature_names": ["user_id", "mean_rating", "ratings", "last_items"]},
        "results": [
            {"values": [1, 3], "statuses": ["PRESENT", "PRESENT"], "event_timestamps": [NEVER, NEVER]},
            {"values": [4.5, None], "statuses": here, "event_timestamps": times},
            {"values": [2, None], "statuses": here, "event_timestamps": times},
            {"values": [[8, 7], None], "statuses": here, "event_timestamps": times},
        ],
    }


def test_a_push_of_the_client_becomes_events_of_the_stream(client: httpx.Client, workspace: Workspace) -> None:
    sent = (
        '{"feature_view_name": "clicks", "df": {"user_id": [1, 2], "stars": [4.5, 3.0], "event_timestamp":'
        ' ["2026-01-06T00:00:00", "2026-01-06T00:00:00"], "created": [null, null]}, "allow_registry_cache": false}'
    )
    assert client.post("/write-to-online-store", content=sent).status_code == 200
    at = {"event_timestamp": "2026-01-06T00:00:00", "created": None}
    assert stored(workspace) == [{"user_id": 1, "stars": 4.5, **at}, {"user_id": 2, "stars": 3.0, **at}]


# --- the forms themselves


def test_full_names_two_views_and_what_is_too_old(client: httpx.Client) -> None:
    body = {
        "features": ["recent:ratings", "pair:stars", "taste:ratings"],
        "entities": {"item_id": [8], "user_id": [1]},
        "full_feature_names": True,
    }
    answer = client.post("/get-online-features", json=body).json()
    names = ["item_id", "user_id", "recent__ratings", "pair__stars", "taste__ratings"]
    assert answer["metadata"]["feature_names"] == names
    assert answer["results"][2] == {"values": [None], "statuses": ["OUTSIDE_MAX_AGE"], "event_timestamps": [AT]}
    assert [result["values"] for result in answer["results"]] == [[8], [1], [None], [5.0], [2]]


@pytest.mark.parametrize(
    ("body", "field", "hint"),
    [
        ({"feature_service": "all", "entities": {"user_id": [1]}}, "feature_service", "name the features"),
        ({"entities": {"user_id": [1]}}, "features", "allowed: pair, popularity"),
        ({"features": ["taste"], "entities": {"user_id": [1]}}, "features[0]", "group:feature"),
        ({"features": ["taste:x"], "entities": {"user_id": [1]}}, "features[0]", "taste.mean_rating"),
        ({"features": ["tast:ratings"], "entities": {"user_id": [1]}}, "features[0]", "did you mean 'taste'"),
        ({"features": ["taste:ratings"], "entities": {"user_id": ["1"]}}, "entities.user_id[0]", "whole number"),
        ({"features": ["taste:ratings", "recent:ratings"], "entities": {"user_id": [1]}}, "features[1]", "full_feat"),
    ],
)
def test_a_mistake_in_reading_is_named(client: httpx.Client, body: Any, field: str, hint: str) -> None:
    answer = client.post("/get-online-features", json=body)
    assert (answer.status_code, answer.json()["field"]) == (422, field)
    assert hint in answer.json()["hint"]


@pytest.mark.parametrize("to", ["online", "offline", "online_and_offline"])
def test_push_is_one_path_to_both(client: httpx.Client, workspace: Workspace, to: str) -> None:
    rows = {"user_id": [1, 2], "stars": [None, 2.5], "event_timestamp": ["2026-01-06T00:00:00Z"] * 2}
    answer = client.post("/push", json={"push_source_name": "clicks", "df": rows, "to": to})
    assert (answer.status_code, answer.json()) == (200, {"appended": 2})
    assert [event["stars"] for event in stored(workspace)] == [None, 2.5]


@pytest.mark.parametrize(
    ("changed", "field"),
    [
        ({"push_source_name": "click"}, "push_source_name"),
        ({"df": {"user_id": [1, "x"], "event_timestamp": ["2026-01-06"] * 2}}, "df.user_id[1]"),
        ({"df": {"user_id": [1, 2], "event_timestamp": ["2026-01-06"]}}, "df.event_timestamp"),
        ({"df": {"user_id": [1]}}, "df, row 0"),
        ({"df": {"user_id": 1}}, "df[...]"),
        ({"to": "nowhere"}, "to"),
    ],
)
def test_a_mistake_in_pushing_is_named_and_nothing_is_taken(
    client: httpx.Client, workspace: Workspace, changed: Any, field: str
) -> None:
    rows = {"user_id": [1], "event_timestamp": ["2026-01-06"]}
    answer = client.post("/push", json={"push_source_name": "clicks", "df": rows, **changed})
    assert (answer.status_code, answer.json()["field"]) == (422, field)
    assert stored(workspace) == []


def test_what_is_pushed_comes_to_the_table_and_to_online_values(workspace: Workspace) -> None:
    stream = nr.Stream(
        "clicks",
        schema={"user_id": "int64", "stars": "float64?", "event_timestamp": nr.Timestamp("iso")},
        key="user_id",
    )
    group = nr.FeatureGroup("habits", "user_id", stream, {"clicks": nr.count(), "mean": nr.mean("stars")})
    keeps = feeds(stream, workspace, [group])
    with server(workspace).running() as url, httpx.Client(base_url=url) as client:
        rows = {"user_id": [1, 1, 2], "stars": [3.0, 4.0, None], "event_timestamp": [AT] * 3}
        pushed = client.post("/push", json={"push_source_name": "clicks", "df": rows, "to": "online_and_offline"})
        assert pushed.status_code == 200, pushed.text
        with StreamProcessor(stream, workspace, keeps=keeps) as processor:
            processor.run_to_end()
        body = {"features": ["habits:clicks", "habits:mean"], "entities": {"user_id": [1, 2, 3]}}
        found = client.post("/get-online-features", json=body).json()["results"]
        assert [column["values"] for column in found[-2:]] == [[2, 1, None], [3.5, None, None]]
        ours = client.post("/features", json={"groups": ["habits"], "entities": {"user_id": [1]}}).json()
        assert ours["features"]["habits.clicks"] == [2], ours
    assert len(workspace.table("clicks").read()) == 3


def test_without_streams_there_is_nothing_to_push_to(workspace: Workspace) -> None:
    metrics = MetricsCollector()
    alone = ModelServer([], metrics=metrics, features=FeatureDoor(workspace, metrics))
    with alone.running() as url, httpx.Client(base_url=url) as client:
        answer = client.post("/push", json={"push_source_name": "clicks", "df": {"user_id": [1]}})
        assert (answer.status_code, answer.json()["hint"]) == (422, "allowed: (none)")
        assert client.get("/health").status_code == 200


# --- the client itself


@pytest.mark.soak
def test_the_real_client_reads_and_pushes(workspace: Workspace, tmp_path: Path) -> None:
    python = feast_python()
    script = Path(__file__).parent / "feast_client" / "__main__.py"
    folder = tmp_path / "feast"
    folder.mkdir()
    keys = frozenset([hashlib.sha256(b"my-key").hexdigest()])
    environment = {"HOME": str(folder), "PATH": "/usr/bin:/bin", "FEAST_USAGE": "False"}
    with server(workspace, keys=Access(KeyRing.of(digests=keys))).running() as url:
        words = [str(python), str(script), url, str(folder), "my-key"]
        done = subprocess.run(words, capture_output=True, text=True, check=False, env=environment, cwd=folder)
    assert done.returncode == 0, done.stderr
    print(done.stdout)
    said = json.loads(done.stdout.splitlines()[-1])
    assert said["read"] == {
        "user_id": [1, 3],
        "mean_rating": [4.5, None],
        "ratings": [2, None],
        "last_items": [[8, 7], None],
    }
    assert said["full"] == {"user_id": [2], "taste__mean_rating": [3.0]}
    assert said["two keys"] == {"user_id": [1], "item_id": [8], "stars": [5.0]}
    assert said["statuses"] == ["OUTSIDE_MAX_AGE", "NOT_FOUND"]
    assert "no feature group 'nothing' is registered" in said["unknown"]
    assert [(event["user_id"], event["stars"]) for event in stored(workspace)] == [(1, 4.5), (2, 3.0)]


def feast_python() -> Path:
    """The Python of Feast's environment, which is made where it is missing."""
    python = ENVIRONMENT / "bin" / "python"
    install = [str(python), "-m", "pip", "install", "--quiet", "--no-compile", "feast>=0.67,<0.68"]
    if not (ENVIRONMENT / ".made").exists():
        base = Path(sys.base_prefix) / "bin" / "python3"
        for words in ([str(base), "-m", "venv", str(ENVIRONMENT)], install):
            done = subprocess.run(words, capture_output=True, text=True, check=False)
            if done.returncode:
                pytest.skip(f"Feast can't be installed: {done.stderr.strip().splitlines()[-1:]}")
        (ENVIRONMENT / ".made").touch()
    return python
