"""Classes that are made of JSON data."""

from __future__ import annotations

from typing import TypeVar

import msgspec

T = TypeVar("T", bound=type)


def decodable(kind: T) -> T:
    """A decorator: msgspec looks at the class now, while its module is imported, and not when it is first asked for.

    Of two threads that ask first at the same time, one would see what the other has half filled in, and end the process
    (msgspec 0.22).
    """
    msgspec.json.Decoder(kind)
    return kind
