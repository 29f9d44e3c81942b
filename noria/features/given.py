"""What callers give: where it can't be meant, an error says what is wanted, before anything is done."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from noria.core import ConfigError, allowed
from noria.features.group import FeatureGroup
from noria.features.on_demand import OnDemand


def check_group(group: Any) -> None:
    """Raise a `ConfigError` unless it is a feature group.

    A name isn't enough where values are computed: it stands for the definition that was registered last, which need not
    be the one that the caller has in mind.
    """
    if isinstance(group, FeatureGroup):
        return
    if isinstance(group, str):
        raise ConfigError(
            f"{group!r} is a name, and a feature group is needed",
            hint=f"give the group itself, or one that is registered: store.catalog.get({group!r}).group()",
            field="group",
        )
    if isinstance(group, OnDemand):
        raise ConfigError(
            f"on-demand {group.name!r} has no values to keep: they are computed from each request",
            hint="training sets and models take it beside feature groups",
            field="group",
        )
    raise ConfigError(
        f"{_shown(group)} is no feature group", hint="nr.FeatureGroup(name, entity=…, source=…, …)", field="group"
    )


def check_groups(groups: Any) -> None:
    """Raise a `ConfigError` unless they are feature groups and on-demand features."""
    if isinstance(groups, (str, FeatureGroup, OnDemand)) or not isinstance(groups, Sequence):
        raise ConfigError(
            f"the groups are {_shown(groups)}", hint="give a list of feature groups, as in [habits]", field="groups"
        )
    for group in groups:
        if not isinstance(group, OnDemand):
            check_group(group)


def check_frame(frame: Any, what: str) -> None:
    """Raise a `ConfigError` unless it is a Polars frame."""
    if not isinstance(frame, pl.DataFrame):
        known = {"pandas": "pl.from_pandas(…)", "polars": ".collect() it"}
        room = type(frame).__module__.partition(".")[0]
        hint = known.get(room, "pl.DataFrame(…) takes dictionaries, lists of them, and Arrow tables")
        raise ConfigError(f"{what}: {_shown(frame)} is no Polars DataFrame", hint=hint)


def check_events(events: Any, groups: Sequence[FeatureGroup]) -> None:
    """Raise a `ConfigError` unless they are frames by source; a name that no group reads is told where one is missing,
    since the source's table would be read instead."""
    if events is None:
        return
    names = {group.source.name for group in groups}
    if not isinstance(events, Mapping):
        raise ConfigError(
            f"the events are {_shown(events)}",
            hint=f"give frames by source: events={{{min(names, default='source')!r}: …}}",
            field="events",
        )
    strange = [name for name in events if name not in names]
    if strange and names - set(events):
        raise ConfigError(
            f"events of {strange[0]!r} are given, and no group reads them",
            hint=allowed(names, str(strange[0])),
            field="events",
        )
    for name, frame in events.items():
        check_frame(frame, f"events[{name!r}]")


def check_versions(versions: Mapping[str, int] | None, read: Sequence[str]) -> None:
    """Raise a `ConfigError` unless they are numbers of versions, of tables that are read."""
    for name, number in (versions or {}).items():
        if name not in read:
            raise ConfigError(
                f"a version of {name!r} is given, and it isn't read", hint=allowed(set(read), name), field=name
            )
        if type(number) is not int or number < 0:
            raise ConfigError(
                f"the version of {name!r} is {number!r}", hint="versions are whole numbers from 0", field=name
            )


def instant(value: Any, what: str) -> int:
    """An instant in microseconds.

    Raises:
        ConfigError: it is no whole number.
    """
    try:
        return operator.index(value)
    except TypeError:
        raise ConfigError(
            f"{what} is {value!r}",
            hint="an instant is a whole number of microseconds since 1970: int(t.timestamp() * 1_000_000)",
            field=what,
        ) from None


def _shown(value: Any) -> str:
    """What somebody gave, in a few words: of a frame its type, not its rows."""
    if isinstance(value, (str, int, float, bool, type(None))):
        return repr(value)
    name = getattr(value, "name", None)
    kind = f"{type(value).__module__.partition('.')[0]}.{type(value).__name__}"
    return f"the {type(value).__name__} {name!r}" if isinstance(name, str) and kind.startswith("noria") else kind
