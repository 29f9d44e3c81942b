from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import polars as pl
import pytest
from sklearn.linear_model import LogisticRegression

import noria as nr
from noria.core import Settings
from noria.features import FeatureStore
from noria.registry import Deployments, ModelRegistry, Variant
from noria.serving import ModelServer, load_servable
from noria.storage import Workspace

SCHEMA = {"user": "int64", "amount": "float64", "paid": "bool", "at": nr.Timestamp("s")}


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Workspace]:
    rows = [{"user": n % 7, "amount": float(n % 11), "paid": n % 11 > 5, "at": 600 * n} for n in range(300)]
    pl.DataFrame(rows).write_csv(tmp_path / "events.csv")
    with Workspace.open(Settings(tmp_path)) as opened:
        yield opened


def train(workspace: Workspace, window: str, **options: bool) -> tuple[str, str]:
    """Train with a group defined by a window; gives the place of its values, and the verdict."""
    source = nr.Source("events", "events.csv", schema=SCHEMA)
    group = nr.FeatureGroup("habits", entity="user", source=source, features={"spent": nr.sum("amount", window=window)})
    model = nr.ModelTrainingPipeline(
        "paid",
        labels=source,
        target="paid",
        features=["amount", group],
        steps=[nr.Impute()],
        model=LogisticRegression(),
        metrics=["log_loss"],
        **options,
    )
    report = nr.System("shop", [source, group, model]).run(workspace)
    assert not report.failed, report.failed[0].error
    run = report.steps["paid"].run
    return group.online_spec().place, "" if run is None else str(run.notes["verdict"])


def test_values_are_kept_up_for_the_champion_and_for_what_is_tried(workspace: Workspace) -> None:
    registry, deployments, catalog = (
        ModelRegistry.of(workspace),
        Deployments.of(workspace),
        FeatureStore(workspace).catalog,
    )
    places = {1: train(workspace, "1h", promote=False)[0]}
    assert registry.get("paid").version == 1  # somebody has to answer
    for version in (2, 3, 4):
        places[version] = train(workspace, f"{version}h", promote=False)[0]
    assert registry.get("paid").version == 1
    deployments.start("paid", [Variant("canary", 3, 0.5)])
    train(workspace, "9h", promote=False)
    held = catalog.held()
    assert {places[1], places[3]} <= held
    assert not {places[2], places[4]} & held
    deployments.finish("paid")
    registry.promote("paid", 4)
    train(workspace, "10h", promote=False)
    assert {places[3], places[4]} <= catalog.held()  # it may go back by one


def test_a_run_while_something_is_tried_registers_and_says_that_it_did_not_promote(workspace: Workspace) -> None:
    registry, deployments = ModelRegistry.of(workspace), Deployments.of(workspace)
    train(workspace, "1h")
    train(workspace, "2h", promote=False)
    deployments.start("paid", [Variant("canary", 2, 0.5)])
    _, verdict = train(workspace, "3h")
    assert (registry.versions("paid")[0].version, registry.get("paid").version) == (3, 1)
    assert verdict.endswith("; not promoted, because canary paid/1 is running")
    deployments.abort("paid")
    train(workspace, "4h")
    assert registry.get("paid").version == 4


def test_the_header_says_whom_a_request_is_for_even_where_a_key_of_few_values_is_looked_up(
    workspace: Workspace,
) -> None:
    train(workspace, "1h")
    train(workspace, "2h", promote=False)
    trial = Deployments.of(workspace).start("paid", [Variant("canary", 2, 0.5)])
    first, second = (load_servable(ModelRegistry.of(workspace).get("paid", one), workspace) for one in (1, 2))
    server = ModelServer([first])
    server.deploy("paid", {1: first, 2: second}, 1, trial)
    rows = [{"user": user, "amount": 3.0} for user in range(3)]
    with server.running() as url, httpx.Client(base_url=url) as client:
        for who in map(str, range(40)):
            answer = client.post("/predict", json={"entities": rows}, headers={"X-Entity-Id": who}).json()
            assert answer["version"] == trial.variant_of(who).version
            assert "versions" not in answer  # the request is one person's, whole
    assert server.models["paid"].trial is not None
    assert 10 < server.models["paid"].trial.tallies["canary"].requests < 30
