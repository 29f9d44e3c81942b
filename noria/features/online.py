"""Reading features online: one packed value for each entity and group, decoded in microseconds.

The server needs neither the source nor a dataframe library for it: an `OnlineSpec` travels with the model version.
"""

from __future__ import annotations

import math
import struct
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import date
from numbers import Integral
from typing import Any, cast

import msgspec

from noria.core import Clock, ConfigError, IntegrityError, NotFoundError, SystemClock, allowed, uuid_bytes
from noria.core.decoding import decodable
from noria.storage import OnlineStore

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list).decode
_whole_number = struct.Struct(">q").pack

CLOCK = b"\xff"
"""The key under which a group keeps the time of its source: no entity's, since no text and no array begins so, and a
whole number has eight bytes, a UUID sixteen."""
NO_WHOLE_NUMBER = -(2**63)
"""What stands for a missing one among packed whole numbers."""


@decodable
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
        moving: the places of features whose values change as time goes on, those together that change at the same
            instants; see `noria.features.moving`.
        half_lives: places of features that fade, and the microseconds after which half is left.
    """

    group: str
    keys: tuple[str, ...]
    key_types: tuple[str, ...]
    features: tuple[str, ...]
    empty: tuple[Any, ...]
    ttl: int | None
    definition: str
    types: tuple[str, ...] = ()
    moving: tuple[tuple[int, ...], ...] = ()
    half_lives: tuple[tuple[int, int], ...] = ()

    @property
    def keep_seconds(self) -> int | None:
        """How long after it was written a value may be asked for, as present or as expired; None for always.

        A day longer than the ttl, which counts from the event: until then a reader tells what is expired from what is
        missing, and clocks that differ do no harm.
        """
        return None if self.ttl is None else self.ttl // 1_000_000 + 86_400

    @property
    def depends_on_time(self) -> bool:
        """Whether values change though nothing happens."""
        return bool(self.moving or self.half_lives)

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
            elif self.key_types[0] == "uuid":
                keys = list(map(uuid_bytes, entity_ids))
                if None not in keys:
                    return cast("list[bytes]", keys)
            elif kinds == {int}:
                try:
                    return list(map(_whole_number, entity_ids))
                except struct.error:
                    pass  # `key` says which one doesn't fit
        return [self.key(entity_id) for entity_id in entity_ids]

    def to_dict(self) -> dict[str, Any]:
        """The spec as plain JSON data."""
        return asdict(self)

    @staticmethod
    def from_dict(data: dict[str, Any]) -> OnlineSpec:
        """The reverse of `to_dict`.

        Raises:
            IntegrityError: it isn't what this version of noria writes.
        """
        strange = [name for name in data if name not in OnlineSpec.__dataclass_fields__]
        try:
            if strange:
                raise msgspec.ValidationError(f"Object contains unknown field `{strange[0]}`")
            return msgspec.convert(data, OnlineSpec)
        except msgspec.ValidationError as error:
            raise IntegrityError(
                f"what is stored of feature group {data.get('group')!r} can't be read: {error}",
                hint="another version of noria wrote it: read it with that one, or a newer one",
            ) from error


class OnlineFeatures(msgspec.Struct, frozen=True):
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
    elif kind == "uuid":
        if (made := uuid_bytes(value)) is not None:
            return made
    elif isinstance(value, Integral) and not isinstance(value, bool) and -(2**63) <= int(value) < 2**63:
        return _whole_number(value)
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
        self.depends_on_time = spec.depends_on_time
        self.names = [f"{spec.group}.{name}" for name in spec.features]
        self.dates = [i for i, kind in enumerate(spec.types) if kind in ("date", "list[date]")]
        self.width = len(spec.features) + 1
        # Decoded anew for each entity, so that no two of them share a list.
        fades = (None,) * len(spec.half_lives)
        self.missing = pack(None, (*spec.empty, *((None, b"") if spec.moving else ()), *fades))
        self._moving = [[(place, spec.types[place]) for place in places] for places in spec.moving]

    def read(self, values: Sequence[bytes], at: int) -> tuple[list[int | None], dict[str, list[Any]]]:
        """The events' times, and the features by their full names.

        Raises:
            IntegrityError: a value isn't what this layout has.
        """
        try:
            return self._columns(self._rows(values, at))
        except (msgspec.DecodeError, ValueError, TypeError, LookupError) as error:
            raise IntegrityError(
                f"a value of feature group {self.spec.group!r} in the online store is damaged: {error}",
                hint="run the group again: its values are built from the tables",
            ) from error

    def _columns(self, rows: list[list[Any]]) -> tuple[list[int | None], dict[str, list[Any]]]:
        if len(rows) == 1:  # the server's usual question
            ((first, *row),) = rows
            return [first], {name: [value] for name, value in zip(self.names, row, strict=True)}
        if not rows:
            return [], {name: [] for name in self.names}
        times, *rest = map(list, zip(*rows, strict=True))
        return times, dict(zip(self.names, rest, strict=True))

    def _rows(self, values: Sequence[bytes], at: int) -> list[list[Any]]:
        """For each value the event's time, then the features as of an instant."""
        rows = list(map(_decode, values))
        for i in self.dates:
            for row in rows:
                row[i + 1] = _date(row[i + 1])
        if self.depends_on_time:
            for row in rows:
                self._move(row, at)
        return rows

    def _move(self, row: list[Any], at: int) -> None:
        """Bring an entity's values forward to an instant, and leave nothing but them in the row."""
        if self._moving:
            changes, later = row[self.width : self.width + 2]
            if changes is not None and at >= changes:
                for features, (instants, *columns) in zip(self._moving, _decode(later), strict=True):
                    passed = bisect_right(memoryview(instants).cast("q"), at) - 1
                    if passed >= 0:
                        for (place, kind), column in zip(features, columns, strict=True):
                            row[place + 1] = _pick(column, kind, passed)
        if self.spec.half_lives:
            newest = row[len(row) - len(self.spec.half_lives) :]
            for (place, half_life), time in zip(self.spec.half_lives, newest, strict=True):
                if row[place + 1] is not None:
                    row[place + 1] *= math.exp2(-(at - time) / half_life)  # as the kernel does it, to the bit
        del row[self.width :]


def _pick(column: Any, kind: str, number: int) -> Any:
    if isinstance(column, bytes):
        if kind.startswith("float"):
            value = memoryview(column).cast("d")[number]
            return None if math.isnan(value) else value  # NaN stands for a missing one
        whole = memoryview(column).cast("q")[number]
        return None if whole == NO_WHOLE_NUMBER else whole
    value = column[number]
    return _date(value) if kind in ("date", "list[date]") else value


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

    def read(self, group: str, entity_ids: Sequence[Any], *, as_of: int | None = None) -> OnlineFeatures:
        """The newest values of a group's features, as of the source's newest event; the ttl is enforced now.

        Args:
            group: its name.
            entity_ids: in any order.
            as_of: a later instant, microseconds, such as now: windows move on to it.

        Raises:
            NotFoundError: there is no such group.
            ConfigError: an id of the wrong type.
            IntegrityError: a stored value is damaged.
        """
        layout = self._layouts.get(group)
        if layout is None:
            raise NotFoundError(f"there is no feature group {group!r}", hint=allowed(self._layouts, group))
        spec, keys = layout.spec, layout.spec.encode(entity_ids)
        if layout.depends_on_time:
            clock, *values = self._store.read(layout.place, [CLOCK, *keys])
            seen = [value[0] for value in (clock, *values) if value is not None]
        else:
            values = self._store.read(layout.place, keys)
            seen = [value[0] for value in values if value is not None]
        instant = max(seen) if seen else None
        if instant is not None and as_of is not None and as_of > instant:
            instant = as_of
        found = [value is not None for value in values]
        times, columns = layout.read([layout.missing if value is None else value[1] for value in values], instant or 0)
        if spec.ttl is None:
            expired = [False] * len(found)
        else:
            oldest = self._clock.now() - spec.ttl
            expired = [time is not None and time < oldest for time in times]
            for place, late in enumerate(expired):
                if late:
                    for column in columns.values():
                        column[place] = None
        return OnlineFeatures(columns, found, expired, times, instant)
