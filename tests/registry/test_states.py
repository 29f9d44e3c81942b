"""Aliases, states and their legal moves; two processes that decide at once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from noria.core import ConfigError, ConflictError, NotFoundError
from noria.registry import MOVES, Deployments, ModelRegistry, Variant
from noria.registry.states import check_move
from noria.storage.sqlite_records import SqliteRecords


@pytest.fixture
def registry(tmp_path: Path) -> ModelRegistry:
    made = ModelRegistry(f"sqlite:///{tmp_path}/registry.db")
    for run in "abcd":
        made.register("late", {"model.bin": b"x"}, servable="tabular", run_id=run)
    return made


def deployments(tmp_path: Path) -> Deployments:
    return Deployments(SqliteRecords(tmp_path / "registry.db"), ModelRegistry(f"sqlite:///{tmp_path}/registry.db"))


def test_any_alias_moves_and_is_removed(registry: ModelRegistry) -> None:
    registry.alias("late", 1, "blue", why="for the team in Lyon", who="ada")
    registry.alias("late", 2, "blue")
    assert registry.get("late@blue").version == 2
    assert registry.rollback("late", alias="blue").version == 1
    registry.unalias("late", "blue", why="nobody asked", who="bob")
    with pytest.raises(NotFoundError, match="has no blue"):
        registry.get("late@blue")
    with pytest.raises(NotFoundError, match="no alias 'blue'"):
        registry.unalias("late", "blue")
    assert [(one.who, one.action, one.version) for one in registry.audit("late", limit=1)] == [
        ("bob", "unalias blue", 1)
    ]


@pytest.mark.parametrize("name", ["3", "Blue", "a b", "", "x" * 65])
def test_an_alias_is_a_name(registry: ModelRegistry, name: str) -> None:
    with pytest.raises(ConfigError, match="name of an alias"):
        registry.alias("late", 1, name)


def test_the_champion_is_made_by_promotion_alone(registry: ModelRegistry) -> None:
    with pytest.raises(ConfigError, match="made by promotion"):
        registry.alias("late", 1, "champion")
    registry.promote("late", 1)
    with pytest.raises(ConfigError, match="isn't left without a champion"):
        registry.unalias("late", "champion")


def test_states_follow_what_is_decided(registry: ModelRegistry) -> None:
    registry.promote("late", 1)
    registry.alias("late", 2, "challenger")
    registry.reject("late", 3, why="biased")
    registry.retire("late", 4)
    assert registry.states("late") == {1: "champion", 2: "challenger", 3: "rejected", 4: "retired"}
    registry.promote("late", 2)
    assert registry.states("late") == {2: "champion", 3: "rejected", 4: "retired"}
    assert registry.models() == {"late": {"champion": 2}}  # a champion is no challenger
    registry.restore("late", 3, why="the bias was in the test")
    assert registry.state("late", 3) == "registered"
    registry.retire("late", 1)
    with pytest.raises(NotFoundError, match="no earlier version"):  # no rollback leads to what was retired
        registry.rollback("late")
    assert registry.files(registry.get("late@1"))["model.bin"].read_bytes() == b"x"


def test_a_rollback_passes_over_what_was_set_aside(registry: ModelRegistry) -> None:
    for version in (1, 2, 1, 3):
        registry.promote("late", version)
    registry.reject("late", 1)
    assert registry.champions("late") == [2, 3]
    assert registry.rollback("late").version == 2


def test_illegal_moves_name_the_legal_ones(registry: ModelRegistry) -> None:
    registry.promote("late", 1)
    registry.retire("late", 2)
    registry.reject("late", 3)
    registry.alias("late", 4, "blue")
    cases = [
        (lambda: registry.retire("late", 1), "late@1 is champion and can't become retired", "promote another version"),
        (lambda: registry.retire("late", 2), "late@2 is retired already", "noria models restore late@2"),
        (lambda: registry.promote("late", 2), "late@2 is retired and can't become champion", "restore late@2"),
        (lambda: registry.alias("late", 3, "challenger"), "rejected and can't become challenger", "registered"),
        (lambda: registry.alias("late", 3, "blue"), "no alias may point at it", "registered"),
        (lambda: registry.restore("late", 4), "nothing to restore", "noria models promote late@4"),
        (lambda: registry.retire("late", 4), "has the alias 'blue'", "noria models unalias late blue"),
        (lambda: registry.alias("late", 1, "challenger"), "champion and can't become challenger", "promote another"),
    ]
    for act, message, hint in cases:
        with pytest.raises(ConflictError, match=message) as caught:
            act()
        assert hint in caught.value.hint
    assert registry.models() == {"late": {"champion": 1, "blue": 4}}


def test_the_table_is_the_rule() -> None:
    for now, allowed in MOVES.items():
        for then in MOVES:
            if then in allowed:
                check_move("late", 1, now, then)
            else:
                with pytest.raises(ConflictError) as caught:
                    check_move("late", 1, now, then)
                assert all(legal in caught.value.hint for legal in allowed)


def test_what_is_tried_is_live(registry: ModelRegistry, tmp_path: Path) -> None:
    tried = deployments(tmp_path)
    registry.promote("late", 1)
    registry.reject("late", 3)
    with pytest.raises(ConflictError, match="late@3 is rejected"):
        tried.start("late", [Variant("canary", 3, 0.1)])
    tried.start("late", [Variant("canary", 2, 0.1)])
    assert registry.states("late") == {1: "champion", 2: "challenger", 3: "rejected"}
    for act in (registry.retire, registry.reject):
        with pytest.raises(ConflictError, match="is tried now"):
            act("late", 2)
    tried.abort("late")
    registry.retire("late", 2)


def test_the_choice_was_made_against_another_champion(registry: ModelRegistry) -> None:
    registry.promote("late", 2, before=0, who="ada", why="first")
    with pytest.raises(ConflictError) as caught:
        registry.promote("late", 3, before=0)
    assert "late@champion was pointed at version 2 by ada at " in caught.value.message
    assert "(first) while version 3 was about to have it" in caught.value.message
    assert "noria models diff late@2 late@3" in caught.value.hint
    registry.promote("late", 2, before=0)  # what was wanted is so already
    assert len(registry.audit("late", action="promote")) == 1


def test_a_registration_in_between_disturbs_nobody(tmp_path: Path, registry: ModelRegistry) -> None:
    code = (
        "import sys; from noria.registry import ModelRegistry\n"
        f"r = ModelRegistry('sqlite:///{tmp_path}/registry.db')\n"
        "for i in range(40): r.register('late', {'m': b'x'}, servable='tabular', run_id=f'more-{i}')\n"
    )
    with subprocess.Popen([sys.executable, "-c", code]) as other:
        turns = 0
        while other.poll() is None or turns < 10:
            registry.promote("late", 1 + turns % 4)
            turns += 1
        assert other.returncode == 0
    assert registry.trail.check("late").wrong == ()
    assert len(registry.versions("late")) == 44
