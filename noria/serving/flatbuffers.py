"""Reading flatbuffers of unknown origin: every offset is checked, so that nothing outside the buffer is touched.

Arrow describes its messages in them. Libraries trust them: a length that lies makes them ask for terabytes, and die.
Source: flatbuffers.dev/internals, "Format".
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from noria.core import RequestError


@dataclass(frozen=True)
class Table:
    """A table at a place of a buffer; its fields are numbered from 0 in the order of their schema."""

    buffer: bytes
    at: int

    @staticmethod
    def root(buffer: bytes) -> Table:
        """The outermost table."""
        return Table(buffer, _unpack("<I", buffer, 0))

    def number(self, field: int, kind: str, default: int = 0) -> int:
        """A scalar; `kind` is its letter in `struct`."""
        at = self._field(field)
        return default if at is None else _unpack(f"<{kind}", self.buffer, at)

    def table(self, field: int) -> Table | None:
        """A table that the field refers to."""
        at = self._target(field)
        return None if at is None else Table(self.buffer, at)

    def text(self, field: int) -> str:
        """Text; empty if there is none."""
        at = self._target(field)
        if at is None:
            return ""
        size = _unpack("<I", self.buffer, at)
        raw = self.buffer[at + 4 : at + 4 + size]
        try:
            return raw.decode()
        except UnicodeDecodeError:
            raise broken("a name is not UTF-8") from None

    def tables(self, field: int) -> list[Table]:
        """A list of tables."""
        at, count = self._vector(field, 4)
        places = range(at, at + 4 * count, 4)
        return [Table(self.buffer, place + _unpack("<I", self.buffer, place)) for place in places]

    def structs(self, field: int, kind: str) -> list[tuple[int, ...]]:
        """A list of structs, each of these letters in `struct`; padding included."""
        size = struct.calcsize(f"<{kind}")
        at, count = self._vector(field, size)
        return list(struct.iter_unpack(f"<{kind}", self.buffer[at : at + size * count]))

    def _field(self, field: int) -> int | None:
        """Where a field lies; None if it isn't there."""
        vtable = self.at - _unpack("<i", self.buffer, self.at)
        size = _unpack("<H", self.buffer, vtable)
        entry = 4 + 2 * field
        if entry + 2 > size:
            return None
        offset = _unpack("<H", self.buffer, vtable + entry)
        return self.at + offset if offset else None

    def _target(self, field: int) -> int | None:
        at = self._field(field)
        return None if at is None else at + _unpack("<I", self.buffer, at)

    def _vector(self, field: int, size: int) -> tuple[int, int]:
        """Where a list's elements begin, and how many there are."""
        at = self._target(field)
        if at is None:
            return 0, 0
        count = _unpack("<I", self.buffer, at)
        if at + 4 + size * count > len(self.buffer):
            raise broken("a list ends beyond its message")
        return at + 4, count


def broken(told: str) -> RequestError:
    """The error for what is no proper Arrow."""
    return RequestError(f"the body is not a proper Arrow stream: {told}", hint="write it with a library, uncompressed")


def _unpack(kind: str, buffer: bytes, at: int) -> int:
    if not 0 <= at <= len(buffer) - struct.calcsize(kind):
        raise broken("an offset leads out of its message")
    found: int = struct.unpack_from(kind, buffer, at)[0]
    return found
