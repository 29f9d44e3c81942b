"""UUIDs: as text in one form, so that one UUID is one value; as 16 bytes where they are keys (RFC 9562)."""

from __future__ import annotations

import re
from typing import Any
from uuid import UUID

UUID_PARTS = r"^([0-9a-f]{8})-?([0-9a-f]{4})-?([0-9a-f]{4})-?([0-9a-f]{4})-?([0-9a-f]{12})$"
"""The parts of a UUID in lower case; hyphens may be missing."""
_find = re.compile(UUID_PARTS).fullmatch


def uuid_text(value: Any) -> str | None:
    """A UUID in lower case with hyphens, from text in any case, also in braces or without hyphens, or from a `UUID`;
    None if it is none.

    >>> uuid_text("{6F1C0A50000040008000000000000001}")
    '6f1c0a50-0000-4000-8000-000000000001'
    """
    if isinstance(value, UUID):
        return str(value)
    if not isinstance(value, str):
        return None
    text = value.strip().lower()
    if text.startswith("{") and text.endswith("}"):
        text = text[1:-1]
    parts = _find(text)
    return None if parts is None else "-".join(parts.groups())


def uuid_bytes(value: Any) -> bytes | None:
    """The 16 bytes of a UUID, given as by `uuid_text`; None if it is none."""
    if isinstance(value, UUID):
        return value.bytes
    if type(value) is str and len(value) == 36 and value[8] == value[13] == value[18] == value[23] == "-":
        try:  # as it mostly comes: three times as fast
            made = bytes.fromhex(value.replace("-", ""))
        except ValueError:
            made = b""
        if len(made) == 16:
            return made
    text = uuid_text(value)
    return None if text is None else bytes.fromhex(text.replace("-", ""))
