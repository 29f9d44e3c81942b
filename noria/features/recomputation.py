"""Computing again, as training sets are computed, what a server read online, and comparing it.

First on the rows that there are now. What isn't equal is computed on the rows that the materialization in force had,
and on those of the next one, whose values are there shortly before it is noted; and where a stream keeps values up, on
those that it may have applied by then (see `noria.features.arrivals`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import msgspec
import polars as pl

from noria.core import Field, NoriaError
from noria.features.arrivals import Arrivals, apart, is_ahead, is_fed
from noria.features.catalog import Catalog
from noria.features.definitions import latest
from noria.features.group import FeatureGroup
from noria.features.history import Note, around, notes_of
from noria.features.parity import Example, Likeness, Outcome, Parity, likeness
from noria.features.reads import GroupRead
from noria.features.store import FeatureStore
from noria.pipelines.dtypes import polars_type
from noria.storage import Workspace

_AS_OF, _NEWEST = "__as_of__", "newest-event-time"
_MOST_VERSIONS = 20
"""Versions of a table that are tried for one materialization: it read one of those between its begin and its end."""


@dataclass(frozen=True)
class Asked:
    """A group's read, with the prediction that it was for.

    Attributes:
        at: when that was answered, microseconds.
        latency: microseconds from its request to its answer: the read was in between.
    """

    prediction: str
    at: int
    latency: int
    read: GroupRead


@dataclass
class _Row:
    """One entity of a read, with what isn't explained yet of its values (names to values)."""

    asked: Asked
    place: int
    open: dict[str, Any]
    force: Note | None
    following: list[Note]
    offline: dict[str, Any]
    fed: bool = False
    unread: str = ""

    @property
    def entity(self) -> Any:
        return self.asked.read.ids[self.place]

    @property
    def as_of(self) -> int | None:
        """The instant of the values; of an entity that wasn't found, that of the materialization in force, or with a
        stream, which forces nothing, that of the read."""
        given = self.asked.read.as_of
        if given is None and self.fed:
            return self.asked.at
        return given if given is not None else next((note.as_of for note in self._notes()), None)

    def _notes(self) -> list[Note]:
        return [*([self.force] if self.force else []), *self.following]

    def ways(self) -> list[tuple[int, int]]:
        """Instants with versions of the table on which the values may have been made, the likeliest first."""
        at, ways = self.as_of, []
        for note in self._notes():
            if note.versions is not None and at is not None:
                first, last = note.versions
                ways += [(at, version) for version in range(first, min(first + _MOST_VERSIONS, last + 1))]
        force = self.force
        if force and force.versions and force.as_of != at and any(note.as_of == at for note in self.following):
            # Several entities were read while new values were being written: this one may have had its old ones.
            ways.append((force.as_of, force.versions[0]))
        return ways


def check_parity(asked: Sequence[Asked], workspace: Workspace) -> Parity:
    """Compare reads with what training sets have for the same entities and instants.

    A value that the ttl had expired when it was read is expected to be missing, and one that it hadn't to be there; a
    training set, whose ttl counts from the label's time, is asked without it.
    """
    parity = Parity()
    for place in dict.fromkeys(one.read.place for one in asked):
        _check_place([one for one in asked if one.read.place == place], place, workspace, parity)
    return parity


def _check_place(asked: Sequence[Asked], place: str, workspace: Workspace, parity: Parity) -> None:
    notes, fed = notes_of(workspace.records, place), is_fed(workspace, place)
    rows = [
        _Row(
            one,
            at,
            {name: column[at] for name, column in one.read.values.items()},
            *around(notes, one.at - one.latency, one.at),
            {},
            fed,
        )
        for one in asked
        for at in range(len(one.read.ids))
    ]
    parity.vectors += len(rows)
    versions = Catalog(workspace.records, workspace.clock).versions(place.partition("@")[0])
    version = next((one for one in versions if one.spec.place == place), None)
    if version is None:
        _give_up(rows, "their definition isn't registered in this project", parity)
        return
    dated = [row for row in rows if row.as_of is not None]
    _give_up([row for row in rows if row.as_of is None], "nothing says of which instant they are", parity)
    try:
        offline = _Offline(workspace, version.group(), fed=fed)
        _settle(dated, offline.values(dated, [row.as_of or 0 for row in dated], None), "equal", parity)
    except NoriaError as error:
        _give_up(dated, f"they can't be computed: {error.message}", parity)
        return
    _explain([row for row in dated if row.open], offline, parity)


def _explain(rows: list[_Row], offline: _Offline, parity: Parity) -> None:
    """Look for the rows on which values that aren't equal now were made."""
    number = 0
    while rows and (trying := [(row, ways[number]) for row in rows if number < len(ways := row.ways())]):
        for version in dict.fromkeys(version for _, (_, version) in trying):
            mine = [(row, at) for row, (at, of) in trying if of == version]
            try:
                found = offline.values([row for row, _ in mine], [at for _, at in mine], version)
            except NoriaError as error:
                for row, _ in mine:
                    row.unread = f"the rows of that time can't be read: {error.message}"
            else:
                _settle([row for row, _ in mine], found, "late", parity)
        rows, number = [row for row in rows if row.open], number + 1
    _explain_fed([row for row in rows if row.fed], offline, parity)
    _give_up(
        [r for r in rows if r.force is None and not r.fed], "they were made before materializations were noted", parity
    )
    framed = [row for row in rows if row.force is not None and row.force.versions is None and not row.fed]
    _give_up(framed, "they were made from a frame, not from the table", parity)
    for row in rows:
        _give_up([row] if row.unread else [], row.unread, parity)
        for name in list(row.open):
            _close(row, name, "different", parity)


def _explain_fed(rows: list[_Row], offline: _Offline, parity: Parity) -> None:
    """Look for the events that a stream had applied when values were read."""
    if not rows:
        return
    try:
        arrivals = offline.arrivals(rows)
        tries = [arrivals.tries(number) for number in range(len(rows))]
        for turn in range(max(map(len, tries))):
            trying = [n for n, row in enumerate(rows) if row.open and turn < len(tries[n])]
            for places in apart([arrivals.numbers[number] for number in trying]):
                some = [trying[place] for place in places]
                events = arrivals.rows(some, [tries[number][turn] for number in some])
                mine = [rows[number] for number in some]
                _settle(mine, offline.values(mine, [row.as_of or 0 for row in mine], events), "late", parity)
        crowded = [row for number, row in enumerate(rows) if row.open and arrivals.are_too_many(number)]
        _give_up(crowded, "so many events came at that moment that it can't be told which had been applied", parity)
        if offline.may_lack:
            waiting = [row for number, row in enumerate(rows) if row.open and arrivals.may_be_missing(number)]
            _give_up(waiting, "the stream's table doesn't have the newest events yet: compare again later", parity)
    except NoriaError as error:
        for row in rows:
            row.unread = f"the rows of that time can't be read: {error.message}"


def _settle(rows: Sequence[_Row], expected: Sequence[dict[str, Any]], outcome: Outcome, parity: Parity) -> None:
    """Count the values that are as expected, and leave the others open."""
    for row, values in zip(rows, expected, strict=True):
        row.offline = row.offline or values  # what there is now, which examples show
        for name, value in list(row.open.items()):
            like: Likeness = likeness(value, values.get(name))
            if like != "unlike":
                _close(row, name, outcome, parity, close=like == "close" and outcome == "equal")


def _give_up(rows: Sequence[_Row], why: str, parity: Parity) -> None:
    for row in rows:
        if row.open:
            parity.reasons[why] += len(row.open)
        for name in list(row.open):
            _close(row, name, "unknown", parity)


def _close(row: _Row, name: str, outcome: Outcome, parity: Parity, *, close: bool = False) -> None:
    asked, online = row.asked, row.open.pop(name)
    parity.count(
        Example(name, outcome, asked.prediction, row.entity, asked.at, row.as_of, online, row.offline.get(name)),
        close=close,
    )


class _Offline:
    """Values of a group as training sets have them."""

    def __init__(self, workspace: Workspace, group: FeatureGroup, *, fed: bool) -> None:
        self._workspace = workspace
        self._store = FeatureStore(workspace)
        self._ttl = group.online_spec().ttl
        # Before anything is read: what had been applied by now may come to the table in between.
        self.may_lack = fed and is_ahead(workspace, group)
        more = {_NEWEST: latest(group.source.time)} if group.source.time is not None else {}
        self._group = replace(group, ttl=None, features={**group.features, **more})

    def arrivals(self, rows: Sequence[_Row]) -> Arrivals:
        """What came of the rows' entities, and when."""
        ids, read_at = self._ids([row.entity for row in rows]), [row.asked.at - row.asked.latency for row in rows]
        return Arrivals(self._workspace, self._group, ids, [row.as_of or 0 for row in rows], read_at)

    def values(self, rows: Sequence[_Row], as_of: Sequence[int], of: int | pl.DataFrame | None) -> list[dict[str, Any]]:
        """Each row's features as of its instant, as JSON has them: of a version of the table (None: the newest), or of
        other events."""
        source = self._group.source.name
        given = self._workspace.table(source).read(of) if isinstance(of, int) else of
        events = None if given is None else {source: given}
        labels = self._ids([row.entity for row in rows]).with_columns(
            pl.Series(_AS_OF, as_of, pl.Int64).cast(pl.Datetime("us", "UTC"))
        )
        made = self._store.training_set(labels, [self._group], time=_AS_OF, events=events)
        newest_name = f"{self._group.name}.{_NEWEST}"
        names = [f"{self._group.name}.{name}" for name in self._group.features if name != _NEWEST]
        columns = [_plain(made[name].to_list()) for name in names]
        found = [dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True)]
        if self._ttl is None:
            return found
        newest = made[newest_name].dt.timestamp("us").to_list()
        return [
            dict.fromkeys(values) if self._is_expired(row, at) else values
            for row, at, values in zip(rows, newest, found, strict=True)
        ]

    def _is_expired(self, row: _Row, newest: int | None) -> bool:
        """Whether the ttl had passed when the row was read: at a moment between its request and its answer."""
        if newest is None or self._ttl is None:
            return False
        latest_read, earliest_read = row.asked.at, row.asked.at - row.asked.latency
        if newest < earliest_read - self._ttl:
            return True
        return newest < latest_read - self._ttl and row.asked.read.expired[row.place]

    def _ids(self, entities: Sequence[Any]) -> pl.DataFrame:
        keys, schema = self._group.keys, self._group.source.schema
        parts = [entities] if len(keys) == 1 else list(zip(*entities, strict=True))
        whole = {key: "int64" if schema[key].dtype.startswith("int") else schema[key].dtype for key in keys}
        kinds = {key: polars_type(Field(key, kind)) for key, kind in whole.items()}
        return pl.DataFrame([pl.Series(key, part, kinds[key]) for key, part in zip(keys, parts, strict=True)])


def _plain(values: list[Any]) -> list[Any]:
    made: list[Any] = msgspec.json.decode(msgspec.json.encode(values))
    return made
