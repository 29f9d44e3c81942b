"""Which feature groups a server can read, and what a request asks of them: names, columns of ids, and their checks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from noria.core import RequestError, allowed, uuid_bytes
from noria.features.catalog import Catalog, GroupVersion
from noria.features.online import OnlineReader, OnlineSpec
from noria.storage import Workspace
from noria.telemetry import MetricsCollector

MAX_IDS = 10_000
"""The most ids that a column of one request may have."""
STATUSES = ("present", "missing", "expired")

_MAX_PLANS, _MAX_NAMES = 1000, 256  # that are remembered: clients may name the same feature again and again
_INT64 = 2**63


class Group:
    """A registered group, ready to be read."""

    def __init__(self, spec: OnlineSpec, workspace: Workspace, metrics: MetricsCollector) -> None:
        self.spec = spec
        self.name = spec.group
        self.keys = list(zip(spec.keys, spec.key_types, strict=True))
        self.reader = OnlineReader(workspace.online, [spec], workspace.clock)
        self.features = tuple(f"{spec.group}.{name}" for name in spec.features)
        about = "Entities whose features were read."
        self.counters = [
            metrics.counter("noria_features_read", about, group=spec.group, status=status) for status in STATUSES
        ]


class Part(NamedTuple):
    """What a request wants of one group: the full names of some features, or all of them (None)."""

    group: Group
    names: tuple[str, ...] | None


Plan = tuple[Part, ...]


class UnknownFeatureError(RequestError):
    """A feature or a feature group that isn't registered."""


class Groups:
    """The groups at one moment; those of another moment are another object."""

    def __init__(self, groups: Iterable[Group] = ()) -> None:
        self.by_name = {group.name: group for group in groups}
        self._plans: dict[tuple[tuple[str, ...], tuple[str, ...]], Plan] = {}

    def plan(self, groups: tuple[str, ...], features: tuple[str, ...]) -> Plan:
        """Whole groups and single features as what is to be read of each group.

        Raises:
            RequestError: nothing is asked for.
            UnknownFeatureError: a group or feature isn't registered.
        """
        plan = self._plans.get((groups, features))
        if plan is None:
            plan = self._make_plan(groups, features)
            if len(groups) + len(features) <= _MAX_NAMES:
                if len(self._plans) >= _MAX_PLANS:
                    self._plans.clear()
                self._plans[groups, features] = plan
        return plan

    def _make_plan(self, groups: tuple[str, ...], features: tuple[str, ...]) -> Plan:
        if not groups and not features:
            raise RequestError(
                "which features? neither groups nor features are named",
                status=422,
                field="groups",
                hint=f"give groups, features or both; groups {allowed(self.by_name)}",
            )
        wanted: dict[str, list[str] | None] = {}
        for place, name in enumerate(groups):
            self._group(name, f"groups[{place}]")
            wanted[name] = None
        for place, name in enumerate(features):
            group = self._group(name.partition(".")[0], f"features[{place}]")
            if name not in group.features:
                raise UnknownFeatureError(
                    f"feature group {group.name!r} has no feature {name!r}",
                    status=422,
                    field=f"features[{place}]",
                    hint=allowed(group.features, name),
                )
            some = wanted.setdefault(group.name, [])
            if some is not None and name not in some:
                some.append(name)
        return tuple(Part(self.by_name[name], None if some is None else tuple(some)) for name, some in wanted.items())

    def _group(self, name: str, field: str) -> Group:
        group = self.by_name.get(name)
        if group is None:
            raise UnknownFeatureError(
                f"no feature group {name!r} is registered", status=422, field=field, hint=allowed(self.by_name, name)
            )
        return group


def registered(workspace: Workspace) -> list[OnlineSpec]:
    """The spec of every registered group: of its newest version, or while that is being computed of the one before."""
    catalog = Catalog(workspace.records, workspace.clock)
    specs = []
    for name in catalog.names():
        newest = catalog.latest(name)
        if not _is_computed(workspace, newest):
            before = [one for one in reversed(catalog.versions(name)) if _is_computed(workspace, one)]
            newest = before[0] if before else newest
        specs.append(newest.spec)
    return specs


def _is_computed(workspace: Workspace, version: GroupVersion) -> bool:
    record = workspace.records.get("materialized", version.spec.place)
    return record is not None and not record.data.get("forgotten")


def ids_of(plan: Plan, entities: Mapping[str, Any]) -> list[list[Any]]:
    """For each part of the plan the ids to read, made of the columns of its group's keys.

    Raises:
        RequestError: a column is missing, too long, of another length or type; the error names it.
    """
    _check_lengths(entities)
    found = []
    for part in plan:
        group = part.group
        if len(group.keys) == 1:
            found.append(_column(entities, *group.keys[0], group))
        else:
            found.append(list(zip(*(_column(entities, *key, group) for key in group.keys), strict=True)))
    return found


def _check_lengths(entities: Mapping[str, Any]) -> None:
    first, rows = "", -1
    for name, column in entities.items():
        if type(column) is not list:
            raise _wrong(name, f"is no list of ids but {_shown(column)}", f'give one: {{"{name}": […]}}')
        if rows < 0:
            first, rows = name, len(column)
        elif len(column) != rows:
            raise _wrong(name, f"has {len(column)} ids, and entities.{first} has {rows}", "give as many in each")
    if rows > MAX_IDS:
        raise _wrong(first, f"has {rows} ids", f"allowed: up to {MAX_IDS}; ask several times")


def _column(entities: Mapping[str, Any], key: str, kind: str, group: Group) -> list[Any]:
    column: list[Any] | None = entities.get(key)
    if column is None:
        needed = ", ".join(group.spec.keys)
        raise _wrong(key, f"is missing: feature group {group.name!r} is read by {needed}", f"give {needed}")
    for place, value in enumerate(column):
        if kind == "str":
            fits = type(value) is str
        elif kind == "uuid":
            fits = uuid_bytes(value) is not None
        else:
            fits = type(value) is int and -_INT64 <= value < _INT64
        if not fits:
            word = {"str": "text", "uuid": "a UUID"}.get(kind, "a whole number of 64 bits")
            raise _wrong(f"{key}[{place}]", f"is {_shown(value)}", f"a {key} of {group.name!r} is {word}")
    return column


def _wrong(place: str, what: str, hint: str) -> RequestError:
    return RequestError(f"entities.{place} {what}", status=422, field=f"entities.{place}", hint=hint)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 50 else f"{text[:50]}…"
