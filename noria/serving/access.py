"""Who may ask for what: `Access` judges each request, by a ring of keys that follows the records store."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from noria.core import Clock, ConfigError, RequestError, SystemClock
from noria.serving.exchange import Exchange
from noria.serving.key_records import COLLECTION
from noria.serving.key_ring import KeyRing
from noria.serving.rates import TokenBucket
from noria.serving.requests import TooManyRequestsError
from noria.serving.scopes import SCOPES
from noria.storage import Record, Records

FOLLOW_SECONDS = 0.5
_MAX_KNOWN = 1024


@dataclass(frozen=True, slots=True)
class _Pass:
    """What the holder of a verified key may do."""

    scopes: frozenset[str]
    until: int | None
    bucket: TokenBucket | None


@dataclass(frozen=True)
class _Snapshot:
    """A ring with what was verified by it, per header as it came; both are replaced together."""

    ring: KeyRing
    plain: dict[bytes | None, _Pass] = field(default_factory=dict)
    bearer: dict[bytes | None, _Pass] = field(default_factory=dict)


class Access:
    """Judges requests by a ring of keys.

    Args:
        ring: the keys; another one may be put in its place at any time, from any thread.
        replicas: servers that share the rates: each allows its part.
        clock: by which keys end.
        monotonic: seconds, by which rates are held to.
    """

    def __init__(
        self,
        ring: KeyRing | None = None,
        *,
        replicas: int = 1,
        clock: Clock | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        if replicas < 1:
            raise ConfigError(f"{replicas} replicas can't share a rate", hint="it must be 1 or more", field="replicas")
        self._snapshot = _Snapshot(ring or KeyRing())
        self._replicas = replicas
        self._clock = clock or SystemClock()
        self._monotonic = monotonic
        self._buckets: dict[str, TokenBucket] = {}

    @property
    def ring(self) -> KeyRing:
        """The keys that are accepted now."""
        return self._snapshot.ring

    def replace(self, ring: KeyRing) -> None:
        """Judge by this ring from now on."""
        self._snapshot = _Snapshot(ring)

    def check(self, exchange: Exchange, scope: str | None) -> None:
        """Let the request pass if its key has the scope; None is for everybody.

        Raises:
            RequestError: status 401 without an accepted key, 403 if it lacks the scope, 429 if it asks too often.
        """
        snapshot = self._snapshot
        if scope is None or not snapshot.ring.demanded:
            return
        headers = exchange.headers
        given = headers.get(b"x-api-key")
        found = snapshot.plain.get(given) if given else snapshot.bearer.get(headers.get(b"authorization"))
        if found is None:
            found = self._verify(snapshot, headers)
        if found.until is not None and self._clock.now() >= found.until:
            raise _unauthorized("this API key has ended")
        if scope not in found.scopes:
            raise RequestError(
                f"this API key lacks the scope {scope!r}, which is for {SCOPES[scope]}",
                status=403,
                hint=f"use one with it: noria keys create NAME --scope {scope}",
            )
        if found.bucket is not None:
            wait = found.bucket.take(self._monotonic())
            if wait:
                raise TooManyRequestsError(wait)

    def _verify(self, snapshot: _Snapshot, headers: dict[bytes, bytes]) -> _Pass:
        """Look for the key in the ring, and remember it. Wrong keys aren't remembered: there is no end of them."""
        raw = headers.get(b"x-api-key")
        known = snapshot.plain if raw else snapshot.bearer
        raw = raw or headers.get(b"authorization", b"")
        given = raw.strip() if known is snapshot.plain else _bearer(raw)
        key = snapshot.ring.find(given) if given else None
        if key is None:
            raise _unauthorized("a valid API key is needed")
        bucket = None
        if key.limit is not None:
            rate, bucket = key.limit.share(self._replicas), self._buckets.get(key.name)
            if bucket is None or bucket.rate != rate:  # else it goes on, whatever else has changed in the ring
                bucket = self._buckets[key.name] = TokenBucket(rate, self._monotonic())
        if len(known) >= _MAX_KNOWN:  # one key can be written in many ways: bEaReR and so on
            known.clear()
        known[raw] = found = _Pass(key.scopes, key.until, bucket)
        return found


@contextlib.contextmanager
def following(
    access: Access,
    records: Records,
    *,
    digests: frozenset[str] = frozenset(),
    demanded: bool = False,
    seconds: float = FOLLOW_SECONDS,
    on_error: Callable[[Exception], None] = lambda error: None,
) -> Iterator[Access]:
    """Keep the ring as the records say for the block, in a thread that reads them twice a second.

    While they can't be read the ring stays as it was; `on_error` is told once, when that begins.

    Args:
        access: whose ring it is.
        records: read by that thread alone, so they are best opened for it: then nobody holds it up.
        digests: of the keys without a record.
        demanded: that keys are demanded even if there are none.
        seconds: between two looks.
        on_error: told of what can't be read.

    Raises:
        StorageError: they can't be read at the start.
    """

    def read(before: list[Record] | None) -> list[Record]:
        found = records.list(COLLECTION)
        if found != before:
            access.replace(KeyRing.of(found, digests, demanded=demanded or access.ring.demanded))
        return found

    def work(seen: list[Record]) -> None:
        failing = False
        while not stop.wait(seconds):
            try:
                seen, failing = read(seen), False
            except Exception as error:
                if not failing:
                    on_error(error)
                failing = True

    seen, stop = read(None), threading.Event()
    thread = threading.Thread(target=work, args=(seen,), name="noria-keys", daemon=True)
    thread.start()
    try:
        yield access
    finally:
        stop.set()
        thread.join()


def _bearer(authorization: bytes) -> bytes:
    scheme, _, key = authorization.partition(b" ")
    return key.strip() if scheme.lower() == b"bearer" else b""


def _unauthorized(message: str) -> RequestError:
    return RequestError(message, status=401, hint="send one as: Authorization: Bearer KEY")
