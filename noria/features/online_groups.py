"""Reading several groups online at once, for entities that stand in rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from noria.core import ConfigError
from noria.features.online import OnlineReader, OnlineSpec


@dataclass(frozen=True)
class OnlineGroups:
    """Features of several groups, in the order of the ids; what is known of an entity stands by the group's name.

    Attributes:
        columns: full feature name to values, as in `OnlineFeatures`.
        found: for each group, whether the store has the entity.
        expired: for each group, whether the entity's newest event is older than the group's ttl.
        event_times: for each group, the newest event's time, microseconds; None where not found.
        as_of: for each group, the instant of which its values are; None if no entity was found.
    """

    columns: dict[str, list[Any]]
    found: dict[str, list[bool]]
    expired: dict[str, list[bool]]
    event_times: dict[str, list[int | None]]
    as_of: dict[str, int | None]


def read_groups(
    reader: OnlineReader, entity_ids: Sequence[Any] | Mapping[str, Sequence[Any]], *, as_of: int | None = None
) -> OnlineGroups:
    """All groups of a reader, for one list of ids that they share, or for columns of ids by the names of the keys.

    Args:
        reader: of the groups.
        entity_ids: what is asked for.
        as_of: a later instant, microseconds, to which windows move on.

    Raises:
        ConfigError: the ids aren't those of every group, or an id is of the wrong type.
    """
    if not isinstance(entity_ids, Mapping):
        _check_shared(reader.specs)
    made = OnlineGroups({}, {}, {}, {}, {})
    for spec in reader.specs:
        read = reader.read(spec.group, ids_of_spec(spec, entity_ids), as_of=as_of)
        made.columns.update(read.columns)
        made.found[spec.group] = read.found
        made.expired[spec.group] = read.expired
        made.event_times[spec.group] = read.event_times
        made.as_of[spec.group] = read.as_of
    return made


def ids_of_spec(spec: OnlineSpec, entity_ids: Sequence[Any] | Mapping[str, Sequence[Any]]) -> Sequence[Any]:
    """A group's ids; of columns those of its keys, several as tuples.

    Raises:
        ConfigError: a column is missing, or no list, or they are of different lengths.
    """
    if not isinstance(entity_ids, Mapping):
        return _listed(entity_ids, spec.keys, "the entities' ids")
    for name, column in entity_ids.items():
        _listed(column, (name,), f"the ids of {name!r}")
    lengths = {name: len(column) for name, column in entity_ids.items()}
    if len(set(lengths.values())) > 1:
        said = ", ".join(f"{name} has {length}" for name, length in lengths.items())
        raise ConfigError(f"the columns of ids have different lengths: {said}", hint="give one id of each in every row")
    for key in spec.keys:
        if key not in entity_ids:
            raise ConfigError(
                f"feature group {spec.group!r} is read by {', '.join(spec.keys)}, and there is no {key!r}",
                hint=f"give a list of ids for it; there are: {', '.join(entity_ids)}",
                field=key,
            )
    columns = [entity_ids[key] for key in spec.keys]
    return columns[0] if len(columns) == 1 else list(zip(*columns, strict=True))


def _listed(ids: Any, keys: Sequence[str], what: str) -> Sequence[Any]:
    # Text is a sequence as well, of letters, which may even be ids.
    if isinstance(ids, (str, bytes, set, frozenset)) or not hasattr(ids, "__len__") or hasattr(ids, "columns"):
        shown = type(ids).__name__ if hasattr(ids, "columns") else repr(ids)[:50]
        one, several = "[7, 8]", f"{{{', '.join(f'{key!r}: […]' for key in keys)}}}"
        raise ConfigError(f"{what} are {shown}", hint=f"give a list, as in {one}, or lists by the keys: {several}")
    return ids  # type: ignore[no-any-return]


def check_different(specs: Sequence[OnlineSpec]) -> None:
    """Raise a `ConfigError` unless there are groups, and each of another name."""
    names = [spec.group for spec in specs]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None or not names:
        said = "which groups? none is given" if twice is None else f"group {twice!r} is given twice"
        raise ConfigError(said, hint="give each group once, in one version")


def _check_shared(specs: Sequence[OnlineSpec]) -> None:
    first = specs[0]
    for spec in specs:
        if spec.keys != first.keys:
            raise ConfigError(
                f"one list of ids can't be for group {first.group!r}, which is read by {', '.join(first.keys)}, and "
                f"for {spec.group!r}, which is read by {', '.join(spec.keys)}",
                hint=f'give the columns of ids by name: {{"{first.keys[0]}": [1, 2], …}}',
                field="entity_ids",
            )
