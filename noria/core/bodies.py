"""Request bodies: JSON checked against a type; what is wrong is told with the field's name."""

from __future__ import annotations

import re
from typing import TypeVar

import msgspec

from noria.core.errors import RequestError

T = TypeVar("T")


def decode(decoder: msgspec.json.Decoder[T], body: bytes) -> T:
    """Decode a JSON body.

    Raises:
        RequestError: status 400 for what isn't JSON (NaN included), 422 for a wrong, missing or unknown field,
            which is named as in `instances[0].hour`.
    """
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        message, field = _place(str(error))
        raise RequestError(message, status=422, field=field, hint="see /openapi.json") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RequestError(f"the body is not valid JSON: {error}", hint="NaN and Infinity are not JSON") from None


def _place(text: str) -> tuple[str, str | None]:
    """The message and the field of a text like "Expected `int`, got `str` - at `$.instances[0].hour`"."""
    message, _, path = text.partition(" - at `$")
    field = path.rstrip("`").removeprefix(".") or None
    named = re.search(r"(?:unknown field|required field) `([^`]+)`", message)
    if named:
        field = f"{field}.{named[1]}" if field else named[1]
    return (f"{field}: {message}" if field else message), field
