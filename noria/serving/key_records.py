"""API keys in the records store: made, listed, replaced and revoked, with a trail of every change.

A name is one document. It holds the digests of the keys that it has at the moment: one, or during a rotation two or
more. A key is `noria_<id>_<secret>`: the id says which digest it has to match, the secret has 256 random bits, and
only the SHA-256 of the whole is kept. No salt and no slow hash: there is nothing to guess in 256 random bits.
"""

from __future__ import annotations

import getpass
import hashlib
import secrets
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace

import msgspec

from noria.core import (
    Clock,
    ConfigError,
    ConflictError,
    IntegrityError,
    NotFoundError,
    SystemClock,
    allowed,
    check_name,
    to_iso,
)
from noria.core.decoding import decodable
from noria.core.time import SECOND
from noria.serving.rates import Rate, parse_rate
from noria.serving.scopes import parse_scopes
from noria.storage import ABSENT, Put, Record, Records

COLLECTION = "api_keys"
_TRAIL = "api_key_changes"
_RETRIES = 100
_LONGEST = 36_500 * 86_400 * SECOND  # a hundred years: what is later has no date


@dataclass(frozen=True)
class Issued:
    """One key that was given out: its id, its digest (SHA-256, hex), and when it ends (microseconds; None: never)."""

    id: str
    digest: str
    created: int
    until: int | None = None


@decodable
@dataclass(frozen=True)
class ApiKey:
    """What is known of a name.

    Attributes:
        name: what people call it.
        scopes: what its keys are good for.
        created: when the name was made, microseconds since 1970.
        issued: its keys, the newest last.
        rate: the limit as it was written (`100/s`), over all servers together; None: no limit.
        burst: how many may come at once; None: as many as `rate` names.
        lifetime: microseconds that each of its keys lives from its making; None: for ever.
        revoked: when it was revoked; it has no keys from then on.
    """

    name: str
    scopes: tuple[str, ...]
    created: int
    issued: tuple[Issued, ...]
    rate: str | None = None
    burst: int | None = None
    lifetime: int | None = None
    revoked: int | None = None

    @property
    def limit(self) -> Rate | None:
        """The rate and burst in numbers."""
        return None if self.rate is None else parse_rate(self.rate, self.burst)

    def valid(self, now: int) -> tuple[Issued, ...]:
        """The keys that are accepted at this time."""
        return tuple(one for one in self.issued if one.until is None or now < one.until)


@dataclass(frozen=True)
class KeyChange:
    """Who did what to a name, when and why."""

    at: str
    who: str
    action: str
    name: str
    detail: str
    why: str


class ApiKeys:
    """The API keys of a project.

    >>> import tempfile
    >>> from noria.storage import open_records
    >>> keys = ApiKeys(open_records(f"sqlite:///{tempfile.mkdtemp()}/records.db"))
    >>> key = keys.create("shop", "predict,events", rate="100/s")
    >>> keys.revoke("shop", why="it was on a slide")
    >>> [change.action for change in keys.history("shop")]
    ['revoke', 'create']
    """

    def __init__(self, records: Records, clock: Clock | None = None) -> None:
        self._records = records
        self._clock = clock or SystemClock()

    def create(
        self,
        name: str,
        scopes: str,
        *,
        rate: str | None = None,
        burst: int | None = None,
        lifetime: int | None = None,
        why: str = "",
        who: str | None = None,
    ) -> str:
        """Make a name with one key, and return the key: it can't be read again later.

        Raises:
            ConfigError: a scope, rate or name is no such thing.
            ConflictError: the name has a valid key.
        """
        check_name(name, "API key")
        parsed, now = parse_scopes(scopes), self._clock.now()
        _check_time(lifetime or 0, "expires")
        if rate is not None:
            parse_rate(rate, burst)
        elif burst is not None:
            raise ConfigError(
                "a burst says nothing without a rate", hint="give both: --rate 10/s --burst 50", field="burst"
            )
        before = self._records.get(COLLECTION, name)
        if before is not None and read_key(before).valid(now):
            raise ConflictError(
                f"there is an API key {name!r}", hint=f"choose another name, or replace it: noria keys rotate {name}"
            )
        text, issued = _issue(now, lifetime)
        made = ApiKey(name, parsed, now, (issued,), rate, burst, lifetime)
        self._commit(made, before, "create", f"key {issued.id} for {','.join(parsed)}", why, who)
        return text

    def rotate(self, name: str, *, grace: int = 0, why: str = "", who: str | None = None) -> str:
        """Make another key for a name, and return it; those before it end after `grace` microseconds, or earlier.

        Raises:
            NotFoundError: there is no such name, or it was revoked.
        """
        _check_time(grace, "grace")

        def change(known: ApiKey, now: int) -> tuple[ApiKey, str, str]:
            end = now + grace
            kept = [replace(one, until=min(end, one.until or end)) for one in known.valid(now) if grace]
            text, issued = _issue(now, known.lifetime)
            others = "".join(f", {one.id} until {to_iso(one.until or end)}" for one in kept)
            detail = f"key {issued.id}{others or ' alone'}"
            return replace(known, issued=(*kept, issued)), text, detail

        return self._change(name, "rotate", change, why, who)

    def revoke(self, name: str, *, why: str = "", who: str | None = None) -> None:
        """End all keys of a name. The name stays on record, so that nobody takes a project for one without keys.

        Raises:
            NotFoundError: there is no such name, or it was revoked.
        """

        def change(known: ApiKey, now: int) -> tuple[ApiKey, str, str]:
            ended = ", ".join(one.id for one in known.issued)
            return replace(known, issued=(), revoked=now), "", f"keys {ended}"

        self._change(name, "revoke", change, why, who)

    def all(self) -> list[ApiKey]:
        """All names, revoked ones too, in alphabetical order.

        Raises:
            IntegrityError: a document is damaged.
        """
        return [read_key(record) for record in self._records.list(COLLECTION)]

    def any_valid(self) -> bool:
        """Whether anybody has a key that is accepted now."""
        now = self._clock.now()
        return any(key.valid(now) for key in self.all())

    def history(self, name: str | None = None) -> list[KeyChange]:
        """Everything that was done to a name (or to all), the newest first."""
        changes = [KeyChange(**record.data) for record in self._records.list(_TRAIL, newest_first=True)]
        return [change for change in changes if name in (None, change.name)]

    def _change(
        self,
        name: str,
        action: str,
        change: Callable[[ApiKey, int], tuple[ApiKey, str, str]],
        why: str,
        who: str | None,
    ) -> str:
        for _ in range(_RETRIES):
            before = self._records.get(COLLECTION, name)
            known = None if before is None else read_key(before)
            if known is None or known.revoked is not None:
                what = f"there is no API key {name!r}" if known is None else f"the API key {name!r} was revoked"
                names = [key.name for key in self.all() if key.revoked is None]
                raise NotFoundError(what, hint=allowed(names, name) if names else f"make it: noria keys create {name}")
            made, text, detail = change(known, self._clock.now())
            try:
                self._commit(made, before, action, detail, why, who)
                return text
            except ConflictError:
                continue  # another process changed it in between
        raise ConflictError(f"the API key {name!r} is being changed by too many processes", hint="try again")

    def _commit(self, made: ApiKey, before: Record | None, action: str, detail: str, why: str, who: str | None) -> None:
        now = self._clock.now()
        trail = KeyChange(to_iso(now), who or _user(), action, made.name, detail, why)
        self._records.commit(
            Put(COLLECTION, made.name, asdict(made), before.revision if before else ABSENT),
            Put(_TRAIL, f"{now:020d}-{secrets.token_hex(4)}", asdict(trail), ABSENT),
        )


def read_key(record: Record) -> ApiKey:
    """What a document says.

    Raises:
        IntegrityError: it is damaged.
    """
    try:
        return msgspec.convert(record.data, ApiKey)
    except msgspec.ValidationError as error:
        raise IntegrityError(f"the API key {record.key!r} can't be read from the records: {error}") from error


def _issue(now: int, lifetime: int | None) -> tuple[str, Issued]:
    name = secrets.token_hex(8)
    text = f"noria_{name}_{secrets.token_hex(32)}"
    digest = hashlib.sha256(text.encode()).hexdigest()
    return text, Issued(name, digest, now, None if lifetime is None else now + lifetime)


def _check_time(micros: int, field: str) -> None:
    if not 0 <= micros <= _LONGEST:
        raise ConfigError(
            f"{field} is too long", hint="allowed: up to 36500d; without it a key never ends", field=field
        )


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user without an entry
        return "unknown"
