from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import polars as pl
import pytest
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression

import noria as nr
from noria.core import ConfigError, NoProgress, NoriaError, RequestError, Settings
from noria.registry import ModelRegistry
from noria.serving import load_servable
from noria.storage import Workspace

DAY = 86_400
SCHEMA = {"user": "int64", "amount": "float64?", "shop": "str?", "paid": "bool?", "at": nr.Timestamp("s")}


def write_events(folder: Path, rows: int = 2000) -> None:
    random = np.random.default_rng(3)
    user, amount = random.integers(0, 40, rows), random.normal(10, 3, rows)
    frame = pl.DataFrame(
        {
            "user": user,
            "amount": [None if i % 17 == 0 else float(a) for i, a in enumerate(amount)],
            "shop": [None if i % 23 == 0 else f"s{i % 5}" for i in range(rows)],
            "paid": amount + user / 10 + random.normal(0, 1, rows) > 12,
            "at": np.arange(rows) * 600,
        }
    )
    frame.write_csv(folder / "events.csv")


def events(**options: Any) -> nr.Source:
    return nr.Source("events", "events.csv", schema=SCHEMA, **options)


def group(source: nr.Source) -> nr.FeatureGroup:
    features = {"orders": nr.count(window="7d"), "spent": nr.mean("amount"), "shops": nr.last("shop", n=3)}
    return nr.FeatureGroup("habits", entity="user", source=source, features=features)


def pipeline(source: nr.Source, **options: Any) -> nr.ModelTrainingPipeline:
    given = {
        "labels": source,
        "target": "paid",
        "features": ["amount", "shop", group(source)],
        "steps": [nr.Impute(), nr.Encode(method="onehot"), nr.Normalize()],
        "model": LogisticRegression(),
        **options,
    }
    return nr.ModelTrainingPipeline("paid", **given)


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Workspace]:
    write_events(tmp_path)
    with Workspace.open(Settings(tmp_path)) as opened:
        yield opened


def run(workspace: Workspace, part: nr.ModelTrainingPipeline) -> dict[str, Any]:
    report = nr.System("shop", [part.labels, *part.groups, part]).run(workspace)
    failed = report.failed
    if failed and failed[0].error:
        raise failed[0].error
    step = report.steps["paid"]
    assert step.run is not None
    return step.run.notes


def test_trained_judged_registered_and_promoted(workspace: Workspace) -> None:
    notes = run(workspace, pipeline(events()))
    version = ModelRegistry.of(workspace).get("paid")
    assert version.metrics["roc_auc"] > 0.85
    assert version.metrics["accuracy"] > notes["models"]["baseline"]["accuracy"]
    assert notes["verdict"].startswith("better")
    assert set(version.lineage.data) == {"events"}
    assert set(version.lineage.features) == {"habits"}
    assert version.lineage.code["scikit-learn"]
    assert version.signature.inputs == {
        "amount": "float64?",
        "shop": "str?",
        "habits.orders": "int64?",
        "habits.spent": "float64?",
    }


def test_served_by_instances_and_by_entities(workspace: Workspace) -> None:
    source = events()
    run(workspace, pipeline(source))
    servable = load_servable(ModelRegistry.of(workspace).get("paid"), workspace)
    servable.warm_up()

    def ask(body: object) -> Any:
        request = servable.decode("predict", msgspec.json.encode(body))
        return servable.answer("predict", [request])[0]

    online = nr.FeatureStore(workspace).get_online(group(source), [7, 999])
    looked_up = ask({"entities": [{"user": 7, "amount": 9.0, "shop": "s1"}, {"user": 999, "amount": 9.0}]})
    rows = [
        {
            "amount": 9.0,
            "shop": shop,
            **{name: values[i] for name, values in online.columns.items() if "shops" not in name},
        }
        for i, shop in enumerate(("s1", None))
    ]
    given = ask({"instances": rows})
    assert looked_up.predictions == given.predictions
    assert looked_up.scores == given.scores
    assert len(set(looked_up.scores)) == 2
    together = servable.answer(
        "predict", [servable.decode("predict", msgspec.json.encode({"instances": [r]})) for r in rows]
    )
    assert [answer.scores[0] for answer in together] == given.scores


def test_columns_of_keys_are_looked_up(workspace: Workspace) -> None:
    run(workspace, pipeline(events()))
    servable = load_servable(ModelRegistry.of(workspace).get("paid"), workspace)
    body = {"entities": [{"user": 7, "amount": 9.0, "shop": "s1"}, {"user": 999, "amount": 9.0}]}
    expected = servable.decode("predict", msgspec.json.encode(body))
    columns = {"user": np.array([7, 999]), "amount": np.array([9.0, 9.0]), "shop": ["s1", None]}
    assert servable.table(columns) == expected
    own = {"amount": np.array([9.0]), "shop": ["s1"]}
    assert servable.table(own).instances is not None
    with pytest.raises(RequestError, match="keys to look them up: user"):
        servable.table({**columns, "habits.spent": [1.0, 2.0]})


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"instances": [{"amount": "9"}]}, "instances[0].amount"),
        ({"instances": [{"amont": 9}]}, "instances[0].amont"),
        ({"entities": [{"amount": 9}]}, "entities[0].user"),
        ({"entities": [{"user": 2**63}]}, "entities[0].user"),
        ({"entities": [{"user": 1.5}]}, "entities[0].user"),
        ({"instances": []}, "instances"),
        ({"instances": None}, "instances"),
        ({"instances": [{}], "entities": [{"user": 1}]}, "instances"),
        ([], None),
    ],
)
def test_a_wrong_request_names_its_field(workspace: Workspace, body: object, field: str | None) -> None:
    run(workspace, pipeline(events()))
    servable = load_servable(ModelRegistry.of(workspace).get("paid"), workspace)
    with pytest.raises(RequestError) as caught:
        servable.decode("predict", msgspec.json.encode(body))
    assert caught.value.field == field
    assert 400 <= caught.value.status < 500


def test_other_estimators_work_and_regression_too(workspace: Workspace) -> None:
    forest = pipeline(events(), model=RandomForestClassifier(5, random_state=0), steps=[nr.Impute(), nr.Encode()])
    assert run(workspace, forest)["version"] == 1
    linear = pipeline(events(), model=LinearRegression(), target="amount", features=["user"], metrics=["rmse", "mae"])
    assert "rmse" in run(workspace, linear)["models"]["paid"]


def test_a_model_no_better_than_the_baseline_is_registered_but_not_promoted(workspace: Workspace) -> None:
    good = pipeline(events())
    run(workspace, good)

    random_target = pl.col("at").dt.epoch("s") % 7 < 3
    useless = pipeline(events(), target=random_target, features=["shop"], metrics=["accuracy"], split=nr.RandomSplit())
    notes = run(workspace, useless)
    assert notes["version"] == 2
    assert notes["verdict"].startswith("not better")
    assert ModelRegistry.of(workspace).get("paid").version == 1


def test_wrong_definitions_are_refused_at_once() -> None:
    source = events()
    for options, message in [
        ({"features": ["amuont"]}, "did you mean 'amount'"),
        ({"features": []}, "has no features"),
        ({"target": "pade"}, "did you mean 'paid'"),
        ({"features": ["at"]}, "is an instant"),
        ({"features": "amount"}, "features= is 'amount'\n  hint: write a list"),
        ({"features": ["amount", 1]}, "1 is no feature"),
        ({"metrics": "f1"}, "metrics= is 'f1'"),
        ({"steps": nr.Impute()}, "steps= is of type Impute"),
        ({"gates": nr.better("f1")}, "gates= is of type Better"),
        ({"gates": ["f1"]}, "'f1' is no gate"),
        ({"slices": "shop"}, "slices= is 'shop'"),
        ({"split": "random"}, "split= is 'random'"),
        ({"target": nr.col("pade") == 1}, "did you mean 'paid'"),
        ({"target": 1}, "target= is 1"),
        ({"labels": "events"}, "give the nr.Source itself"),
    ]:
        with pytest.raises(ConfigError) as caught:
            pipeline(source, **options)
        assert message in str(caught.value)


def test_data_that_can_not_be_learned_from_is_explained(workspace: Workspace) -> None:
    cases: list[tuple[dict[str, Any], str]] = [
        ({"target": pl.lit(True)}, "have the target"),
        ({"target": pl.lit(None, pl.Boolean)}, "has a target"),
        ({"metrics": ["auc"]}, "unknown metric"),
        ({"metrics": [1]}, "unknown metric 1"),
        ({"gates": [nr.at_least("log_loss", 0.3)]}, "less log_loss is better\n  hint: nr.at_most('log_loss', 0.3)"),
        ({"gates": [nr.at_most("accuracy", 0.3)]}, "more accuracy is better"),
        ({"model": LinearRegression(), "features": ["amount"], "metrics": ["roc_auc"]}, "probabilities"),
        ({"steps": [nr.DropMissing(), nr.Encode()]}, "may not drop rows"),
    ]
    for options, message in cases:
        with pytest.raises(NoriaError) as caught:
            run(workspace, pipeline(events(), **options))
        assert message in str(caught.value)
    with pytest.raises(NoriaError):
        ModelRegistry.of(workspace).get("paid")


def test_a_feature_sees_only_what_was_before_its_label(workspace: Workspace) -> None:
    from noria.training.examples import join

    part = pipeline(events())
    part.labels.run(workspace, "r", NoProgress())
    joined = join(part, workspace)
    rows = workspace.table("events").read()
    naive = [
        rows.filter(pl.col("user") == user, pl.col("at") < at, pl.col("at") >= at - pl.duration(days=7)).height
        for user, at in rows.select("user", "at").head(50).iter_rows()
    ]
    assert joined.inputs["habits.orders"].head(50).to_list() == naive
