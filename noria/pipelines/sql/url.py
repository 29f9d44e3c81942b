"""Addresses of databases, and their passwords kept out of sight."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qsl, unquote

from noria.core import ConfigError, NotFoundError

# A password may have any character, also those that should have been escaped: all up to the last @ is its own.
_URL = re.compile(
    r"(?P<scheme>[\w+.-]+)://(?:(?P<user>[^:@/]*)(?::(?P<password>.*))?@)?"
    r"(?P<host>\[[^\]]*\]|[^:/?@]*)(?::(?P<port>\d+))?(?:/(?P<database>[^?]*))?(?:\?(?P<options>.*))?",
    re.DOTALL,
)
_SECRETS = re.compile(r"([?&](?:[a-z_]*password|passwd|pwd|secret|token)=)[^&\s]*", re.IGNORECASE)


@dataclass(frozen=True)
class Address:
    """The parts of a server's URL, with `%40` and the like resolved."""

    user: str
    password: str = field(repr=False)
    host: str
    port: int | None
    database: str
    options: dict[str, str] = field(repr=False)


def scheme_of(url: str) -> str:
    """What stands before `://`, in lower case."""
    return url.partition("://")[0].lower()


def address(url: str) -> Address:
    """The parts of a server's URL.

    Raises:
        ConfigError: if it has no host or something that isn't a port.
    """
    found = _URL.fullmatch(url)
    if found is None:
        raise ConfigError(
            f"{masked(url)} is not a database's address", hint="scheme://user:password@host:port/database", field="url"
        )
    part = {name: unquote(value or "") for name, value in found.groupdict().items() if name != "options"}
    port = int(part["port"]) if part["port"] else None
    options = dict(parse_qsl(found["options"] or "", keep_blank_values=True))
    return Address(part["user"], part["password"], part["host"].strip("[]"), port, part["database"], options)


def file_of(url: str, root: Path) -> Path:
    """The file that `sqlite:///file.db` (in the root) or `sqlite:////var/file.db` means.

    Raises:
        NotFoundError: if there is no such file: a database that is read is never created.
    """
    name = unquote(url.partition("://")[2].partition("?")[0].removeprefix("/"))
    file = root / name
    if not name or not file.is_file():
        raise NotFoundError(
            f"there is no database file {file} ({masked(url)})",
            hint=f"a relative path starts at {root}; an absolute one has four slashes: {scheme_of(url)}:////var/x.db",
            field="url",
        )
    return file


def masked(url: str) -> str:
    """The URL with `***` for its password, as every message shows it.

    >>> masked("postgresql://me:p@ss/w@host:5432/shop?sslpassword=x")
    'postgresql://me:***@host:5432/shop?sslpassword=***'
    """
    return _SECRETS.sub(r"\1***", re.sub(r"(?s)(://[^:@/]*):.*@", r"\1:***@", url))


def without_secrets(text: str, url: str) -> str:
    """A driver's words without the URL's password, in whatever way they spell it."""
    text = text.replace(url, masked(url))
    found = _URL.fullmatch(url)
    options = dict(parse_qsl(found["options"] or "")) if found else {}
    secrets = [value for key, value in options.items() if _SECRETS.fullmatch(f"?{key}={value}")]
    if found and found["password"]:
        secrets += [found["password"], unquote(found["password"])]
    for secret in sorted({each for each in secrets if each}, key=len, reverse=True):
        text = text.replace(secret, "***")
    return masked(text)
