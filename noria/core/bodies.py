"""Request bodies: JSON checked against a type; what is wrong is told with the field's name."""

from __future__ import annotations

import re
from typing import Any, TypeVar

import msgspec
import msgspec.inspect

from noria.core.errors import RequestError, allowed

T = TypeVar("T")

_UNKNOWN = re.compile(r"unknown field `([^`]+)`")


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
        unknown = _UNKNOWN.search(message)
        names = _fields(decoder.type, str(field).removesuffix(unknown[1])) if unknown else []
        known = f"{allowed(names, unknown[1])}; " if unknown and names else ""
        raise RequestError(message, status=422, field=field, hint=f"{known}see /openapi.json") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        odd = b"NaN" in body or b"Infinity" in body
        hint = "NaN and Infinity are not JSON: write null" if odd else "see /openapi.json"
        raise RequestError(f"the body is not valid JSON: {error}", hint=hint) from None


def _fields(kind: Any, path: str) -> list[str]:
    """The fields that there are at a place such as `instances[0].`."""
    place = msgspec.inspect.type_info(kind)
    for step in re.findall(r"[^.\[\]]+", path):
        if isinstance(place, msgspec.inspect.StructType):
            place = next((one.type for one in place.fields if one.encode_name == step), place)
        if isinstance(place, msgspec.inspect.UnionType):
            place = next(one for one in place.types if not isinstance(one, msgspec.inspect.NoneType))
        if isinstance(place, msgspec.inspect.ListType):
            place = place.item_type
    return [one.encode_name for one in place.fields] if isinstance(place, msgspec.inspect.StructType) else []


def _place(text: str) -> tuple[str, str | None]:
    """The message and the field of a text like "Expected `int`, got `str` - at `$.instances[0].hour`"."""
    message, _, path = text.partition(" - at `$")
    field = path.rstrip("`").removeprefix(".") or None
    named = re.search(r"(?:unknown field|required field) `([^`]+)`", message)
    if named:
        field = f"{field}.{named[1]}" if field else named[1]
    return (f"{field}: {message}" if field else message), field
