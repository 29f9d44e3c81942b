"""Reading features online: one packed value for each entity and group, decoded in microseconds.

The server needs neither the source nor a dataframe library for it: an `OnlineSpec` travels with the model version.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import msgspec

from noria.core import Clock, ConfigError, NotFoundError, SystemClock, allowed
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
    """

    group: str
    entity: str
    entity_type: str
    features: tuple[str, ...]
    empty: tuple[Any, ...]
    ttl: int | None
    definition: str

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
        event_times: the newest event's time, microseconds since 1970; None where not found.
    """

    columns: dict[str, list[Any]]
    found: list[bool]
    expired: list[bool]
    event_times: list[int | None]


def pack(event_time: int, values: Sequence[Any]) -> bytes:
    """The newest event's time and the values, in the order of the spec, as MessagePack."""
    return _encode([event_time, *values])


class OnlineReader:
    """Reads groups by their specs."""

    def __init__(self, store: OnlineStore, specs: Sequence[OnlineSpec], clock: Clock | None = None) -> None:
        self._store = store
        self._clock = clock or SystemClock()
        self._specs = {spec.group: spec for spec in specs}

    @property
    def specs(self) -> tuple[OnlineSpec, ...]:
        """The groups that can be read."""
        return tuple(self._specs.values())

    def read(self, group: str, entity_ids: Sequence[Any]) -> OnlineFeatures:
        """The newest values of a group's features; the ttl is enforced now.

        Raises:
            NotFoundError: there is no such group.
            ConfigError: an id of the wrong type.
        """
        if group not in self._specs:
            raise NotFoundError(f"there is no feature group {group!r}", hint=allowed(self._specs, group))
        spec = self._specs[group]
        oldest = None if spec.ttl is None else self._clock.now() - spec.ttl
        rows: list[Sequence[Any]] = []
        found, expired, times = [], [], []
        for value in self._store.read(spec.place, [spec.key(entity_id) for entity_id in entity_ids]):
            row = None if value is None else _decode(value.value)
            late = row is not None and oldest is not None and row[0] < oldest
            rows.append(spec.empty if row is None else (None,) * len(spec.features) if late else row[1:])
            found.append(row is not None)
            expired.append(late)
            times.append(None if row is None else row[0])
        columns = {f"{group}.{name}": [row[i] for row in rows] for i, name in enumerate(spec.features)}
        return OnlineFeatures(columns, found, expired, times)
