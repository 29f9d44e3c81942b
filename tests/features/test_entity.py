"""An entity's name is said once, makes no version, and means one thing in a system."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import noria as nr
from noria.core import ConfigError, Settings
from noria.storage import Workspace

FLIGHTS = nr.Source(
    "flights", "f.csv", schema={"origin": "str", "dest": "str", "plane": "int32", "at": nr.Timestamp("us")}
)
ROUTE = nr.Entity("route", keys=("origin", "dest"), description="From where to where.")


def group(entity: Any, name: str = "delays", source: nr.Source = FLIGHTS) -> nr.FeatureGroup:
    return nr.FeatureGroup(name, entity=entity, source=source, features={"n": nr.count()})


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Workspace]:
    with Workspace.open(Settings(tmp_path)) as opened:
        yield opened


@pytest.mark.parametrize(
    ("entity", "columns"),
    [
        (nr.Entity("airport", keys="origin"), "origin"),
        (nr.Entity("airport", keys=("origin",)), "origin"),
        (ROUTE, ("origin", "dest")),
    ],
)
def test_a_named_entity_is_the_same_definition_as_its_columns(
    entity: nr.Entity, columns: Any, workspace: Workspace
) -> None:
    named, plain = group(entity), group(columns)
    assert named.keys == plain.keys
    assert named.to_dict() == plain.to_dict()
    assert named.online_spec() == plain.online_spec()
    catalog = nr.FeatureStore(workspace).catalog
    assert catalog.register(plain).entity == ", ".join(plain.keys)
    assert catalog.register(named).label == "delays@1"
    kept = catalog.latest("delays")
    assert kept.entity == f"{entity.name} ({', '.join(plain.keys)})"
    assert kept.group().online_spec() == plain.online_spec()
    again = kept.group().entity
    assert isinstance(again, nr.Entity)
    assert (again.name, again.columns, again.description) == (entity.name, entity.columns, entity.description)


@pytest.mark.parametrize("keys", [(), ("origin", "origin"), "", ("origin", 3)])
def test_an_entity_has_different_columns(keys: Any) -> None:
    with pytest.raises(ConfigError, match="entity 'route': keys="):
        nr.Entity("route", keys=keys)
    with pytest.raises(ConfigError, match="feature group 'delays': entity="):
        group(keys)


def test_an_entity_has_a_name_and_columns_that_there_are() -> None:
    with pytest.raises(ConfigError, match="can't be the name of an entity"):
        nr.Entity("Route", keys="origin")
    with pytest.raises(ConfigError, match="has no column 'from'"):
        group(nr.Entity("route", keys="from"))


def test_one_name_means_one_thing_in_a_system() -> None:
    nr.System("air", [FLIGHTS, group(ROUTE), group(ROUTE, "times"), group("plane", "planes")])
    back = nr.Entity("route", keys=("dest", "origin"))
    with pytest.raises(ConfigError, match=r"'route' is origin \(text\), dest \(text\) in feature group 'delays'"):
        nr.System("air", [FLIGHTS, group(ROUTE), group(back, "times")])


def test_one_name_means_one_type_in_a_system() -> None:
    plane = nr.Entity("plane", keys="plane")
    wide = nr.Source("wide", "w.csv", schema={"plane": "int64", "at": nr.Timestamp("us")})
    text = nr.Source("text", "t.csv", schema={"plane": "str", "at": nr.Timestamp("us")})
    nr.System("air", [FLIGHTS, wide, group(plane), group(plane, "wide-planes", wide)])
    with pytest.raises(ConfigError, match=r"plane \(a whole number\) in feature group 'delays', and plane \(text\)"):
        nr.System("air", [FLIGHTS, text, group(plane), group(plane, "text-planes", text)])
