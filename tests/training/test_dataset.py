"""What a version was trained on can be made again, whatever happened since."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from sklearn.linear_model import LogisticRegression

import noria as nr
from noria.core import ConfigError, DataError, IntegrityError, NoProgress, NotFoundError, Settings
from noria.registry import ModelRegistry
from noria.storage import Workspace
from noria.storage.digest import digest
from noria.training import rebuild_dataset
from noria.training.examples import join, selection

SCHEMA = {"user": "int64", "amount": "float64?", "shop": "str", "at": nr.Timestamp("s")}
FEATURES = {
    "orders": nr.count(window="7d", where=nr.col("shop") != "s1"),
    "spent": nr.mean("amount"),
    "each": nr.derived(nr.col("spent") / nr.col("orders")),
}


def rows(first: int, count: int) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "user": [n % 7 for n in range(first, first + count)],
            "amount": [None if n % 11 == 0 else float(n * 37 % 101) for n in range(first, first + count)],
            "shop": [f"s{n % 3}" for n in range(first, first + count)],
            "at": [n * 3600 for n in range(first, first + count)],
        }
    )


def source(name: str = "buys") -> nr.Source:
    return nr.Source(name, f"{name}/*.csv", schema=SCHEMA)


def pipeline(known: dict[str, Any] = FEATURES, ttl: str | None = "9d", **options: Any) -> nr.ModelTrainingPipeline:
    shops = nr.FeatureGroup("shops", entity="shop", source=source("visits"), features={"n": nr.count()})
    habits = nr.FeatureGroup("habits", entity="user", source=source(), features=known, ttl=ttl)
    given = {
        "labels": source(),
        "target": (nr.col("amount") > pl.col("amount").mean()).alias("more"),
        "features": ["amount", habits, shops],
        "model": LogisticRegression(),
        "steps": [nr.Impute()],
        **options,
    }
    return nr.ModelTrainingPipeline("more", **given)


def run(workspace: Workspace, part: nr.ModelTrainingPipeline) -> None:
    sources = {s.name: s for s in (part.labels, *(group.source for group in part.groups))}
    report = nr.System("shop", [*sources.values(), *part.groups, part]).run(workspace)
    assert not report.failed, report.failed[0].error


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Workspace]:
    for name in ("buys", "visits"):
        (tmp_path / name).mkdir()
        rows(0, 300).write_csv(tmp_path / name / "0.csv")
    with Workspace.open(Settings(tmp_path)) as opened:
        yield opened


def test_whatever_happens_to_tables_and_definitions_a_version_gives_its_rows_back(workspace: Workspace) -> None:
    part, root = pipeline(), workspace.settings.root
    run(workspace, part)
    before = join(part, workspace).frame
    first = rebuild_dataset(workspace, "more@1")
    assert first.frame.drop("__part__").equals(before)
    assert first.digest == digest(before)
    assert first.frame.columns[-2:] == ["__target__", "__part__"]

    rows(300, 200).write_csv(root / "buys" / "1.csv")  # more rows
    run(workspace, pipeline({**FEATURES, "orders": nr.count(window="1d")}, None))  # another definition
    rows(0, 40).write_csv(root / "visits" / "0.csv")  # a table that is made anew
    workspace.table("buys").compact()
    run(workspace, pipeline(target=nr.col("amount") > 10, features=["amount"], split=nr.RandomSplit()))
    for file in root.glob("*/*.csv"):
        file.unlink()

    assert ModelRegistry.of(workspace).versions("more")[0].version == 3
    again = rebuild_dataset(workspace, "more@1")
    assert again.frame.equals(first.frame)
    assert (again.digest, again.versions) == (first.digest, first.versions)
    assert rebuild_dataset(workspace, "more@2").digest != first.digest


@pytest.mark.parametrize("split", [nr.TimeSplit(test=0.3), nr.RandomSplit(test=0.25)])
def test_which_rows_taught_and_which_judged_is_kept(workspace: Workspace, split: Any) -> None:
    part = pipeline(split=split)
    run(workspace, part)
    examples = join(part, workspace)
    train, test = split.masks(examples.times, len(examples.target), workspace.settings.run.seed)
    parts = rebuild_dataset(workspace, "more").frame["__part__"]
    assert (parts == "train").to_list() == train.tolist()
    assert (parts == "test").to_list() == test.tolist()


def test_rows_that_are_loaded_while_a_run_reads_do_not_leak_in(workspace: Workspace) -> None:
    part = pipeline()
    run(workspace, part)
    before = join(part, workspace).frame
    chosen = selection(part, workspace)
    for name in ("buys", "visits"):
        table = workspace.table(name)
        thread = threading.Thread(target=lambda t=table: t.write(t.read(), run_id="twice"))
        thread.start()
        thread.join()
    assert join(part, workspace, chosen).frame.equals(before)
    assert len(join(part, workspace).frame) == 2 * len(before)


def test_a_version_that_was_not_pinned_is_a_mistake_that_is_told(workspace: Workspace) -> None:
    part = pipeline()
    run(workspace, part)
    store, labels = nr.FeatureStore(workspace), workspace.table("buys").read()
    with pytest.raises(ConfigError, match="did you mean 'buys'"):
        store.training_set(labels, part.groups, time="at", versions={"buy": 0})
    with pytest.raises(NotFoundError, match="no version 99"):
        store.training_set(labels, part.groups, time="at", versions={"buys": 99})


def test_files_that_are_gone_are_named(workspace: Workspace) -> None:
    run(workspace, pipeline())
    old = set(Path(workspace.settings.root, ".noria/tables/visits").glob("*.parquet"))
    rows(0, 40).write_csv(workspace.settings.root / "visits" / "0.csv")
    run(workspace, pipeline())
    for file in old:  # what a vacuum does
        file.unlink()
    with pytest.raises(NotFoundError, match="made again, a table's version is gone: table 'visits'") as caught:
        rebuild_dataset(workspace, "more@1")
    assert "visits version 0" in caught.value.hint
    rebuild_dataset(workspace, "more@2")


def test_a_table_that_was_made_anew_is_noticed_and_the_columns_are_named(workspace: Workspace) -> None:
    run(workspace, pipeline())
    table = workspace.table("visits")
    shutil.rmtree(Path(workspace.settings.root, ".noria/tables/visits"))
    table.write(
        rows(0, 50).with_columns(pl.from_epoch("at").dt.cast_time_unit("us").dt.replace_time_zone("UTC")), run_id="x"
    )
    with pytest.raises(IntegrityError, match=r"isn't there any more: other shops\.n\n"):
        rebuild_dataset(workspace, "more@1")


def test_a_python_function_is_not_kept_and_the_model_is_trained_all_the_same(workspace: Workspace) -> None:
    run(workspace, pipeline(target=pl.col("amount").map_batches(lambda x: x > 50, return_dtype=pl.Boolean)))
    with pytest.raises(DataError, match="a Python function isn't kept"):
        rebuild_dataset(workspace, "more")


def test_what_was_registered_without_a_recipe_says_so(workspace: Workspace) -> None:
    ModelRegistry.of(workspace).register("late", {}, servable="tabular", run_id="a")
    with pytest.raises(NotFoundError, match="late@1 keeps no training set"):
        rebuild_dataset(workspace, "late@1")


def test_a_labels_table_with_many_columns_is_read_by_those_that_are_needed(workspace: Workspace) -> None:
    part = pipeline(target="shop", features=["amount"])
    part.labels.run(workspace, "r", NoProgress())
    assert join(part, workspace).frame.columns == ["at", "amount", "__target__"]
    pattern = pipeline(target=pl.col("^amoun.$") > 3, features=["amount"])
    assert len(join(pattern, workspace).frame) == 272


def test_what_is_computed_from_the_request_is_made_again_too(workspace: Workspace) -> None:
    part = pipeline()
    large = nr.OnDemand(
        "basket", {"amount": "float64?", "shop": "str"}, {"ratio": nr.col("amount") / nr.col("habits.spent")}
    )
    part = pipeline(features=[*part.groups, large])
    run(workspace, part)
    made = rebuild_dataset(workspace, "more@1").frame
    assert made.columns[:4] == ["user", "shop", "at", "amount"]
    assert made["basket.ratio"].count() > 100
    assert made.drop("__part__").equals(join(part, workspace).frame)
