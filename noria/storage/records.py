"""Records: small JSON documents that must never be lost or half written: registry, runs, audit trail.

A document has a collection, a key and a revision that grows by one with each change. Several changes are
committed together or not at all, and each may demand the revision that it was computed from, so that two
processes can't overwrite each other unseen (optimistic concurrency). That is all that a backend has to offer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import msgspec

from noria.core import ConflictError, IntegrityError
from noria.core.decoding import RESTORE

ABSENT = 0
"""As an expected revision: the document must not exist yet."""


@dataclass(frozen=True)
class Record:
    """A document as it was read."""

    key: str
    revision: int
    data: dict[str, Any]


@dataclass(frozen=True)
class Put:
    """Write a document. `expect` is the revision that it must have now: None for any, `ABSENT` for a new one."""

    collection: str
    key: str
    data: dict[str, Any]
    expect: int | None = None


def record(row: tuple[str, int, bytes | str]) -> Record:
    """A record of its key, its revision and its JSON.

    Raises:
        IntegrityError: the JSON is damaged, or no document.
    """
    key, revision, text = row
    try:
        return Record(key, revision, msgspec.json.decode(text, type=dict[str, Any]))
    except (msgspec.DecodeError, UnicodeDecodeError, TypeError) as error:
        raise IntegrityError(f"the record {key!r} is damaged: {error}", hint=RESTORE) from error


def conflict(put: Put, revision: int) -> ConflictError:
    """What a writer is told whose document isn't at the revision that it expected."""
    return ConflictError(
        f"{put.collection} {put.key!r} was changed by another process (revision {revision}, expected {put.expect})",
        hint="read it again and repeat the change",
    )


class Records(Protocol):
    """A store of JSON documents with atomic, conditional commits. Safe to share between threads."""

    def get(self, collection: str, key: str) -> Record | None:
        """The document, or None."""
        ...

    def list(
        self, collection: str, prefix: str = "", *, newest_first: bool = False, limit: int | None = None
    ) -> list[Record]:
        """The documents whose keys start with `prefix`, in the order of their keys."""
        ...

    def commit(self, *changes: Put) -> None:
        """Make all changes durable together.

        Raises:
            ConflictError: a document doesn't have the expected revision; nothing was changed.
        """
        ...

    def close(self) -> None:
        """Let go of the files or connections."""
        ...
