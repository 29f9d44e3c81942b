"""The keys that are accepted at the moment, as a frozen snapshot: found by id, compared in constant time."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from noria.core import NoriaError
from noria.serving.key_records import read_key
from noria.serving.rates import Rate
from noria.serving.scopes import SCOPES
from noria.storage import Record

_SHAPE = re.compile(rb"noria_([0-9a-f]{16})_")
_NO_DIGEST = "0" * 64


@dataclass(frozen=True)
class Key:
    """An accepted key: its name, digest, scopes, end (microseconds since 1970; None: never) and limit."""

    name: str
    digest: str
    scopes: frozenset[str]
    until: int | None = None
    limit: Rate | None = None


@dataclass(frozen=True)
class KeyRing:
    """Accepted keys.

    Attributes:
        keys: by their ids.
        digests: of keys without a record (the setting `serve.api_keys`), which have all scopes.
        demanded: whether requests need a key at all.
    """

    keys: Mapping[str, Key] = field(default_factory=dict)
    digests: frozenset[str] = frozenset()
    demanded: bool = False

    @staticmethod
    def of(records: Iterable[Record] = (), digests: frozenset[str] = frozenset(), *, demanded: bool = False) -> KeyRing:
        """The ring of the documents of `noria.serving.key_records`.

        Keys are demanded as soon as one was ever made, also when all of them have been revoked: what was closed doesn't
        open by itself. A damaged document opens nothing.
        """
        keys: dict[str, Key] = {}
        for record in records:
            demanded = True
            try:
                known = read_key(record)
                limit = known.limit
            except NoriaError:
                continue
            for one in known.issued:
                keys[one.id] = Key(known.name, one.digest, frozenset(known.scopes), one.until, limit)
        return KeyRing(keys, digests, demanded or bool(digests))

    def find(self, given: bytes) -> Key | None:
        """The key that these bytes are, whether it has ended or not; None if they are none."""
        found = hashlib.sha256(given).hexdigest()
        shape = _SHAPE.match(given)
        key = self.keys.get(shape[1].decode()) if shape else None
        # A comparison is made in any case, and takes the same time wherever the first difference is.
        if hmac.compare_digest(found, key.digest if key else _NO_DIGEST) and key:
            return key
        if sum(hmac.compare_digest(found, digest) for digest in self.digests):
            return Key("serve.api_keys", found, frozenset(SCOPES))
        return None
