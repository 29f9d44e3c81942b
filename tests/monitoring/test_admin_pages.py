"""The console's pages: what they show, that they escape it, and that they can be read whatever is missing."""

from __future__ import annotations

from collections.abc import Callable
from html.parser import HTMLParser

import httpx
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from noria.core import Settings
from noria.gateway import Supervisor
from noria.monitoring.confidence import Interval
from noria.monitoring.console.drawing import drawn
from noria.monitoring.console.html import tag, text
from noria.monitoring.judge import Comparison
from noria.registry import ModelRegistry
from noria.serving.prediction_files import Prediction, Segments
from noria.storage import Workspace

EVIL = "\"><script>alert(1)</script><img src=x onerror='alert(2)'>&amp;"


class Reader(HTMLParser):
    """Collects what a browser would run or load, and checks that elements are closed in order."""

    VOID = frozenset({"br", "hr", "input", "meta", "link"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.words = ""

    def handle_starttag(self, name: str, attributes: list[tuple[str, str | None]]) -> None:
        self.found.append((name, dict(attributes)))
        if name not in self.VOID:
            self.open.append(name)

    def handle_endtag(self, name: str) -> None:
        assert self.open.pop() == name

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("script", "style"):
            self.words += data


def read(response: httpx.Response, status: int = 200) -> Reader:
    assert response.status_code == status
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    reader = Reader()
    reader.feed(response.text)
    assert reader.open == []
    assert sum(name == "script" for name, _ in reader.found) == 1
    for name, attributes in reader.found:
        assert name not in ("img", "iframe", "object", "base")
        assert not any(key.startswith("on") or key == "style" for key in attributes), (name, attributes)
        for key in ("href", "src"):
            assert str(attributes.get(key, "/")).startswith(("/", "#", "data:,"))
    return reader


@pytest.mark.parametrize("path", ["/", "/servers", "/keys", "/predictions", "/audit", "/docs", "/models/late"])
def test_every_page_can_be_read_without_a_gateway(lasting: httpx.Client, path: str) -> None:
    reader = read(lasting.get(path, headers={"accept": "text/html"}))
    if path in ("/", "/servers"):
        assert "no gateway runs in" in reader.words


def test_the_overview_shows_models_servers_and_what_is_tried(client: httpx.Client, gateway: Supervisor) -> None:
    client.post("/api/deployments/late", json={"version": 4, "canary": 0.25})
    words = read(client.get("/")).words
    for part in ("2 of 2", "requests a second", "late/1", "canary 4: 25%", "champion 3: 75%", gateway.url, "version 3"):
        assert part in words
    reader = read(client.get("/servers"))
    assert "replica-1" in reader.words
    posts = {attributes.get("data-post") for _, attributes in reader.found}
    assert {"/api/servers/restart", "/api/servers/scale", "/api/servers/replica-0/drain"} <= posts
    reader = read(client.get("/docs"))
    assert "Predict <b>late</b>." in reader.words  # of the replica's own document
    assert "</pre><script>" in reader.words
    assert "Make a version the champion, at once and for everybody." in reader.words


def test_a_deployment_shows_its_verdict_and_what_can_be_done(
    client: httpx.Client, counted: Callable[..., None]
) -> None:
    client.post("/api/deployments/late", json={"version": 4, "steps": [0.1, 1], "every": "10m"})
    counted(1, canary=(900, 90), champion=(9_000, 9))
    reader = read(client.get("/deployments/late"))
    assert "worse, by errors 10% instead of 0.1%" in reader.words
    assert sum(name == "svg" for name, _ in reader.found) == 2
    posts = [attributes["data-post"] for _, attributes in reader.found if attributes.get("data-post")]
    assert posts == [
        *(f"/api/deployments/late/{action}" for action in ("pause", "finish", "abort")),
        "/api/models/late/rollback",
    ]
    client.post("/api/deployments/late/pause", json={})
    assert "Resume" in read(client.get("/deployments/late")).words
    client.post("/api/deployments/late/abort", json={})
    reader = read(client.get("/deployments/late"))
    assert not [one for one in reader.found if one[1].get("data-post")]


def test_an_experiment_can_be_won_by_either(client: httpx.Client) -> None:
    arms = [{"name": "control", "version": 3}, {"name": "new", "version": 4}]
    client.post("/api/deployments/late", json={"ab": arms})
    words = read(client.get("/deployments/late")).words
    assert "Finish: new wins" in words
    assert "Finish: control wins" in words


def test_whatever_users_write_is_text(client: httpx.Client, settings: Settings) -> None:
    with Workspace.open(settings) as workspace:
        registry = ModelRegistry.of(workspace)
        registry.register(
            "evil", {EVIL: b"x"}, servable=EVIL, run_id=EVIL, metrics={EVIL: EVIL}, parameters={EVIL: EVIL}, who=EVIL
        )
        registry.promote("evil", 1, why=EVIL, who=EVIL)
        segments = Segments(settings.state_dir / "predictions", "server-0", 10**6, workspace.clock)
    made = Prediction("a/b?c=d", 1, EVIL, EVIL, 0.01, EVIL, 3, inputs={EVIL: EVIL}, output=EVIL, variant=EVIL)
    segments.write(msgspec.json.encode(made) + b"\n")
    segments.close()
    arms = [{"name": EVIL, "version": 3}, {"name": "new", "version": 4}]
    assert client.post("/api/deployments/late", json={"ab": arms, "why": EVIL}).status_code == 200
    for path in ("/", "/models/evil", "/models/late", "/deployments/late", "/audit", "/predictions"):
        assert EVIL in read(client.get(path)).words, path
    href = next(one["href"] for name, one in read(client.get("/predictions")).found if "a%2Fb" in str(one.get("href")))
    assert "a/b?c=d" in read(client.get(str(href))).words


def test_a_version_s_report_is_a_document_that_runs_nothing(client: httpx.Client, settings: Settings) -> None:
    with Workspace.open(settings) as workspace:
        files = {"model": b"e", "report.html": b"<!doctype html><h1>late</h1>"}
        ModelRegistry.of(workspace).register("late", files, servable="doubler", run_id="e")
    assert "/models/late/5/report" in {
        attributes.get("href") for _, attributes in read(client.get("/models/late")).found
    }
    found = client.get("/models/late/5/report")
    assert found.text == "<!doctype html><h1>late</h1>"
    assert found.headers["content-type"] == "text/html; charset=utf-8"
    assert found.headers["content-security-policy"].startswith("default-src 'none'; style-src 'unsafe-inline';")
    assert client.get("/models/late/1/report").status_code == 404


def test_mistakes_are_pages_for_people(lasting: httpx.Client) -> None:
    people = {"accept": "text/html,*/*"}
    for path, status in (("/models/<script>x", 404), ("/nothing", 404), ("/predictions?limit=x", 400)):
        reader = read(lasting.get(path, headers=people), status)
        assert reader.words
    assert lasting.get("/models/nobody").headers["content-type"] == "application/problem+json"
    assert lasting.get("/api/models/nobody", headers=people).headers["content-type"] == "application/problem+json"


@given(st.text(), st.text())
def test_no_text_becomes_markup(word: str, value: str) -> None:
    made = tag("p", word, [value, None, 3], data_x=value)
    reader = Reader()
    reader.feed(str(made))
    names = [name for name, _ in reader.found]
    assert (names, reader.open) == (["p"], [])
    assert made.count("<") == 2
    assert text(made) is made


ends = st.floats(-10, 10) | st.sampled_from([float("inf"), float("-inf")])


@given(
    ends, ends, st.floats(0, 10), st.floats(0, 10), st.sampled_from(["errors", "latency", "reward"]), st.floats(-1, 5)
)
def test_pictures_stay_in_their_frames(
    low: float, high: float, tried: float, control: float, question: str, tolerated: float
) -> None:
    comparison = Comparison(question, tried, control, Interval(min(low, high), max(low, high)), tolerated)  # type: ignore[arg-type]
    made = drawn(comparison)
    if made is None:
        return
    reader = Reader()
    reader.feed(made)
    for _, attributes in reader.found:
        for key in ("x", "x1", "x2", "cx"):
            assert 0 <= float(attributes.get(key) or 0) <= 320
