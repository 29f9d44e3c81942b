"""Guard: who may ask the console, and that nobody's browser asks in another page's name.

Three things keep other pages out. A page whose name was pointed to this address (DNS rebinding) sends that name in
`Host`: on loopback only loopback's names are let in. A form of another page can't send `application/json`. And what a
browser sends with `Origin` or `Sec-Fetch-Site` has to come from here.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast
from urllib.parse import urlsplit

from noria.core import RequestError
from noria.serving.access import Access
from noria.serving.keys import is_loopback
from noria.serving.scopes import ADMIN

if TYPE_CHECKING:
    from noria.serving.exchange import Exchange


@dataclass(frozen=True)
class _Asked:
    """As much of an exchange as `Access.check` looks at."""

    headers: dict[bytes, bytes]


@dataclass(frozen=True)
class Guard:
    """Lets requests in.

    Attributes:
        access: the API keys.
        loopback: whether only this machine can reach the console.
    """

    access: Access
    loopback: bool

    def check_host(self, headers: Mapping[str, str]) -> None:
        """Refuse a name that isn't this machine's, where only this machine can ask.

        Raises:
            RequestError: status 421.
        """
        host = headers.get("host", "")
        if self.loopback and not is_loopback(_name(host)):
            raise RequestError(
                f"this console isn't at {host!r}",
                status=421,
                hint="ask by 127.0.0.1 or localhost; to be reached by others set serve.admin_host",
            )

    def check_change(self, headers: Mapping[str, str]) -> None:
        """Refuse a change that another page may have asked for.

        Raises:
            RequestError: status 403 or 415.
        """
        origin, host = headers.get("origin"), headers.get("host", "")
        foreign = headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none")
        if foreign or (origin is not None and urlsplit(origin).netloc != host):
            raise RequestError("the request comes from another page", status=403, hint="open the console itself")
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json":
            raise RequestError(
                f"a change is JSON, not {kind or 'of no type'}", status=415, hint="send Content-Type: application/json"
            )

    def admit(self, headers: Mapping[str, str]) -> tuple[str | None, bytes]:
        """Check the API key; returns its name and itself, or None and nothing where none is demanded.

        Browsers send it as the password of HTTP's basic authentication (RFC 7617). Unlike a cookie it isn't sent to
        other ports of this machine.

        Raises:
            RequestError: status 401, 403 or 429.
        """
        key = _key(headers)
        self.access.check(cast("Exchange", _Asked({b"x-api-key": key} if key else {})), ADMIN)
        ring = self.access.ring
        found = ring.find(key) if ring.demanded and key else None
        return (None, b"") if found is None else (f"key {found.name}", key)


def _key(headers: Mapping[str, str]) -> bytes:
    given = headers.get("x-api-key", "")
    scheme, _, rest = headers.get("authorization", "").partition(" ")
    if not given and scheme.lower() == "bearer":
        given = rest
    if not given and scheme.lower() == "basic":
        try:
            user, _, password = base64.b64decode(rest.strip(), validate=True).decode("latin-1").partition(":")
        except (binascii.Error, ValueError):
            return b""
        given = password or user
    return given.strip().encode("latin-1", "replace")


def _name(host: str) -> str:
    """The name in `name:port` or `[address]:port`."""
    return host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
