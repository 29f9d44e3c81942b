"""What becomes of a model's aliases: pure functions on its record, whose commit is conditional on what they were given.

The record has `aliases` (name to version) and `history` (name to the versions that it has pointed at, the present one
last), which is how far `rollback` can go back.
"""

from __future__ import annotations

from typing import Any, TypedDict

from noria.core import ConflictError, NotFoundError, allowed
from noria.core.decoding import decodable, read_back
from noria.registry.deployment import CHAMPION
from noria.registry.states import CHALLENGER
from noria.registry.trail import AuditEntry
from noria.storage import Record

Model = dict[str, Any]


@decodable
class _Kept(TypedDict):
    """What has to be in a model's record."""

    latest: int
    aliases: dict[str, int]
    history: dict[str, list[int]]


def whole(model: Record) -> Record:
    """The record, if it is a model's.

    Raises:
        IntegrityError: it isn't.
    """
    read_back(model.data, _Kept, f"model {model.key!r}")
    return model


def pointed(model: Model, alias: str, version: int) -> Model:
    """The alias points at the version; what it pointed at is kept. A champion is no challenger any more."""
    made = _with(model, alias, version, [*model["history"].get(alias, []), version])
    if alias == CHAMPION and made["aliases"].get(CHALLENGER) == version:
        return {**made, **{part: _less(made[part], CHALLENGER) for part in ("aliases", "history")}}
    return made


def stepped_back(model: Model, name: str, alias: str) -> Model:
    """The alias points at what it pointed at before.

    Raises:
        NotFoundError: there is nothing to go back to.
    """
    history = model["history"].get(alias, [])
    if len(history) < 2:
        raise NotFoundError(
            f"{name}@{alias} has no earlier version to go back to",
            hint=f"promote another one: noria models promote {name}@VERSION",
        )
    return _with(model, alias, history[-2], history[:-1])


def removed(model: Model, name: str, alias: str) -> Model:
    """Without the alias and its history.

    Raises:
        NotFoundError: there is no such alias.
    """
    if alias not in model["aliases"]:
        raise NotFoundError(f"model {name!r} has no alias {alias!r}", hint=allowed(model["aliases"], alias))
    return {**model, **{part: _less(model[part], alias) for part in ("aliases", "history")}}


def set_aside(model: Model, name: str, version: int) -> Model:
    """The version is nobody's challenger any more, and no rollback leads to it.

    Raises:
        ConflictError: other aliases point at it.
    """
    left = [alias for alias, number in model["aliases"].items() if number == version and alias != CHALLENGER]
    if left:
        raise ConflictError(
            f"{name}@{version} has the alias {left[0]!r}",
            hint=f"remove it first: noria models unalias {name} {left[0]}",
        )
    history = {alias: _without(numbers, version) for alias, numbers in model["history"].items()}
    if model["aliases"].get(CHALLENGER) == version:
        return {**removed(model, name, CHALLENGER), "history": _less(history, CHALLENGER)}
    return {**model, "history": history}


def moved(name: str, alias: str, now: int, wanted: int, by: AuditEntry | None) -> ConflictError:
    """Somebody else came first: who, and what to do."""
    who = f" by {by.who} at {by.at[:19]}Z" if by is not None else ""
    why = f" ({by.why})" if by is not None and by.why else ""
    to = f"was pointed at version {now}" if now else "was taken away"
    look = f"compare them: noria models diff {name}@{now} {name}@{wanted}; " if now not in (0, wanted) else ""
    again = f"noria models {'promote' if alias == CHAMPION else 'alias'} {name}@{wanted}"
    return ConflictError(
        f"{name}@{alias} {to}{who}{why} while version {wanted} was about to have it",
        hint=f"{look}then decide again: {again}{'' if alias == CHAMPION else f' {alias}'}",
    )


def _with(model: Model, alias: str, version: int, history: list[int]) -> Model:
    return {
        **model,
        "aliases": {**model["aliases"], alias: version},
        "history": {**model["history"], alias: history},
    }


def _less(part: dict[str, Any], alias: str) -> dict[str, Any]:
    return {name: value for name, value in part.items() if name != alias}


def _without(numbers: list[int], version: int) -> list[int]:
    """Without the version, and without a step from a version to itself."""
    left = [number for number in numbers if number != version]
    return [number for place, number in enumerate(left) if place == 0 or left[place - 1] != number]
