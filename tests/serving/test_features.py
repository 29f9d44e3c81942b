from __future__ import annotations

import hashlib
import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from doubler import Doubler
from shop_features import MICROS, PAIR, POPULARITY, RECENT, TASTE, materialize, ratings

import noria as nr
from noria.core import Settings, StorageError
from noria.features.catalog import Catalog
from noria.serving import Access, KeyRing, ModelServer, feature_groups
from noria.serving.feature_door import FeatureDoor
from noria.storage import Workspace
from noria.telemetry import MetricsCollector

BOTH = {"groups": ["taste", "popularity"], "entities": {"user_id": [1, 3], "item_id": [7, 8]}}


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Workspace]:
    with Workspace.open(Settings(tmp_path)) as opened:
        materialize(opened, TASTE, POPULARITY, PAIR, RECENT)
        yield opened


@pytest.fixture
def client(workspace: Workspace) -> Iterator[httpx.Client]:
    metrics = MetricsCollector()
    server = ModelServer([], metrics=metrics, features=FeatureDoor(workspace, metrics))
    with server.running() as url, httpx.Client(base_url=url) as made:
        yield made


def test_groups_are_read_with_what_is_known_of_each_entity(client: httpx.Client) -> None:
    answer = client.post("/features", json=BOTH)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
    assert answer.json() == {
        "features": {
            "taste.mean_rating": [4.5, None],
            "taste.ratings": [2, 0],
            "taste.last_items": [[8, 7], []],
            "popularity.ratings": [2, 1],
        },
        "groups": {
            "taste": {"status": ["present", "missing"], "event_times": [MICROS, None]},
            "popularity": {"status": ["present", "present"], "event_times": [MICROS, MICROS]},
        },
    }


def test_single_features_come_alone_and_a_whole_group_covers_its_own(client: httpx.Client) -> None:
    users = {"user_id": [2]}
    some = client.post("/features", json={"features": ["taste.ratings", "recent.ratings"], "entities": users}).json()
    assert some["features"] == {"taste.ratings": [1], "recent.ratings": [None]}
    assert some["groups"]["recent"] == {"status": ["expired"], "event_times": [MICROS]}
    whole = client.post(
        "/features", json={"groups": ["taste"], "features": ["taste.ratings"], "entities": users}
    ).json()
    assert list(whole["features"]) == ["taste.mean_rating", "taste.ratings", "taste.last_items"]


def test_an_entity_of_several_keys_takes_several_columns(client: httpx.Client) -> None:
    answer = client.post("/features", json={"groups": ["pair"], "entities": {"item_id": [8, 8], "user_id": [1, 2]}})
    assert answer.json()["features"] == {"pair.stars": [5.0, None]}
    assert client.post("/features", json={"groups": ["taste"], "entities": {"user_id": []}}).json()["features"] == {
        "taste.mean_rating": [],
        "taste.ratings": [],
        "taste.last_items": [],
    }


@pytest.mark.parametrize(
    ("body", "field", "said"),
    [
        ({"groups": ["tast"], "entities": {"user_id": [1]}}, "groups[0]", "did you mean 'taste'?"),
        ({"features": ["taste.rating"], "entities": {"user_id": [1]}}, "features[0]", "did you mean 'taste.ratings'?"),
        ({"features": ["nothing"], "entities": {"user_id": [1]}}, "features[0]", "allowed: pair, popularity"),
        ({"groups": ["taste"], "entities": {"item_id": [1]}}, "entities.user_id", "give user_id"),
        ({"groups": ["pair"], "entities": {"user_id": [1]}}, "entities.item_id", "give user_id, item_id"),
        ({"groups": ["taste"], "entities": {"user_id": [1, "2"]}}, "entities.user_id[1]", "whole number"),
        ({"groups": ["taste"], "entities": {"user_id": [True]}}, "entities.user_id[0]", "whole number"),
        ({"groups": ["taste"], "entities": {"user_id": [1.0]}}, "entities.user_id[0]", "whole number"),
        ({"groups": ["taste"], "entities": {"user_id": [None]}}, "entities.user_id[0]", "whole number"),
        ({"groups": ["taste"], "entities": {"user_id": [2**63]}}, "entities.user_id[0]", "64 bits"),
        ({"groups": ["taste"], "entities": {"user_id": 1}}, "entities.user_id", "give one"),
        ({"groups": ["pair"], "entities": {"user_id": [1, 2], "item_id": [1]}}, "entities.item_id", "as many"),
        ({"groups": ["taste"], "entities": {"user_id": [1] * 10_001}}, "entities.user_id", "up to 10000"),
        ({"groups": [], "entities": {"user_id": [1]}}, "groups", "allowed: pair, popularity"),
        ({"groups": ["taste"]}, "entities", "openapi"),
        ({"groups": ["taste"], "entities": {}, "feature": []}, "feature", "openapi"),
    ],
)
def test_a_mistake_is_named_with_what_is_allowed(client: httpx.Client, body: Any, field: str, said: str) -> None:
    answer = client.post("/features", json=body)
    assert (answer.status_code, answer.headers["content-type"]) == (422, "application/problem+json")
    assert answer.json()["field"] == field
    assert said in answer.json()["hint"]
    assert answer.json()["instance"] == "/features"


def test_an_unknown_field_or_path_is_told_with_those_that_there_are(client: httpx.Client) -> None:
    wrong = client.post("/features", json={"groups": ["taste"], "entitites": {"user_id": [1]}}).json()
    assert (wrong["field"], wrong["hint"].partition("?")[0]) == ("entitites", "did you mean 'entities'")
    assert "did you mean '/features'?" in client.post("/feature", json={}).json()["hint"]


def test_what_is_no_request_for_features_is_refused(client: httpx.Client) -> None:
    assert client.post("/features", content=b"{").status_code == 400
    assert client.post("/features", content=b"").status_code == 400
    assert client.get("/features").headers["allow"] == "POST"
    assert client.post("/features", content=b"a", headers={"content-type": "text/csv"}).status_code == 415


def test_the_server_says_what_it_offers_and_counts_what_it_read(client: httpx.Client) -> None:
    client.post("/features", json=BOTH)
    client.post("/features", json={**BOTH, "groups": ["tast"]})
    front = client.get("/").json()
    assert front["features"]["pair"] == {
        "keys": {"user_id": "int64", "item_id": "int64"},
        "features": {"pair.stars": "float64"},
    }
    document = client.get("/openapi.json").json()
    assert {"/features", "/get-online-features", "/push", "/health"} <= set(document["paths"])
    example = document["paths"]["/features"]["post"]["requestBody"]["content"]["application/json"]["example"]
    assert client.post("/features", json=example).status_code == 200
    told = set(find_references(document))
    assert told <= {f"#/components/schemas/{name}" for name in document["components"]["schemas"]}
    text = client.get("/metrics").text
    assert 'noria_features_read_total{group="taste",status="missing"} 1' in text
    assert 'noria_http_requests_total{code="422",method="POST",path="/features"} 1' in text
    assert "noria_features_batch_size_count" in text


def find_references(value: Any) -> Iterator[str]:
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
        if key == "$ref":
            yield inner
        elif isinstance(inner, (dict, list)):
            yield from find_references(inner)


def test_requests_of_one_turn_are_one_read_of_each_group(workspace: Workspace) -> None:
    metrics = MetricsCollector()
    server = ModelServer([Doubler()], metrics=metrics, features=FeatureDoor(workspace, metrics))
    body = json.dumps({"groups": ["taste"], "entities": {"user_id": [1]}}).encode()
    wrong = json.dumps({"groups": ["taste"], "entities": {"user_id": ["a"]}}).encode()
    head = b"POST /features HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%b"
    with server.running() as url:
        host, _, port = url.removeprefix("http://").partition(":")
        with socket.create_connection((host, int(port)), timeout=10) as connection:
            connection.sendall(b"".join(head % (len(one), one) for one in (body, wrong, body, body)))
            received = b""
            while received.count(b"HTTP/1.1 ") < 4 or not received.endswith(b"}"):
                received += connection.recv(1 << 16)
    assert [part[:3] for part in received.split(b"HTTP/1.1 ")[1:]] == [b"200", b"422", b"200", b"200"]
    assert received.count(b'"taste.mean_rating":[4.5]') == 3
    assert "noria_features_batch_size_count 1" in metrics.exposition()
    assert "noria_features_batch_size_sum 3" in metrics.exposition()


def test_a_damaged_value_is_an_error_of_its_own_request_alone(workspace: Workspace, client: httpx.Client) -> None:
    spec = TASTE.online_spec()
    workspace.online.write(spec.place, [spec.key(9)], [MICROS], [b"\xc1"])

    def ask(user: int) -> int:
        return client.post("/features", json={"groups": ["taste"], "entities": {"user_id": [user]}}).status_code

    statuses: dict[int, int] = {}
    threads = [threading.Thread(target=lambda u=u: statuses.__setitem__(u, ask(u))) for u in (1, 9, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert statuses == {1: 200, 9: 503, 2: 200}


def test_a_group_that_is_registered_later_is_found_by_the_next_request(
    workspace: Workspace, client: httpx.Client
) -> None:
    fresh = nr.FeatureGroup("fresh", "user_id", ratings, {"n": nr.count()})
    body = {"groups": ["fresh"], "entities": {"user_id": [1]}}
    assert client.post("/features", json=body).status_code == 422
    materialize(workspace, fresh)
    assert client.post("/features", json=body).json()["features"] == {"fresh.n": [2]}


def test_another_definition_is_read_as_soon_as_it_is_computed(workspace: Workspace, client: httpx.Client) -> None:
    changed = nr.FeatureGroup("popularity", "item_id", ratings, {"ratings": nr.count(), "best": nr.max("stars")})
    Catalog(workspace.records, workspace.clock).register(changed)
    body = {"groups": ["popularity"], "entities": {"item_id": [7]}}
    for _ in range(15):  # until it is computed the definition before is read
        assert client.post("/features", json=body).json()["features"] == {"popularity.ratings": [2]}
        time.sleep(0.1)
    materialize(workspace, changed)
    deadline = time.monotonic() + 10
    while client.post("/features", json=body).json()["features"] != {"popularity.ratings": [2], "popularity.best": [4]}:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_records_that_cannot_be_read_leave_what_is_known(
    workspace: Workspace, client: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> list[Any]:
        raise StorageError("no records today")

    with monkeypatch.context() as patched:
        patched.setattr(type(workspace.records), "list", broken)
        assert client.post("/features", json={**BOTH, "groups": ["unknown"]}).status_code == 422
        assert client.post("/features", json=BOTH).status_code == 200


def test_keys_are_needed_as_elsewhere(workspace: Workspace) -> None:
    metrics, keys = MetricsCollector(), frozenset([hashlib.sha256(b"me").hexdigest()])
    server = ModelServer(
        [], metrics=metrics, features=FeatureDoor(workspace, metrics), keys=Access(KeyRing.of(digests=keys))
    )
    with server.running() as url, httpx.Client(base_url=url) as client:
        assert client.post("/features", json=BOTH).status_code == 401
        assert client.post("/get-online-features", json={}).status_code == 401
        assert client.post("/features", json=BOTH, headers={"x-api-key": "me"}).status_code == 200
        assert client.get("/health").status_code == 200


def test_plans_are_bounded(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feature_groups, "_MAX_PLANS", 2)
    door = FeatureDoor(workspace, MetricsCollector())
    plans = [
        door.groups.plan((), names) for names in ((f"taste.{n}",) for n in ("ratings", "mean_rating", "last_items"))
    ]
    assert [plan[0].names for plan in plans] == [("taste.ratings",), ("taste.mean_rating",), ("taste.last_items",)]
    assert len(door.groups._plans) == 1


def test_a_server_process_may_have_features_alone(workspace: Workspace, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = [sys.executable, "-m", "noria.serving", "--project", str(tmp_path), "--port", str(port), "--features"]
    with subprocess.Popen(words) as process:
        try:
            deadline = time.monotonic() + 30
            while True:
                try:
                    answer = httpx.post(f"http://127.0.0.1:{port}/features", json=BOTH)
                    break
                except httpx.ConnectError:
                    assert time.monotonic() < deadline
                    time.sleep(0.1)
            assert answer.json()["features"]["popularity.ratings"] == [2, 1]
        finally:
            process.terminate()
    assert process.returncode == 0


SYSTEM = """
import noria as nr
ratings = nr.Source("ratings", "r.csv", schema={"user_id": "int64", "stars": "float64", "at": nr.Timestamp("iso")})
taste = nr.FeatureGroup("taste", "user_id", ratings, {"mean": nr.mean("stars")})
system = nr.System("features-only", [ratings, taste])
"""


def test_noria_serve_offers_the_features_of_a_project_without_models(tmp_path: Path) -> None:
    (tmp_path / "system.py").write_text(SYSTEM)
    (tmp_path / "r.csv").write_text("user_id,stars,at\n1,4,2026-01-05T10:00:00Z\n")
    noria = [sys.executable, "-m", "noria"]
    subprocess.run([*noria, "run"], cwd=tmp_path, check=True, capture_output=True)
    words = [*noria, "serve", "--port", "0", "--replicas", "1"]
    with subprocess.Popen(words, cwd=tmp_path, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            lines = [process.stdout.readline() for _ in range(2)]
            assert lines[0].startswith("serving features on http://")
            url = lines[1].split()[2]
            answer = httpx.post(url, json={"groups": ["taste"], "entities": {"user_id": [1]}})
            assert answer.json()["features"] == {"taste.mean": [4.0]}
        finally:
            process.terminate()
    assert process.returncode == 0
