"""Classes that are made of JSON data, and documents that are read back as what they were."""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

from noria.core.errors import IntegrityError

T = TypeVar("T", bound=type)
Made = TypeVar("Made")

RESTORE = "restore the records from a backup"
"""What to do about a record that isn't what was written."""


def decodable(kind: T) -> T:
    """A decorator: msgspec looks at the class now, while its module is imported, and not when it is first asked for.

    Of two threads that ask first at the same time, one would see what the other has half filled in, and end the process
    (msgspec 0.22).
    """
    msgspec.json.Decoder(kind)
    return kind


def read_back(data: Any, kind: type[Made], what: str) -> Made:
    """A document as the class that it was made of; `what` is it, in words.

    Raises:
        IntegrityError: it isn't what was written.
    """
    try:
        return msgspec.convert(data, kind)
    except msgspec.ValidationError as error:
        raise IntegrityError(f"the record of {what} is damaged: {error}", hint=RESTORE) from error
