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
        entity: the entity's name, with its type.
        features: names, in the order of the packed values.
        empty: the value of each feature for an entity without any event.
        ttl: microseconds after which an entity counts as expired; None for never.
        definition: the definition's hash; values of another definition are never read.
        types: the type of each feature's values, as in a schema; `list[…]` for lists.
    """

    group: str
    entity: str
    entity_type: str
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
        """An entity's key.

        Raises:
            ConfigError: the id doesn't have the entity's type.
        """
        if self.entity_type == "str":
            if isinstance(entity_id, str):
                return entity_id.encode()
        elif isinstance(entity_id, int) and not isinstance(entity_id, bool) and -(2**63) <= entity_id < 2**63:
            return entity_id.to_bytes(8, "big", signed=True)
        raise ConfigError(
            f"{self.group}: {entity_id!r} can't be a {self.entity}",
            hint=f"its type is {self.entity_type}",
            field=self.entity,
        )

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
    """

    columns: dict[str, list[Any]]
    found: list[bool]
    expired: list[bool]
    event_times: list[int | None]


def pack(event_time: int | None, values: Sequence[Any]) -> bytes:
    """The newest event's time and the values, in the order of the spec, as MessagePack."""
    return _encode([event_time, *values])


class _Layout:
    """What reading a group needs, worked out once."""

    def __init__(self, spec: OnlineSpec) -> None:
        self.spec = spec
        self.place = spec.place
        self.names = [f"{spec.group}.{name}" for name in spec.features]
        self.dates = [i for i, kind in enumerate(spec.types) if kind in ("date", "list[date]")]
        self.expired = [None] * len(spec.features)
        # Decoded anew for each entity, so that no two of them share a list.
        self.missing = pack(None, spec.empty)

    def decode(self, value: bytes) -> list[Any]:
        """The event's time, then the features."""
        try:
            row = _decode(value)
        except msgspec.DecodeError as error:
            raise IntegrityError(
                f"a value of feature group {self.spec.group!r} in the online store is damaged: {error}",
                hint="run the group again: its values are built from the tables",
            ) from error
        for i in self.dates:
            row[i + 1] = _date(row[i + 1])
        return row


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
        spec = layout.spec
        oldest = None if spec.ttl is None else self._clock.now() - spec.ttl
        rows: list[list[Any]] = []
        found, expired, times = [], [], []
        for value in self._store.read(layout.place, [spec.key(entity_id) for entity_id in entity_ids]):
            row = layout.decode(layout.missing if value is None else value.value)
            time = row.pop(0)
            late = oldest is not None and time is not None and time < oldest
            rows.append(layout.expired if late else row)
            found.append(value is not None)
            expired.append(late)
            times.append(time)
        return OnlineFeatures(_columns(layout.names, rows), found, expired, times)


def _columns(names: list[str], rows: list[list[Any]]) -> dict[str, list[Any]]:
    if len(rows) == 1:  # the server's usual question
        return {name: [value] for name, value in zip(names, rows[0], strict=True)}
    columns = [list(column) for column in zip(*rows, strict=True)] if rows else [[] for _ in names]
    return dict(zip(names, columns, strict=True))
