"""Rewards of real exposure files and tables, beside a naive count."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from noria.core import ConfigError, Settings
from noria.monitoring.confidence import Moments
from noria.monitoring.rewards import check_reward, events_of, moments, read_exposures, rewards
from noria.registry import Deployment, Reward, Variant
from noria.serving.exposures import FOLDER, Exposure
from noria.serving.prediction_files import Segments
from noria.storage import Workspace
from noria.testing import ManualClock

TRIAL = Deployment("late", 1, "canary", (Variant("canary", 4, 0.5), Variant("champion", 3, 0.5)), 0)
UTC = pl.Datetime("us", "UTC")


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Workspace]:
    with Workspace.open(Settings.load(tmp_path), ManualClock(1_000)) as workspace:
        yield workspace


def exposed(workspace: Workspace, *exposures: Exposure, server: str = "server-1", torn: bytes = b"") -> None:
    writer = Segments(workspace.settings.state_dir / FOLDER, server, 1 << 20, workspace.clock)
    writer.write(b"".join(msgspec.json.encode(one) + b"\n" for one in exposures) + torn)
    writer.close()


def exposure(id: str, at: int, variant: str, entity: str = "", number: int = 1) -> Exposure:
    return Exposure(id, at, "late", number, variant, entity)


def happened(workspace: Workspace, rows: list[tuple[int, str, int, float]]) -> None:
    schema = {"user_id": pl.Int64, "request_id": pl.String, "at": pl.Int64, "amount": pl.Float64}
    frame = pl.DataFrame(rows, schema=schema, orient="row").with_columns(pl.col("at").cast(UTC))
    workspace.table("purchases").write(frame, run_id=f"run-{random.random()}")


def test_by_entity(workspace: Workspace) -> None:
    exposed(
        workspace,
        exposure("a", 100, "canary", "1"),
        exposure("b", 150, "canary", "1"),  # the same entity again: one observation, from the first on
        exposure("c", 100, "champion", "2"),
        exposure("d", 120, "champion", "3"),
        exposure("e", 950, "champion", "4"),  # too young
        exposure("f", 100, "champion"),  # nobody
        exposure("g", 100, "canary", "9", number=2),  # another experiment
    )
    happened(
        workspace,
        [
            (1, "", 99, 100.0),  # before
            (1, "", 100, 1.0),
            (1, "", 149, 2.0),
            (1, "", 200, 100.0),  # after
            (2, "", 150, 7.0),
            (4, "", 960, 100.0),
            (5, "", 1_000, 100.0),  # never exposed; it says that the table has reached that time
        ],
    )
    wanted = Reward("purchases", "amount", "user_id", within=100)
    found = rewards(workspace, TRIAL, wanted, 0, 1_000)
    assert found == {"canary": Moments(1, 3.0, 0.0), "champion": Moments(2, 3.5, 24.5)}
    counted = rewards(workspace, TRIAL, replace(wanted, value=""), 0, 1_000)
    assert counted == {"canary": Moments(1, 2.0, 0.0), "champion": Moments(2, 0.5, 0.5)}
    assert rewards(workspace, TRIAL, wanted, 110, 1_000) == {  # only what came since the present shares are in force
        "canary": Moments(1, 100.0, 0.0),  # from its answer at 150 on
        "champion": Moments(1, 0.0, 0.0),
    }


def test_by_id_a_person_with_many_answers_counts_as_one(workspace: Workspace) -> None:
    many = [exposure(f"m{at}", 100 + at, "canary", "1") for at in range(8)]
    exposed(workspace, *many, exposure("n", 100, "canary", "2"), exposure("o", 100, "canary"))
    rows = [(0, f"m{at}", 150, 1.0) for at in range(8)]
    happened(workspace, [*rows, (0, "o", 199, 1.0), (0, "n", 200, 1.0), (0, "m0", 1_000, 5.0)])
    found = rewards(workspace, TRIAL, Reward("purchases", within=100), 0, 1_000)
    parts = np.array([8 - 0.9 * 8, 0 - 0.9, 1 - 0.9]) / (10 / 3)
    assert found["canary"].n == 3
    assert found["canary"].mean == pytest.approx(0.9)  # of ten answers, nine have an event
    assert found["canary"].variance == pytest.approx(float((parts**2).sum()) / 2)


def test_an_id_of_several_answers_is_left_out(workspace: Workspace) -> None:
    """A request about three entities, which two variants answered: whose is the event that names it?"""
    several = [exposure("a", 100, variant, entity) for variant, entity in (("canary", "1"), ("champion", "2"))]
    exposed(workspace, *several, exposure("b", 100, "canary", "3"))
    happened(workspace, [(0, "a", 150, 1.0), (0, "b", 150, 1.0), (0, "", 1_000, 0.0)])
    found = rewards(workspace, TRIAL, Reward("purchases", within=100), 0, 1_000)
    assert found == {"canary": Moments(1, 1.0, 0.0)}


def test_who_is_nobody_goes_by_the_requests_id(workspace: Workspace) -> None:
    exposed(workspace, exposure("a", 100, "canary", "a"), exposure("b", 100, "canary", "7"))
    happened(workspace, [(7, "a", 150, 1.0), (0, "", 1_000, 0.0)])
    by_user = rewards(workspace, TRIAL, Reward("purchases", by="user_id", within=100), 0, 1_000)
    assert by_user == {"canary": Moments(1, 1.0, 0.0)}
    assert rewards(workspace, TRIAL, Reward("purchases", within=100), 0, 1_000)["canary"].n == 2


def test_a_table_that_has_not_reached_the_end_of_a_window_closes_none(workspace: Workspace) -> None:
    exposed(workspace, exposure("a", 100, "canary", "1"))
    wanted = Reward("purchases", by="user_id", within=100)
    assert rewards(workspace, TRIAL, wanted, 0, 10**9) == {}  # no table yet
    happened(workspace, [(1, "", 150, 1.0)])
    assert rewards(workspace, TRIAL, wanted, 0, 10**9) == {}  # it was loaded in the middle of the window
    happened(workspace, [(2, "", 200, 1.0)])
    assert rewards(workspace, TRIAL, wanted, 0, 10**9) == {"canary": Moments(1, 1.0, 0.0)}
    assert rewards(workspace, TRIAL, wanted, 0, 199) == {}  # what is to come hasn't happened


def test_torn_lines_and_files_of_several_servers(workspace: Workspace) -> None:
    folder = workspace.settings.state_dir / FOLDER
    exposed(workspace, exposure("a", 1, "canary", "ann"), torn=b'{"id":"b","at":2,"mo')
    exposed(workspace, exposure("c", 3, "champion", "b}"), exposure("d", 4, "canary"), server="server-2")
    (folder / "0-broken.jsonl").write_bytes(b'{"id":"x","a\n\xff\xfe\n{"id":1}\n' + msgspec.json.encode(
        exposure("e", 5, "canary", "eve")) + b"\n")  # fmt: skip
    (folder / "0-empty.jsonl").write_bytes(b"")
    found = read_exposures(folder, TRIAL, 0).sort("at")
    assert found.rows() == [
        ("a", 1, "canary", "ann"),
        ("c", 3, "champion", "b}"),
        ("d", 4, "canary", ""),
        ("e", 5, "canary", "eve"),
    ]
    assert read_exposures(folder, TRIAL, 4)["id"].sort().to_list() == ["d", "e"]
    assert read_exposures(folder / "nowhere", TRIAL, 0).is_empty()


def test_columns_that_are_not_there(workspace: Workspace) -> None:
    schema = pl.Schema({"user_id": pl.Int64, "request_id": pl.String, "at": UTC, "amount": pl.Float64})
    assert check_reward(Reward("purchases", "amount", "user_id"), schema) == ("user_id", "at")
    with pytest.raises(ConfigError, match="no column 'user'") as caught:
        check_reward(Reward("purchases", by="user"), schema)
    assert "did you mean 'user_id'" in caught.value.hint
    with pytest.raises(ConfigError, match="no column 'request_id'") as caught:
        check_reward(Reward("purchases"), pl.Schema({"user_id": pl.Int64, "at": UTC}))
    assert "--reward-by" in caught.value.hint
    with pytest.raises(ConfigError, match="can't be summed"):
        check_reward(Reward("purchases", "request_id"), schema)
    with pytest.raises(ConfigError, match="2 columns with times"):
        check_reward(Reward("purchases"), pl.Schema({**schema, "seen": UTC}))
    assert check_reward(Reward("purchases", time="seen"), pl.Schema({**schema, "seen": UTC}))[1] == "seen"


def test_values_that_are_no_numbers_bring_nothing(workspace: Workspace) -> None:
    rows = [(1, "", 1, value) for value in (1.0, float("nan"), float("inf"))] + [(1, "", 1, None)]  # type: ignore[list-item]
    happened(workspace, rows)  # type: ignore[arg-type]
    found = events_of(workspace.table("purchases").scan(), Reward("purchases", "amount", "user_id"), 0, 10).collect()
    assert found["value"].to_list() == [1.0, 0.0, 0.0, 0.0]


ANSWERS = st.lists(st.tuples(st.integers(0, 60), st.sampled_from(["", "1", "2", "3", "4"])), max_size=25)
EVENTS = st.lists(st.tuples(st.integers(0, 24), st.integers(1, 4), st.integers(0, 80), st.integers(0, 3)), max_size=40)


@settings(max_examples=120, deadline=None)
@given(ANSWERS, EVENTS, st.integers(1, 40), st.integers(0, 100), st.booleans())
def test_rewards_are_what_a_slow_count_gives(
    answers: list[tuple[int, str]], events: list[tuple[int, int, int, int]], within: int, until: int, by_id: bool
) -> None:
    variant = {"": "canary", "1": "canary", "2": "champion", "3": "champion", "4": "canary"}
    shown = [(f"r{n}", at, variant[entity], entity) for n, (at, entity) in enumerate(answers)]
    exposures = pl.DataFrame(
        shown, schema={"id": pl.String, "at": pl.Int64, "variant": pl.String, "entity": pl.String}, orient="row"
    )
    rows = [(f"r{n}", user, at, float(value)) for n, user, at, value in events]
    table = pl.DataFrame(
        rows, schema={"request_id": pl.String, "user": pl.Int64, "t": pl.Int64, "x": pl.Float64}, orient="row"
    )
    table = table.with_columns(pl.col("t").cast(UTC))
    wanted = Reward("e", "x", "id" if by_id else "user", within)
    found = moments(exposures, events_of(table.lazy(), wanted, 0, 1_000), wanted, until)
    expected = naive(shown, rows, within, until, by_id)
    assert found.keys() == expected.keys()
    for name, one in found.items():
        assert (one.n, one.mean, one.variance) == pytest.approx(expected[name], abs=1e-9)


def naive(
    shown: list[tuple[str, int, str, str]],
    rows: list[tuple[str, int, int, float]],
    within: int,
    until: int,
    by_id: bool,
) -> dict[str, tuple[int, float, float]]:
    units = defaultdict(list)
    for name, at, variant, entity in shown:
        if entity or by_id:
            units[entity or name].append((at, name, variant))
    found = defaultdict(list)
    for unit, seen in units.items():
        first = min(at for at, _, _ in seen)
        if first + (2 if by_id else 1) * within > until:
            continue
        if by_id:
            mine = [(name, at) for at, name, _ in seen if at < first + within]
            brought = [x for name, at in mine for r, _, t, x in rows if r == name and at <= t < at + within]
        else:
            mine = [(unit, first)]
            brought = [x for _, user, t, x in rows if str(user) == unit and first <= t < first + within]
        found[seen[0][2]].append((sum(brought), len(mine)))
    made = {}
    for variant, pairs in found.items():
        y, n = (np.array([pair[at] for pair in pairs], dtype=float) for at in (0, 1))
        mean = y.sum() / n.sum()
        spread = ((y - mean * n) / n.mean()) ** 2
        made[variant] = (len(pairs), mean, spread.sum() / (len(pairs) - 1) if len(pairs) > 1 else 0.0)
    return made
