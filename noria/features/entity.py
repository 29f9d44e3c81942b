"""`Entity`: whom or what features are about, named once for all its groups."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from noria.core import ConfigError, check_name

KEY_TYPES = ("str", "uuid", "int8", "int16", "int32", "int64")
"""The types that a column of an entity's id may have."""


@dataclass(frozen=True)
class Entity:
    """A user, a route, a device: what features are about.

    A name makes no version: a group of `Entity("user", keys="user_id")` is the same as one of `entity="user_id"`.

    Attributes:
        name: what people call it.
        keys: the column with its id, or several that are it together; of each source whose groups are about it.
        description: for people.

    Raises:
        ConfigError: no column, or one twice.
    """

    name: str
    keys: str | Sequence[str]
    description: str = ""

    def __post_init__(self) -> None:
        check_name(self.name, "entity")
        check_keys(self.columns, f"entity {self.name!r}: keys={self.keys!r}")

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that are the id together."""
        return columns_of(self.keys)


def columns_of(entity: str | Sequence[str] | Entity) -> tuple[str, ...]:
    """The columns of an entity, however it is written."""
    if isinstance(entity, Entity):
        return entity.columns
    return (entity,) if isinstance(entity, str) else tuple(entity)


def plain(entity: str | Sequence[str] | Entity) -> str | list[str]:
    """The columns as JSON data: a definition says them, not the name."""
    if isinstance(entity, Entity) and len(entity.columns) == 1:
        return entity.columns[0]
    return entity if isinstance(entity, str) else list(columns_of(entity))


def check_keys(columns: Sequence[Any], what: str) -> None:
    """Raise a `ConfigError` unless there is at least one column, and none twice."""
    if not columns or len(set(columns)) < len(columns) or not all(isinstance(c, str) and c for c in columns):
        raise ConfigError(what, hint="one column, or several different ones")


def check_entities(groups: Iterable[Any]) -> None:
    """Make sure that each name of an entity means the same columns, of the same types, in all groups.

    Raises:
        ConfigError: two groups mean different ones.
    """
    known: dict[str, tuple[str, Mapping[str, str]]] = {}
    for group in groups:
        if not isinstance(group.entity, Entity):
            continue
        mine = {key: _kind(group.source.schema[key].dtype) for key in group.keys}
        first, theirs = known.setdefault(group.entity.name, (group.name, mine))
        if list(mine.items()) != list(theirs.items()):
            raise ConfigError(
                f"entity {group.entity.name!r} is {_shown(theirs)} in feature group {first!r}, and "
                f"{_shown(mine)} in {group.name!r}",
                hint="give both groups one nr.Entity, with columns of the same names and types, or give them two names",
                field="entity",
            )


def _kind(dtype: str) -> str:
    return "a whole number" if dtype.startswith("int") else {"str": "text", "uuid": "a UUID"}.get(dtype, dtype)


def _shown(keys: Mapping[str, str]) -> str:
    return ", ".join(f"{key} ({kind})" for key, kind in keys.items())
