"""The console's API: every operation, over HTTP, on real stores and a real gateway."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from noria.core import Settings
from noria.gateway import Supervisor
from noria.monitoring.console.operations import API
from noria.monitoring.console.running import Running
from noria.registry import ModelRegistry
from noria.serving.key_records import ApiKeys
from noria.serving.prediction_files import Prediction, Segments
from noria.storage import Workspace, open_records


def post(client: httpx.Client, path: str, **body: Any) -> httpx.Response:
    return client.post(path, json=body)


def problem(response: httpx.Response, status: int) -> dict[str, Any]:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    found: dict[str, Any] = response.json()
    assert found["status"] == status
    assert found["detail"]
    return found


def test_models_are_listed_shown_promoted_and_rolled_back(client: httpx.Client) -> None:
    (late,) = client.get("/api/models").json()
    assert (late["name"], late["aliases"], late["champion"]["version"]) == ("late", {"champion": 3}, 3)
    shown = client.get("/api/models/late").json()
    assert [one["version"] for one in shown["versions"]] == [4, 3, 2, 1]
    version = client.get("/api/models/late/versions/2").json()
    assert version["metrics"] == {"auc": [0.7, 0.6, 0.8], "f1": 0.5}
    assert set(version["lineage"]) == {"data", "features", "code", "dataset"}
    assert post(client, "/api/models/late/promote", version=4, why="newer").json()["champion"]["version"] == 4
    assert post(client, "/api/models/late/rollback", why="worse").json() == {"champion": 3, "aborted": None}
    trail = client.get("/api/audit", params={"model": "late", "limit": 2}).json()
    assert [(one["action"], one["version"], one["why"]) for one in trail] == [
        ("rollback champion", 3, "worse"),
        ("promote champion", 4, "newer"),
    ]


def test_gates_are_judged_from_the_record(client: httpx.Client, settings: Settings) -> None:
    with Workspace.open(settings) as workspace:
        gates = [{"gate": "limit", "metric": "f1", "least": 0.6, "most": None}]
        ModelRegistry.of(workspace).register(
            "late", {"m": b"x"}, servable="doubler", run_id="e", metrics={"f1": 0.5}, parameters={"gates": gates}
        )
    client.timeout = httpx.Timeout(60)  # the first one loads the model libraries
    refused = problem(post(client, "/api/models/late/promote", version=5), 409)
    assert "late@5 doesn't pass its gates: f1 at least 0.6: 0.5000" in refused["detail"]
    assert problem(post(client, "/api/models/late/promote", version=5, force=True), 422)["field"] == "why"
    forced = post(client, "/api/models/late/promote", version=5, force=True, why="it is urgent")
    assert forced.json()["champion"]["version"] == 5
    (last,) = client.get("/api/audit", params={"model": "late", "limit": 1}).json()
    assert (last["why"], last["verdicts"][0]["passed"]) == ("it is urgent", False)


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("/api/models/lade", "did you mean 'late'?"),
        ("/api/models/late/versions/9", "its versions are 1 to 4"),
        ("/api/deployments/late", "begin: noria deploy late"),
        ("/api/deployments/lade", "did you mean 'late'?"),
        ("/api/models/lade/deployments", "did you mean 'late'?"),
        ("/api/audit?model=lade", "did you mean 'late'?"),
        ("/api/predictions/a/b", "a share of 0.01 of the requests is recorded"),
        ("/api/nothing", "see /docs"),
    ],
)
def test_what_isnt_there_is_told_with_a_hint(lasting: httpx.Client, path: str, says: str) -> None:
    assert says in problem(lasting.get(path), 404)["hint"]


@pytest.mark.parametrize(
    ("path", "body", "status", "says"),
    [
        ("/api/models/late/promote", b"{}", 400, "missing required field `version`"),
        ("/api/models/late/promote", b'{"version": "4"}', 400, "Expected `int`"),
        ("/api/models/late/promote", b'{"version": 4, "wy": 1}', 400, "unknown field `wy`"),
        ("/api/models/late/promote", b"{", 400, "truncated"),
        ("/api/models/late/promote", b"\xff", 400, "can't be read"),
        ("/api/models/late/promote", b'{"version": 9}', 404, "no version 9"),
        ("/api/models/late/promote", b'"' + b"x" * 70_000 + b'"', 413, "too long"),
        ("/api/models/late/versions/x", None, 400, "Expected `int`"),
        ("/api/predictions?limit=0", None, 400, "limit=0"),
        ("/api/predictions?limit=x", None, 400, "Expected `int`"),
        ("/api/deployments/late", b"{}", 422, "which version"),
        ("/api/deployments/late", b'{"version": 4}', 422, "either one share or steps"),
        ("/api/deployments/late", b'{"version": 4, "canary": 1.5}', 422, "a share of 1.5"),
        ("/api/deployments/late", b'{"version": 3, "canary": 0.5}', 422, "champion already"),
        ("/api/deployments/late", b'{"version": 9, "canary": 0.5}', 404, "no version 9"),
        ("/api/deployments/late", b'{"version": 4, "steps": [0.1, 1]}', 422, "either one share or steps"),
        ("/api/deployments/late", b'{"version": 4, "steps": [0.1, 1], "every": "soon"}', 422, "not a duration"),
        ("/api/deployments/late", b'{"version": 4, "steps": [0.5, 0.1], "every": "1m"}', 422, "must grow"),
        ("/api/deployments/late", b'{"version": 4, "shadow": true, "canary": 0.1}', 422, "go to nobody"),
        ("/api/deployments/late", b'{"ab": [{"name": "a", "version": 3}]}', 422, "1 variants"),
        ("/api/deployments/late", b'{"version": 4, "ab": [{"name": "a", "version": 3}]}', 422, "stand in `ab`"),
        ("/api/deployments/late", b'{"version": 4, "canary": 0.1, "judging": {"alpha": 2}}', 422, "alpha"),
        ("/api/deployments/late", b'{"version": 4, "canary": 0.1, "judging": {"latency": 0.5}}', 422, "too small"),
        (
            "/api/deployments/late",
            b'{"version": 4, "canary": 0.1, "judging": {"reward": {"source": "sales"}}}',
            422,
            "no table 'sales'",
        ),
        ("/api/deployments/late/abort", b"{}", 404, "nothing of model 'late' is tried"),
        ("/api/keys", b'{"name": "A B"}', 422, "can't be the name"),
        ("/api/keys", b'{"name": "shop", "scopes": ["root"]}', 422, "no scope 'root'"),
        ("/api/keys", b'{"name": "shop", "expires": "soon"}', 422, "not a duration"),
        ("/api/keys/nobody/revoke", b"{}", 404, "no API key 'nobody'"),
    ],
)
def test_mistakes_are_the_client_s(
    lasting: httpx.Client, path: str, body: bytes | None, status: int, says: str
) -> None:
    kind = {"content-type": "application/json"}
    response = lasting.get(path) if body is None else lasting.post(path, content=body, headers=kind)
    assert says in problem(response, status)["detail"]


def test_a_canary_is_started_judged_paused_resumed_and_aborted(
    client: httpx.Client, counted: Callable[..., None]
) -> None:
    made = post(client, "/api/deployments/late", version=4, steps=[0.1, 0.5, 1.0], every="10m", why="newer").json()
    assert (made["kind"], made["variants"][0]["share"], made["steps"]) == ("canary", 0.1, [0.1, 0.5, 1.0])
    counted(1, canary=(500, 50), champion=(5_000, 5))
    shown = client.get("/api/deployments/late").json()
    (verdict,) = shown["verdicts"]
    assert (shown["label"], verdict["finding"], verdict["requests"]) == ("late/1", "worse", 500)
    assert verdict["comparisons"][0]["difference"][0] > 0.0
    problem(post(client, "/api/models/late/promote", version=1), 409)
    problem(post(client, "/api/deployments/late", version=4, canary=0.2), 409)
    assert post(client, "/api/deployments/late/pause", why="a look").json()["state"] == "paused"
    assert post(client, "/api/deployments/late/resume").json()["state"] == "running"
    assert "late/1 runs now" in problem(post(client, "/api/deployments/late/abort", number=7), 409)["detail"]
    assert post(client, "/api/deployments/late/abort", number=1).json()["state"] == "aborted"
    assert [one["state"] for one in client.get("/api/deployments").json()] == ["aborted"]
    assert [one["number"] for one in client.get("/api/models/late/deployments").json()] == [1]


def test_shadows_and_experiments_are_finished(client: httpx.Client) -> None:
    assert post(client, "/api/deployments/late", version=4, shadow=True).json()["shadow"] == 4
    assert post(client, "/api/deployments/late/finish").json()["why"] == "no winner"
    arms = [{"name": "control", "version": 3}, {"name": "new", "version": 4, "share": 0.25}]
    made = post(client, "/api/deployments/late", ab=arms).json()
    assert [(one["name"], one["share"]) for one in made["variants"]] == [("new", 0.25), ("control", 0.75)]
    assert "say which has won" in problem(post(client, "/api/deployments/late/finish"), 422)["hint"]
    post(client, "/api/deployments/late/finish", winner="new", number=2)
    assert client.get("/api/models/late").json()["aliases"] == {"champion": 4}


def test_a_rollback_takes_back_what_is_tried(client: httpx.Client) -> None:
    post(client, "/api/deployments/late", version=4, canary=0.5)
    assert post(client, "/api/models/late/rollback").json() == {"champion": 3, "aborted": "late/1"}


def test_predictions_are_the_newest_first(client: httpx.Client, settings: Settings) -> None:
    with Workspace.open(settings) as workspace:
        segments = Segments(settings.state_dir / "predictions", "server-0", 10**6, workspace.clock)
    for at in range(5):
        made = Prediction(f"r/{at}", at, "predict", "share", 0.01, "late", 3, inputs={"x": at}, output=[at])
        segments.write(msgspec.json.encode(made) + b"\n")
    segments.close()
    found = client.get("/api/predictions", params={"limit": 2, "model": "late@3"}).json()
    assert [one["id"] for one in found] == ["r/4", "r/3"]
    (one,) = client.get("/api/predictions/r/2").json()
    assert (one["inputs"], one["registered"]["run"]) == ({"x": 2}, "c")
    assert client.get("/api/predictions", params={"model": "other"}).json() == []


def test_without_a_gateway_the_rest_goes_on(client: httpx.Client) -> None:
    assert client.get("/health").json() == {"registry": True, "gateway": False}
    for path in ("/api/servers", "/metrics"):
        found = problem(client.get(path), 503)
        assert "no gateway runs in" in found["detail"]
    problem(post(client, "/api/servers/scale", minimum=2), 503)
    assert client.get("/api/models").status_code == 200


def test_servers_are_told_and_changed(client: httpx.Client, gateway: Supervisor) -> None:
    assert client.get("/health").json() == {"registry": True, "gateway": True}
    assert [one["name"] for one in client.get("/api/servers").json()] == ["replica-0", "replica-1"]
    assert post(client, "/api/servers/replica-1/drain").json()["result"] is True
    assert client.get("/api/servers").json()[1]["drained"] is True
    assert post(client, "/api/servers/replica-1/resume").status_code == 200
    assert post(client, "/api/servers/replica-1/weight", weight=50).status_code == 200
    assert client.get("/api/servers").json()[1]["proxy"]["weight"] == 50
    assert "did you mean" in problem(post(client, "/api/servers/replica-9/drain"), 404)["hint"]
    assert "allowed: 0 to 256" in problem(post(client, "/api/servers/replica-1/weight", weight=999), 422)["hint"]
    problem(post(client, "/api/servers/replica-1/remove"), 422)
    assert post(client, "/api/servers", address=gateway.url.removeprefix("http://")).status_code == 200
    elsewhere = client.get("/api/servers").json()[2]["name"]
    assert post(client, f"/api/servers/{elsewhere}/remove").status_code == 200
    pids = {one["pid"] for one in client.get("/api/servers").json()}
    done = client.post("/api/servers/restart", json={}, timeout=60).json()
    assert done["events"]
    assert pids.isdisjoint({one["pid"] for one in client.get("/api/servers").json()})
    client.post("/api/servers/scale", json={"minimum": 1}, timeout=60)
    assert len(client.get("/api/servers").json()) == 1


def test_one_scrape_shows_the_balancer_and_every_replica(client: httpx.Client, gateway: Supervisor) -> None:
    response = client.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
    lines = response.text.splitlines()
    for name in ("replica-0", "replica-1"):
        assert f'noria_replica_up{{replica="{name}"}} 1' in lines
        assert f'told{{replica="{name}",key=""}} 1' in lines
        assert f'plain_total{{replica="{name}"}} 7' in lines
    assert sum(line == "# TYPE told gauge" for line in lines) == 1
    assert any(line.startswith("haproxy_") for line in lines)


def test_keys_are_shown_once_and_demanded_from_then_on(
    start: Callable[..., Running], settings: Settings, gateway: Supervisor, wait_for: Callable[..., None]
) -> None:
    first = start(admin_port=0)
    with httpx.Client(base_url=first.url) as client:
        made = post(client, "/api/keys", name="ops", scopes=["admin"], rate="100/s", why="for us").json()
        assert made["first"] is True
        key = made["key"]
    second = start(admin_port=0)  # it follows the keys from its start
    with httpx.Client(base_url=second.url) as client:
        assert problem(client.get("/api/keys"), 401)["hint"] == "send one as: Authorization: Bearer KEY"
        client.headers["authorization"] = f"Bearer {key}"
        (shown,) = client.get("/api/keys").json()
        assert (shown["name"], shown["status"], shown["rate"]) == ("ops", "valid", "100/s")
        assert key not in client.get("/api/keys").text + client.get("/keys").text
        problem(post(client, "/api/keys", name="ops"), 409)
        shop = post(client, "/api/keys", name="shop", expires="90d").json()
        assert shop["first"] is False
        again = post(client, "/api/keys/shop/rotate", grace="0").json()
        assert again["key"] != shop["key"]
        assert post(client, "/api/keys/shop/revoke", why="gone").json()["status"] == "revoked"
        changes = client.get("/api/keys/changes", params={"name": "shop"}).json()
        assert [(one["action"], one["who"]) for one in changes] == [
            ("revoke", "key ops"),
            ("rotate", "key ops"),
            ("create", "key ops"),
        ]
        post(client, "/api/models/late/promote", version=1)
        assert client.get("/api/audit").json()[0]["who"] == "key ops"
        assert f'told{{replica="replica-0",key="Bearer {key}"}} 1' in client.get("/metrics").text
        other = ApiKeys(open_records(settings.storage.records, settings.root)).create("low", "predict")
        wait_for(lambda: client.get("/api/keys", headers={"x-api-key": other}).status_code == 403)


def test_its_document_says_all_of_it(client: httpx.Client) -> None:
    document = client.get("/api/openapi.json").json()
    assert document["openapi"] == "3.1.0"
    assert set(document["paths"]) == {one.path for one in API}
    ids = [one["operationId"] for methods in document["paths"].values() for one in methods.values()]
    assert len(set(ids)) == len(ids) == len(API)
    refs = set(_refs(document))
    assert refs <= {f"#/components/schemas/{name}" for name in document["components"]["schemas"]}
    promote = document["paths"]["/api/models/{model}/promote"]["post"]
    assert promote["summary"] == "Make a version the champion, at once and for everybody."
    assert promote["parameters"] == [{"name": "model", "in": "path", "required": True, "schema": {"type": "string"}}]
    assert all(one.summary.endswith(".") for one in API)


def test_a_registry_that_cant_be_read_is_told_and_comes_back(
    client: httpx.Client, settings: Settings, tmp_path: Path
) -> None:
    # Nothing was asked yet, so that the console hasn't opened it.
    file = settings.root / ".noria" / "records.db"
    kept = file.rename(tmp_path / "kept.db")
    file.write_bytes(b"no database at all " * 2_000)
    found = problem(client.get("/api/models"), 503)
    assert "can't be used" in found["detail"]
    response = client.get("/health")
    assert (response.status_code, response.json()["registry"]) == (503, False)
    page = client.get("/", headers={"accept": "text/html"})
    assert (page.status_code, "records.db" in page.text) == (503, True)
    kept.rename(file)
    assert client.get("/api/models").status_code == 200


def test_two_consoles_act_on_one_project(start: Callable[..., Running], settings: Settings) -> None:
    with httpx.Client(base_url=start().url) as one, httpx.Client(base_url=start().url) as other:
        assert one.base_url != other.base_url
        post(one, "/api/deployments/late", version=4, canary=0.5)
        assert other.get("/api/deployments/late").json()["label"] == "late/1"
        problem(post(other, "/api/deployments/late", version=2, canary=0.5), 409)
        post(other, "/api/deployments/late/abort")
        problem(post(one, "/api/deployments/late/abort"), 404)
    with Workspace.open(settings) as workspace:
        actions = [entry.action for entry in ModelRegistry.of(workspace).audit("late")][:2]
    assert actions == ["abort canary", "deploy canary"]


def _refs(value: Any) -> list[str]:
    if isinstance(value, dict):
        own = [value["$ref"]] if isinstance(value.get("$ref"), str) else []
        return own + [ref for part in value.values() for ref in _refs(part)]
    return [ref for part in value for ref in _refs(part)] if isinstance(value, list) else []
