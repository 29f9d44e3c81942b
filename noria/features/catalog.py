"""The catalog: every version of every feature group's definition, and who still needs it.

A changed definition is a new version; an old one stays as it was, with all that is needed to compute it again, so that
the models that were trained with it are served with fresh values until nobody needs it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from noria.core import Clock, ConfigError, ConflictError, DataError, IntegrityError, NotFoundError, allowed
from noria.features.definitions import Feature
from noria.features.entity import Entity, plain
from noria.features.group import FeatureGroup
from noria.features.online import OnlineSpec
from noria.pipelines import Source
from noria.storage import ABSENT, Put
from noria.storage.records import Record, Records

_LATEST, _VERSIONS, _HOLDS = "features", "feature_versions", "feature_holds"


@dataclass(frozen=True)
class GroupVersion:
    """One version of a group's definition.

    Attributes:
        version: from 1.
        at: when it was registered, microseconds.
        definition: what it is, as people read it.
        spec: what a server needs to read its values.
        state: what it can be made from again.
    """

    name: str
    version: int
    at: int
    definition: dict[str, Any]
    spec: OnlineSpec
    state: dict[str, Any]

    @property
    def label(self) -> str:
        """`name@version`."""
        return f"{self.name}@{self.version}"

    @property
    def entity(self) -> str:
        """The entity in words: its columns, after its name if it has one."""
        columns, name = ", ".join(self.spec.keys), self.state.get("named", {}).get("name")
        return columns if name is None else f"{name} ({columns})"

    def group(self) -> FeatureGroup:
        """The group as it was defined."""
        return group_of(self.name, self.state)


class Catalog:
    """Definitions in the records store; any number of processes may register at once."""

    def __init__(self, records: Records, clock: Clock) -> None:
        self._records = records
        self._clock = clock

    def register(self, group: FeatureGroup) -> GroupVersion:
        """Keep a definition; the same one again changes nothing, another one becomes the group's newest version.

        A definition that was there before is that version again, and the newest once more.

        Raises:
            ConflictError: another process has registered another definition at this very moment.
        """
        pointer = self._records.get(_LATEST, group.name)
        known = self.versions(group.name) if pointer is not None else []
        mine = next((one for one in known if one.spec.definition == group.definition_hash()), None)
        if mine is not None and pointer is not None and pointer.data["version"] == mine.version:
            if mine.state != _state(group):  # the description, the owner, the tags or the entity's name
                mine = replace(mine, state=_state(group))
                self._records.commit(Put(_VERSIONS, _key(mine), _data(mine)))
            return mine
        changes = []
        if mine is None:
            number = known[-1].version + 1 if known else 1
            mine = GroupVersion(
                group.name, number, self._clock.now(), group.to_dict(), group.online_spec(), _state(group)
            )
            changes.append(Put(_VERSIONS, _key(mine), _data(mine), ABSENT))
        expected = ABSENT if pointer is None else pointer.revision
        changes.append(Put(_LATEST, group.name, {"version": mine.version}, expected))
        try:
            self._records.commit(*changes)
        except ConflictError as error:
            there = self.latest(group.name)
            if there.spec.definition == group.definition_hash():
                return there
            raise ConflictError(
                f"feature group {group.name!r} was defined otherwise by another process at this moment: "
                f"{', '.join(difference(there.definition, group.to_dict()))}",
                hint=f"{there.label} is the newest now; register this one again if it shall be",
            ) from error
        return mine

    def names(self) -> list[str]:
        """The groups that there are."""
        return [record.key for record in self._records.list(_LATEST)]

    def versions(self, name: str) -> list[GroupVersion]:
        """All versions of a group, the oldest first."""
        return [_version(record) for record in self._records.list(_VERSIONS, f"{name}/")]

    def latest(self, name: str) -> GroupVersion:
        """The newest version.

        Raises:
            NotFoundError: no group of that name is registered.
        """
        record = self._records.get(_LATEST, name)
        if record is None:
            raise NotFoundError(f"no feature group {name!r} is registered", hint=allowed(self.names(), name))
        return self.get(f"{name}@{record.data['version']}")

    def get(self, label: str) -> GroupVersion:
        """`name@version`, or the newest version of `name`.

        Raises:
            NotFoundError: there is no such group or version.
        """
        name, _, number = label.partition("@")
        if not number:
            return self.latest(name)
        found = {str(one.version): one for one in self.versions(name)}
        if not found:
            raise NotFoundError(f"no feature group {name!r} is registered", hint=allowed(self.names(), name))
        if number not in found:
            raise NotFoundError(f"feature group {name!r} has no version {number}", hint=allowed(found, number))
        return found[number]

    # --- who needs which version

    def hold(self, by: str, specs: Sequence[OnlineSpec]) -> None:
        """Say which definitions `by` (a model) reads from now on; those that it read before are kept up too, so that
        it can go back by one version."""
        places = sorted(spec.place for spec in specs)
        record = self._records.get(_HOLDS, by)
        now: list[str] = record.data["now"] if record is not None else []
        if record is None or now != places:
            self._records.commit(Put(_HOLDS, by, {"now": places, "before": now}))

    def hold_all(self, by: str, places: Sequence[str]) -> None:
        """Say that `by` reads these places of the online store (`OnlineSpec.place`), and no others."""
        record = self._records.get(_HOLDS, by)
        now = sorted(set(places))
        if (record.data["now"] if record is not None else []) != now:
            self._records.commit(Put(_HOLDS, by, {"now": now, "before": []}))

    def held(self) -> set[str]:
        """The places in the online store that somebody reads."""
        records = self._records.list(_HOLDS)
        return {place for record in records for which in ("now", "before") for place in record.data[which]}


def difference(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """What makes one definition another, in words; empty if nothing does.

    >>> difference({"ttl": None, "features": {"n": {"kind": "count"}}}, {"ttl": "1d", "features": {}})
    ['ttl: none -> 1d', 'n: gone (count)']
    """
    said = []
    for name in dict.fromkeys((*before, *after)):
        if name not in ("features", "types", "kind", "name") and before.get(name) != after.get(name):
            said.append(f"{name}: {_shown(before.get(name))} -> {_shown(after.get(name))}")
    old, new = before["features"], after["features"]
    for name in dict.fromkeys((*old, *new)):
        if name not in new:
            said.append(f"{name}: gone ({in_words(old[name])})")
        elif name not in old:
            said.append(f"{name}: new ({in_words(new[name])})")
        elif old[name] != new[name]:
            said.append(f"{name}: {in_words(old[name])} -> {in_words(new[name])}")
        elif before.get("types", {}).get(name) != after.get("types", {}).get(name):
            said.append(f"{name}: {before['types'][name]} -> {after['types'][name]}")
    return said


def in_words(feature: Mapping[str, Any]) -> str:
    """A feature's definition in one line.

    >>> in_words({"kind": "mean", "column": "price", "window": "7d"})
    'mean of price, window 7d'
    """
    parts = [f"{feature['kind']} of {feature['column']}" if feature.get("column") else str(feature["kind"])]
    for name in ("window", "n", "half_life", "where", "expression"):
        if feature.get(name) is not None:
            parts.append(f"{name} {feature[name]}".partition(" #")[0])
    return ", ".join(parts)


def group_of(name: str, state: Mapping[str, Any]) -> FeatureGroup:
    """A group from a version's state.

    Raises:
        DataError: an expression was saved by another version of Polars, or the definition by another one of noria.
    """
    try:
        source = state["source"]
        return FeatureGroup(
            name,
            Entity(keys=state["entity"], **state["named"]) if "named" in state else state["entity"],
            Source(source["name"], f"{source['name']}.parquet", source["schema"], time=source["time"]),
            {name: Feature.from_state(feature) for name, feature in state["features"].items()},
            state["ttl"],
            state["description"],
            state["owner"],
            tuple(state["tags"]),
        )
    except (LookupError, TypeError, ValueError, ConfigError) as error:
        raise DataError(
            f"the stored definition of feature group {name!r} isn't one of this version of noria: {_said(error)}",
            hint="compute it with the version that wrote it; define the group in system.py to have it anew",
        ) from error


def _said(error: Exception) -> str:
    if isinstance(error, ConfigError):
        return error.message
    return f"{error} is missing" if isinstance(error, LookupError) else str(error)


def _shown(value: Any) -> str:
    return "none" if value is None else str(value)


def _state(group: FeatureGroup) -> dict[str, Any]:
    source = group.source
    schema = source.schema.to_dict()
    if source.time is not None:  # where it may be missing in the files, the source's filter keeps it from its table
        schema[source.time] = schema[source.time].removesuffix("?")
    return {
        "entity": plain(group.entity),
        **_name(group.entity),
        "source": {"name": source.name, "schema": schema, "time": source.time},
        "features": {name: feature.to_state() for name, feature in group.features.items()},
        "ttl": group.ttl,
        "description": group.description,
        "owner": group.owner,
        "tags": list(group.tags),
    }


def _name(entity: Any) -> dict[str, Any]:
    named = {"name": entity.name, "description": entity.description} if isinstance(entity, Entity) else None
    return {} if named is None else {"named": named}


def _key(version: GroupVersion) -> str:
    return f"{version.name}/{version.version:06d}"


def _data(version: GroupVersion) -> dict[str, Any]:
    return {
        "name": version.name,
        "version": version.version,
        "at": version.at,
        "definition": version.definition,
        "online": version.spec.to_dict(),
        "state": version.state,
    }


def _version(record: Record) -> GroupVersion:
    data = record.data
    try:
        spec = OnlineSpec.from_dict(data["online"])
        return GroupVersion(data["name"], data["version"], data["at"], data["definition"], spec, data["state"])
    except LookupError as error:
        raise IntegrityError(
            f"what is stored of feature group version {record.key!r} has no {error}",
            hint="another version of noria wrote it: read it with that one, or a newer one",
        ) from error
