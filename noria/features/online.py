"""Reading features online: one packed value for each entity and group, decoded in microseconds.

The server needs neither the source nor a dataframe library for it: an `OnlineSpec` travels with the model version.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import date
from typing import Any

import msgspec

from noria.core import Clock, ConfigError, IntegrityError, NotFoundError, SystemClock, allowed
from noria.storage import OnlineStore

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list).decode


@dataclass(frozen=True)
class OnlineSpec:
    """A feature group as the online store keeps it.

    Attributes:
        group: the group's name.
        keys: the columns that are the entity's id together, with their types.
        features: names, in the order of the packed values.
        empty: the value of each feature for an entity without any event.
        ttl: microseconds after which an entity counts as expired; None for never.
        definition: the definition's hash; values of another definition are never read.
        types: the type of each feature's values, as in a schema; `list[…]` for lists.
    """

    group: str
    keys: tuple[str, ...]
    key_types: tuple[str, ...]
    features: tuple[str, ...]
    empty: tuple[Any, ...]
    ttl: int | None
    definition: str
    types: tuple[str, ...] = ()

    @property
    def place(self) -> str:
        """The group's name in the online store."""
        return f"{self.group}@{self.definition}"

    def key(self, entity_id: Any) -> bytes:
        """An entity's key; where several columns are the id, it is a sequence of their values.

        Raises:
            ConfigError: the id doesn't have the entity's type.
        """
        if len(self.keys) == 1:
            return _key(self.group, self.keys[0], self.key_types[0], entity_id)
        if not isinstance(entity_id, (tuple, list)) or len(entity_id) != len(self.keys):
            raise ConfigError(
                f"{self.group}: {entity_id!r} can't be an entity", hint=f"give {', '.join(self.keys)} as a tuple"
            )
        parts = zip(self.keys, self.key_types, entity_id, strict=True)
        return _encode([_key(self.group, name, kind, value) for name, kind, value in parts])

    def encode(self, entity_ids: Sequence[Any]) -> list[bytes]:
        """The keys of many entities, as by `key`: where all ids have the type itself, one look at them is enough."""
        if len(self.keys) == 1:
            kinds = set(map(type, entity_ids))
            if self.key_types[0] == "str":
                if kinds == {str}:
                    return [entity_id.encode() for entity_id in entity_ids]
            elif kinds == {int}:
                try:
                    return [entity_id.to_bytes(8, "big", signed=True) for entity_id in entity_ids]
                except OverflowError:
                    pass  # `key` says which one doesn't fit
        return [self.key(entity_id) for entity_id in entity_ids]

    def to_dict(self) -> dict[str, Any]:
        """The spec as plain JSON data."""
        return asdict(self)

    @staticmethod
    def from_dict(data: dict[str, Any]) -> OnlineSpec:
        """The reverse of `to_dict`."""
        return msgspec.convert(data, OnlineSpec)


@dataclass(frozen=True)
class OnlineFeatures:
    """Features of several entities, in the order in which they were asked for.

    Attributes:
        columns: full feature name to values; of an entity that isn't found the values of one without events, of an
            expired one all missing.
        found: whether the store has the entity.
        expired: whether the entity's newest event is older than the group's ttl.
        event_times: the newest event's time, microseconds since 1970; None where not found, or without event times.
        as_of: the instant of which the values are, microseconds: a training set with labels at that instant has the
            same; None if no entity was found.
    """

    columns: dict[str, list[Any]]
    found: list[bool]
    expired: list[bool]
    event_times: list[int | None]
    as_of: int | None = None


def _key(group: str, name: str, kind: str, value: Any) -> bytes:
    if kind == "str":
        if isinstance(value, str):
            return value.encode()
    elif isinstance(value, int) and not isinstance(value, bool) and -(2**63) <= value < 2**63:
        return value.to_bytes(8, "big", signed=True)
    raise ConfigError(f"{group}: {value!r} can't be a {name}", hint=f"its type is {kind}", field=name)


def pack(event_time: int | None, values: Sequence[Any]) -> bytes:
    """The newest event's time and the values, in the order of the spec, as MessagePack."""
    return _encode([event_time, *values])


def pack_columns(event_times: Sequence[int | None], columns: Sequence[Sequence[Any]]) -> list[bytes]:
    """The same for many entities, whose values stand in columns."""
    return list(map(_encode, zip(event_times, *columns, strict=True)))


class _Layout:
    """What reading a group needs, worked out once."""

    def __init__(self, spec: OnlineSpec) -> None:
        self.spec = spec
        self.place = spec.place
        self.names = [f"{spec.group}.{name}" for name in spec.features]
        self.dates = [i for i, kind in enumerate(spec.types) if kind in ("date", "list[date]")]
        # Decoded anew for each entity, so that no two of them share a list.
        self.missing = pack(None, spec.empty)

    def decode(self, values: Sequence[bytes]) -> list[list[Any]]:
        """For each value the event's time, then the features."""
        try:
            rows = list(map(_decode, values))
        except msgspec.DecodeError as error:
            raise IntegrityError(
                f"a value of feature group {self.spec.group!r} in the online store is damaged: {error}",
                hint="run the group again: its values are built from the tables",
            ) from error
        for i in self.dates:
            for row in rows:
                row[i + 1] = _date(row[i + 1])
        return rows


def _date(value: Any) -> Any:
    # MessagePack has instants but no dates: they are packed as ISO text.
    if isinstance(value, list):
        return [_date(each) for each in value]
    return None if value is None else date.fromisoformat(value)


class OnlineReader:
    """Reads groups by their specs."""

    def __init__(self, store: OnlineStore, specs: Sequence[OnlineSpec], clock: Clock | None = None) -> None:
        self._store = store
        self._clock = clock or SystemClock()
        self._layouts = {spec.group: _Layout(spec) for spec in specs}

    @property
    def specs(self) -> tuple[OnlineSpec, ...]:
        """The groups that can be read."""
        return tuple(layout.spec for layout in self._layouts.values())

    def read(self, group: str, entity_ids: Sequence[Any]) -> OnlineFeatures:
        """The newest values of a group's features; the ttl is enforced now.

        Raises:
            NotFoundError: there is no such group.
            ConfigError: an id of the wrong type.
            IntegrityError: a stored value is damaged.
        """
        layout = self._layouts.get(group)
        if layout is None:
            raise NotFoundError(f"there is no feature group {group!r}", hint=allowed(self._layouts, group))
        spec, missing = layout.spec, layout.missing
        values = self._store.read(layout.place, spec.encode(entity_ids))
        rows = layout.decode([missing if value is None else value.value for value in values])
        found = [value is not None for value in values]
        times: list[int | None]
        if len(rows) == 1:  # the server's usual question
            ((first, *row),) = rows
            times, columns = [first], {name: [value] for name, value in zip(layout.names, row, strict=True)}
        elif rows:
            times, *rest = map(list, zip(*rows, strict=True))
            columns = dict(zip(layout.names, rest, strict=True))
        else:
            times, columns = [], {name: [] for name in layout.names}
        if spec.ttl is None:
            expired = [False] * len(rows)
        else:
            oldest = self._clock.now() - spec.ttl
            expired = [time is not None and time < oldest for time in times]
            for place, late in enumerate(expired):
                if late:
                    for column in columns.values():
                        column[place] = None
        as_of = max((value.time for value in values if value is not None), default=None)
        return OnlineFeatures(columns, found, expired, times, as_of)
