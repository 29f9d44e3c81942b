"""Server: the address of one server that speaks HTTP."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit

from noria.core.errors import ConfigError


@dataclass(frozen=True)
class Server:
    """One server that speaks HTTP.

    >>> Server.of("http://127.0.0.1:8001").name
    '127.0.0.1:8001'
    """

    host: str
    port: int

    @staticmethod
    def of(address: str | Server) -> Server:
        """Read `host:port` or `http://host:port`; an IPv6 host stands in brackets.

        Raises:
            ConfigError: when the address is neither.
        """
        if isinstance(address, Server):
            return address
        try:
            url = urlsplit(address if "://" in address else f"http://{address}")
            if url.scheme == "http" and url.hostname and url.port and url.path in ("", "/") and not url.query:
                return Server(url.hostname, url.port)
        except (ValueError, TypeError):
            pass  # no number, or out of range, or no text at all: all are told below
        raise ConfigError(f"{address!r} is not the address of a server", hint="write host:port, as in 127.0.0.1:8001")

    @property
    def name(self) -> str:
        """`host:port`."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def url(self) -> str:
        """`http://host:port`."""
        return f"http://{self.name}"
