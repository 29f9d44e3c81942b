"""UUIDs as ids of entities: from files and events to the online store, to training sets, models and servers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import numpy as np
import polars as pl
import pytest
from sklearn.linear_model import LogisticRegression

import noria as nr
from noria.core import ConfigError, DataError, RequestError, SchemaError, Settings
from noria.features.feed import Feed
from noria.pipelines.intake import StreamSpec
from noria.pipelines.online_sinks import LatestRow
from noria.pipelines.stream_sinks import StreamRows
from noria.registry import ModelRegistry
from noria.serving import ModelServer, load_servable
from noria.serving.events import EventDoor
from noria.serving.feature_door import FeatureDoor
from noria.storage import Workspace
from noria.storage.online import Mark
from noria.telemetry import MetricsCollector

ANN, BOB, EVE = (UUID(int=n + (1 << 127)) for n in (10, 11, 12))
SCHEMA = {"user": "uuid", "price": "float64", "paid": "bool", "at": nr.Timestamp("us")}
KNOWN = [(ANN, 1.0), (BOB, 4.0), (ANN, 3.0)]


def source(path: str = "buys.csv") -> nr.Source:
    return nr.Source("buys", path, schema=SCHEMA)


def habits(made: nr.Source, entity: Any = "user") -> nr.FeatureGroup:
    return nr.FeatureGroup(
        "habits", entity, made, {"spent": nr.sum("price"), "n": nr.count(), "who": nr.last("user", n=1)}
    )


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Workspace]:
    with Workspace.open(Settings(tmp_path)) as opened:
        yield opened


def write(path: Path, users: list[Any]) -> None:
    """A file with these users, whoever they are, behind the known ones; its kind is the name's."""
    rows = [(str(u), price) for u, price in KNOWN] + [(u, 9.0) for u in users]
    frame = pl.DataFrame(rows, schema=["user", "price"], orient="row").with_columns(paid=pl.col("price") > 2)
    frame = frame.with_row_index("at", offset=1)
    match path.suffix:
        case ".csv":
            frame.write_csv(path)
        case ".jsonl":
            frame.write_ndjson(path)
        case _:
            frame.write_parquet(path)


def run(workspace: Workspace, *parts: Any) -> None:
    report = nr.System("shop", parts).run(workspace)
    for failed in report.failed:
        raise failed.error or AssertionError(failed.why)


@pytest.mark.parametrize("name", ["buys.csv", "buys.jsonl", "buys.parquet"])
def test_files_have_uuids_in_any_form_and_others_are_quarantined(workspace: Workspace, name: str) -> None:
    write(workspace.settings.root / name, [ANN.hex.upper(), "ann", None, f"{{{BOB}}}"])
    made = source(name)
    group = habits(made)
    run(workspace, made, group)
    assert workspace.table("buys").read()["user"].to_list() == [str(u) for u in (ANN, BOB, ANN, ANN, BOB)]
    assert workspace.table("buys__quarantine").read()["reasons"].to_list() == [
        ["user: 'ann' is not uuid"],
        ["user: missing"],
    ]
    store = nr.FeatureStore(workspace)
    for ids in ([ANN, EVE, BOB], [str(ANN), str(EVE), str(BOB)], [ANN.hex.upper(), EVE, f"{{{BOB}}}"]):
        found = store.get_online(group, ids)
        assert found.columns["habits.spent"] == [13.0, None, 13.0]
        assert found.columns["habits.who"] == [[str(ANN)], [], [str(BOB)]]
        assert found.found == [True, False, True]
    for wrong in ("ann", 7, b"0" * 16, None):
        with pytest.raises(ConfigError, match="can't be a user"):
            store.get_online(group, [ANN, wrong])


def test_bytes_in_parquet_are_uuids(workspace: Workspace) -> None:
    frame = pl.DataFrame(
        {"user": [ANN.bytes, b"ann", BOB.bytes], "price": [1.0] * 3, "paid": [True] * 3, "at": [1, 2, 3]}
    )
    frame.write_parquet(workspace.settings.root / "buys.parquet")
    run(workspace, source("buys.parquet"))
    assert workspace.table("buys").read()["user"].to_list() == [str(ANN), str(BOB)]
    assert workspace.table("buys__quarantine").read()["reasons"].to_list() == [["user: 'ann' is not uuid"]]


def test_a_column_of_numbers_is_no_column_of_uuids(workspace: Workspace) -> None:
    frame = pl.DataFrame({"user": [1], "price": [1.0], "paid": [True], "at": [1]})
    frame.write_parquet(workspace.settings.root / "buys.parquet")
    with pytest.raises(SchemaError, match=r"'user' as Int64, which can't become uuid"):
        run(workspace, source("buys.parquet"))


EVENTS = pl.DataFrame(
    {"user": [str(u) for u, _ in KNOWN], "price": [p for _, p in KNOWN], "at": [1, 2, 3]}
).with_columns(pl.col("at").cast(pl.Datetime("us", "UTC")))


@pytest.mark.parametrize(
    "ids", [[str(ANN), str(BOB), str(EVE), None], [ANN, BOB, EVE, None], [ANN.hex.upper(), f"{{{BOB}}}", "eve", None]]
)
def test_labels_have_uuids_in_any_form(workspace: Workspace, ids: list[Any]) -> None:
    labels = pl.DataFrame({"user": ids, "at": [3, 3, 3, 3]}).with_columns(pl.col("at").cast(pl.Datetime("us", "UTC")))
    upper = EVENTS.with_columns(pl.col("user").str.to_uppercase())
    for events in (EVENTS, upper):
        made = nr.FeatureStore(workspace).training_set(labels, [habits(source())], time="at", events={"buys": events})
        assert made["habits.spent"].to_list() == [1.0, 4.0, None, None]
        assert made["user"].to_list() == ids


def test_events_that_are_given_have_uuids(workspace: Workspace) -> None:
    store, wrong = nr.FeatureStore(workspace), EVENTS.with_columns(user=pl.lit("ann"))
    with pytest.raises(DataError, match=r"the events' 'user': 'ann' is no UUID"):
        store.materialize(habits(source()), events=wrong)
    with pytest.raises(ConfigError, match="the labels' 'user' is Int32"):
        store.training_set(EVENTS.with_columns(user=1), [habits(source())], time="at", events={"buys": EVENTS})


def test_a_uuid_may_be_a_part_of_an_id_and_is_another_definition_than_text(workspace: Workspace) -> None:
    made = source()
    pairs = nr.Source("pairs", "p.csv", schema={"user": "uuid", "item": "int64", "at": nr.Timestamp("us")})
    group = nr.FeatureGroup("pair", ("user", "item"), pairs, {"n": nr.count()})
    events = EVENTS.select("user", "at", item=pl.lit(7))
    store = nr.FeatureStore(workspace)
    store.materialize(group, events=events)
    assert store.get_online(group, [(ANN, 7), (str(BOB).upper(), 7), (BOB, 8)]).columns["pair.n"] == [2, 1, 0]
    text = nr.Source("buys", "buys.csv", schema={**SCHEMA, "user": "str"})
    assert habits(text).definition_hash() != habits(made).definition_hash()
    assert "uuids" not in habits(text).to_dict()


def test_streams_take_uuids_in(workspace: Workspace) -> None:
    stream = nr.Stream(
        "clicks", schema={"user": "uuid", "at": nr.Timestamp("us")}, key="user", online=[LatestRow("user")]
    )
    events = [
        {"user": str(ANN).upper(), "at": 1},
        {"user": "ann", "at": 2},
        {"user": BOB.hex, "at": 3},
        {"user": 7, "at": 4},
    ]
    workspace.log.create("clicks", 1)
    workspace.log.append("clicks", [json.dumps(event).encode() for event in events])
    with nr.StreamProcessor(stream, workspace) as processor:
        result = processor.run_to_end()
    assert (result.rows_out, result.quarantined) == (2, 2)
    assert workspace.table("clicks").read()["user"].to_list() == [str(ANN), str(BOB)]
    for asked in ([ANN, BOB], [str(ANN).upper(), BOB.hex]):
        rows = stream.online[0].read(workspace.online, stream, asked)
        assert [row["user"] for row in rows] == [str(ANN), str(BOB)]


def test_a_stream_keeps_groups_of_uuids_up(workspace: Workspace) -> None:
    stream = nr.Stream("buys", schema=SCHEMA, key="user")
    group = nr.FeatureGroup("habits", "user", stream, {"spent": nr.sum("price"), "n": nr.count(window="1h")})
    feed = Feed(group, stream, workspace)
    feed.prepare(stream)
    rows = StreamRows(0, EVENTS, np.arange(3), 3)
    feed.write(workspace.online, stream, rows, Mark("m", workspace.online.marks("m").get("m", -1), 3))
    found = nr.FeatureStore(workspace).get_online(group, [ANN, str(BOB).upper(), EVE])
    assert found.columns == {"habits.spent": [4.0, 4.0, None], "habits.n": [2, 1, 0]}


def test_a_server_reads_by_uuids_and_takes_events_with_them(workspace: Workspace) -> None:
    nr.FeatureStore(workspace).materialize(habits(source()), events=EVENTS)
    clicks = StreamSpec("clicks", "clicks", 1, {"user": "uuid", "at": "timestamp[us]"}, "user")
    metrics = MetricsCollector()
    doors = {"features": FeatureDoor(workspace, metrics), "events": EventDoor([clicks], workspace, metrics)}
    with ModelServer([], metrics=metrics, **doors).running() as url, httpx.Client(base_url=url) as client:
        body = {"groups": ["habits"], "entities": {"user": [str(ANN), BOB.hex.upper(), str(EVE)]}}
        answer = client.post("/features", json=body).json()
        assert answer["features"]["habits.spent"] == [4.0, 4.0, None]
        assert answer["groups"]["habits"]["status"] == ["present", "present", "missing"]
        for wrong in ("ann", 7, None):
            said = client.post("/features", json={**body, "entities": {"user": [str(ANN), wrong]}})
            assert (said.status_code, said.json()["field"]) == (422, "entities.user[1]")
            assert "a user of 'habits' is a UUID" in said.json()["hint"]
        document = client.get("/openapi.json").json()
        example = document["paths"]["/features"]["post"]["requestBody"]["content"]["application/json"]["example"]
        assert client.post("/features", json=example).status_code == 200
        assert client.get("/").json()["features"]["habits"]["keys"] == {"user": "uuid"}

        feast = {"features": ["habits:spent"], "entities": {"user": [str(BOB), str(EVE)]}}
        results = client.post("/get-online-features", json=feast).json()["results"]
        assert results[0]["values"] == [str(BOB), str(EVE)]
        assert (results[1]["values"], results[1]["statuses"]) == ([4.0, None], ["PRESENT", "NOT_FOUND"])

        assert client.post("/events", json={"events": [{"user": str(ANN).upper(), "at": 1}]}).status_code == 200
        said = client.post("/events", json={"events": [{"user": "ann", "at": 1}]})
        assert (said.status_code, said.json()["field"]) == (422, "events[0].user")
    assert workspace.log.read("clicks", 0, 0, 9).keys == [str(ANN).encode()]


def test_a_model_is_asked_by_uuids(workspace: Workspace) -> None:
    write(workspace.settings.root / "buys.csv", [str(UUID(int=n % 7)) for n in range(200)])
    buys = source()
    labels = nr.Source("labels", "labels.csv", schema={"user": "uuid", "paid": "bool", "at": nr.Timestamp("us")})
    rows = [(str(UUID(int=n % 7)).upper(), n % 7 > 3, n + 3) for n in range(200)]
    frame = pl.DataFrame(rows, schema=["user", "paid", "at"], orient="row")
    frame.write_csv(workspace.settings.root / "labels.csv")
    group = habits(buys)
    model = nr.ModelTrainingPipeline(
        "paid", labels, "paid", ["user", group], LogisticRegression(), steps=[nr.Impute(), nr.Encode(method="onehot")]
    )
    run(workspace, buys, labels, group, model)
    version = ModelRegistry.of(workspace).get("paid")
    servable = load_servable(version, workspace)
    servable.warm_up()

    def ask(body: object) -> Any:
        return servable.answer("predict", [servable.decode("predict", json.dumps(body).encode())])[0]

    users = [UUID(int=2), UUID(int=5), EVE]
    online = nr.FeatureStore(workspace).get_online(group, users).columns
    given = [
        {"user": str(user).upper(), "habits.spent": spent, "habits.n": n}
        for user, spent, n in zip(users, online["habits.spent"], online["habits.n"], strict=True)
    ]
    looked_up = ask({"entities": [{"user": user.hex} for user in users]})
    assert looked_up.predictions[:2] == [False, True]
    assert looked_up.scores == ask({"instances": given}).scores
    with pytest.raises(RequestError) as caught:
        ask({"entities": [{"user": "ann"}]})
    assert caught.value.field == "entities[0].user"
