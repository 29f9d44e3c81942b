from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import polars as pl
import pytest

import noria as nr
from noria.core import ConfigError, DataError, RequestError, Settings
from noria.recommender.retrievers import retriever_from_dict
from noria.registry import Deployments, ModelRegistry
from noria.serving import Servable, load_servable
from noria.storage import Workspace
from noria.testing import ServableConformance

SCHEMA = {"user_id": "int64", "item_id": "str", "stars": "int8", "at": nr.Timestamp("s")}
SOURCE = nr.Source("stars", "stars.csv", schema=SCHEMA)


def events(users: int = 40, items: int = 30, seed: int = 1) -> pl.DataFrame:
    """Two tastes: even users like even items, odd users odd ones."""
    random = np.random.default_rng(seed)
    user = np.repeat(np.arange(users), 12)
    item = random.integers(0, items // 2, len(user)) * 2 + user % 2
    frame = pl.DataFrame(
        {"user_id": user, "item_id": [f"i{i}" for i in item], "stars": 5, "at": random.permutation(len(user))}
    )
    low = frame.with_columns(item_id=pl.lit("hated"), stars=pl.lit(1)).head(30)
    return pl.concat([frame, low.with_columns(stars=pl.lit(1, pl.Int32))], how="vertical_relaxed")


def system(**options: Any) -> nr.RecommenderSystem:
    given = {
        "events": SOURCE,
        "positive": nr.col("stars") >= 4,
        "retrieve": [nr.ALS(factors=8), nr.ItemKNN(), nr.Popular()],
    }
    return nr.RecommenderSystem("for-you", **{**given, **options})


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Workspace]:
    events().write_csv(tmp_path / "stars.csv")
    with Workspace.open(Settings(tmp_path)) as opened:
        yield opened


def trained(workspace: Workspace, **options: Any) -> Servable:
    part = system(**options)
    report = nr.System("s", [SOURCE, part]).run(workspace)
    if report.failed and report.failed[0].error:
        raise report.failed[0].error
    return load_servable(ModelRegistry.of(workspace).get("for-you"), workspace)


def ask(servable: Servable, **request: Any) -> Any:
    (answer,) = servable.answer("recommend", [servable.decode("recommend", msgspec.json.encode(request))])
    return answer


def test_it_learns_tastes_and_leaves_out_what_was_chosen(workspace: Workspace) -> None:
    servable = trained(workspace)
    chosen = events().filter(pl.col("stars") >= 4)
    for user in (4, 7):
        seen = set(chosen.filter(pl.col("user_id") == user)["item_id"])
        items = [item.item_id for item in ask(servable, user_id=user, k=3).items]
        assert not seen & set(items)
        assert all(int(item[1:]) % 2 == user % 2 for item in items)
    everything = [item.item_id for item in ask(servable, user_id=4, k=1000).items]
    assert "hated" not in everything


def test_an_unknown_user_gets_the_popular_items_and_is_told_so(workspace: Workspace) -> None:
    answer = ask(trained(workspace), user_id=-1, k=5)
    people = events().filter(pl.col("stars") >= 4).unique(["user_id", "item_id"])
    counts = people["item_id"].value_counts()
    best = counts.sort("count", descending=True)["count"].to_list()[:5]
    got = [counts.filter(pl.col("item_id") == item.item_id)["count"].item() for item in answer.items]
    assert answer.cold
    assert got == best


def test_known_and_unknown_users_may_share_a_batch(workspace: Workspace) -> None:
    servable = trained(workspace)
    requests = [servable.decode("recommend", b'{"user_id": %d, "k": %d}' % pair) for pair in ((4, 2), (-1, 3), (7, 5))]
    answers = servable.answer("recommend", requests)
    assert [len(answer.items) for answer in answers] == [2, 3, 5]
    assert [answer.cold for answer in answers] == [False, True, False]
    for request, answer in zip(requests, answers, strict=True):
        (alone,) = servable.answer("recommend", [request])
        assert [item.item_id for item in alone.items] == [item.item_id for item in answer.items]


@pytest.mark.parametrize("retriever", [nr.ALS(factors=8), nr.ItemKNN(neighbours=5), nr.Popular(window="7d")])
def test_each_retriever_survives_the_registry(workspace: Workspace, retriever: Any) -> None:
    servable = trained(workspace, retrieve=[retriever])
    part = system(retrieve=[retriever]).train(workspace.table("stars").read())
    users = np.arange(5, dtype=np.int32)
    assert np.array_equal(part.fitted.score(users), servable._fitted.score(users))  # type: ignore[attr-defined]
    assert retriever_from_dict(retriever.to_dict()) == retriever


def test_the_judgement_is_on_events_that_nobody_learned_from(workspace: Workspace) -> None:
    judged = system().train(events()).judgement
    assert set(judged.models) == {"als", "item_knn", "popular"}
    assert judged.users == 40
    assert judged.models["als"]["recall@20"].value > judged.models["popular"]["recall@20"].value
    by_time = system(split=nr.TimeSplit(test=0.3)).train(events()).judgement
    assert by_time.users + by_time.cold_users <= 40


def test_wrong_definitions_are_refused_at_once() -> None:
    for options, message in [
        ({"user": "usr_id"}, "did you mean 'user_id'"),
        ({"retrieve": []}, "at least one retriever"),
        ({"retrieve": [nr.ALS(), nr.ALS(factors=8)]}, "each of its own kind"),
        ({"events": nr.Source("s", "s.csv", schema={"user_id": "int64", "item_id": "str"})}, "no event time"),
    ]:
        with pytest.raises(ConfigError) as caught:
            system(**options)
        assert message in str(caught.value)
    with pytest.raises(ConfigError, match="no retriever 'svd'"):
        retriever_from_dict({"name": "svd"})


def test_too_few_events_are_explained() -> None:
    with pytest.raises(DataError, match="0 positive events"):
        system(positive=nr.col("stars") > 9).train(events())
    with pytest.raises(ConfigError, match="1 positive events"):
        system().train(events().head(1))


class TestServable(ServableConformance):
    @pytest.fixture(autouse=True)
    def _train(self, workspace: Workspace) -> None:
        self.made = trained(workspace)

    def servable(self) -> Servable:
        return self.made

    def test_the_user_s_type_and_k_are_checked(self) -> None:
        for body, field in [
            ({"user_id": "4"}, "user_id"),
            ({"user_id": 4, "k": 0}, "k"),
            ({"user_id": 2**63}, "user_id"),
        ]:
            with pytest.raises(RequestError) as caught:
                self.made.decode("recommend", msgspec.json.encode(body))
            assert caught.value.field == field


def test_a_run_while_something_is_tried_registers_but_does_not_promote(workspace: Workspace) -> None:
    assert [trained(workspace, retrieve=[nr.Popular(window=one)]).version for one in ("7d", "8d")] == [1, 2]
    Deployments.of(workspace).start("for-you", [], kind="shadow", shadow=1)
    assert trained(workspace, retrieve=[nr.ItemKNN()]).version == 2
    assert [one.version for one in ModelRegistry.of(workspace).versions("for-you")] == [3, 2, 1]
