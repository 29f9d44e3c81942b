"""API keys: listed, made (and shown once), replaced, revoked."""

from __future__ import annotations

import msgspec

from noria.core import duration, to_iso
from noria.monitoring.console.desk import Desk
from noria.monitoring.console.models import Reason
from noria.serving.key_records import ApiKey, KeyChange


class KeyShown(msgspec.Struct, frozen=True):
    """What can be told of a key: its id, and until when it works (RFC 3339; none: for ever)."""

    id: str
    until: str | None


class KeyInfo(msgspec.Struct, frozen=True):
    """A name with its keys.

    Attributes:
        rate, burst: how many requests it is good for, and at once.
        status: `valid`, `ended` or `revoked`.
        keys: those that are accepted now.
    """

    name: str
    scopes: tuple[str, ...]
    rate: str | None
    burst: int | None
    status: str
    keys: list[KeyShown]
    created: str
    revoked: str | None


class NewKey(msgspec.Struct, frozen=True):
    """A key, shown this once. `first`: requests to this project's servers need a key from now on."""

    name: str
    id: str
    key: str
    first: bool = False


class Create(msgspec.Struct, forbid_unknown_fields=True):
    """A name, what its key is good for (`predict`, `events`, `admin`), how often (`100/s`), how long (`90d`)."""

    name: str
    scopes: list[str] = msgspec.field(default_factory=lambda: ["predict"])
    rate: str | None = None
    burst: int | None = None
    expires: str | None = None
    why: str = ""


class Rotate(msgspec.Struct, forbid_unknown_fields=True):
    """How long the key before still works: `24h`, or `0`: not at all."""

    grace: str = "24h"
    why: str = ""


class Changes(msgspec.Struct):
    """Whose changes, and how many at most."""

    name: str | None = None
    limit: int = 100


def listing(desk: Desk) -> list[KeyInfo]:
    """All names, with what can be told of their keys."""
    return [about(key, desk.now) for key in desk.keys.all()]


def create(desk: Desk, body: Create) -> NewKey:
    """Make a name with a key. It is shown in this answer, and never again."""
    first = not desk.keys.all()
    lifetime = None if body.expires is None else duration(body.expires)
    key = desk.keys.create(
        body.name,
        ",".join(body.scopes),
        rate=body.rate,
        burst=body.burst,
        lifetime=lifetime,
        why=body.why,
        who=desk.who,
    )
    return NewKey(body.name, key.split("_")[1], key, first)


def rotate(desk: Desk, name: str, body: Rotate) -> NewKey:
    """Make another key for a name. It is shown in this answer, and never again."""
    grace = 0 if body.grace == "0" else duration(body.grace)
    key = desk.keys.rotate(name, grace=grace, why=body.why, who=desk.who)
    return NewKey(name, key.split("_")[1], key)


def revoke(desk: Desk, name: str, body: Reason) -> KeyInfo:
    """End all keys of a name; servers refuse them within a second."""
    desk.keys.revoke(name, why=body.why, who=desk.who)
    return next(one for one in listing(desk) if one.name == name)


def changes(desk: Desk, query: Changes) -> list[KeyChange]:
    """Who changed which keys, when and why, the newest first."""
    return desk.keys.history(query.name)[: max(query.limit, 0)]


def about(key: ApiKey, now: int) -> KeyInfo:
    """What can be told of a name's keys."""
    valid = key.valid(now)
    return KeyInfo(
        name=key.name,
        scopes=key.scopes,
        rate=key.rate,
        burst=key.burst,
        status="revoked" if key.revoked is not None else "valid" if valid else "ended",
        keys=[KeyShown(one.id, None if one.until is None else to_iso(one.until)) for one in valid],
        created=to_iso(key.created),
        revoked=None if key.revoked is None else to_iso(key.revoked),
    )
