"""Ports: take the one that clients know, and find free ones for the servers behind it."""

from __future__ import annotations

import errno
import socket
from collections.abc import Container

from noria.core.errors import ConfigError
from noria.gateway.errors import GatewayError

_BACKLOG = 1024


def listen(host: str, port: int) -> socket.socket:
    """A listening TCP socket; port 0 takes any free one.

    Raises:
        ConfigError: when the port or the host can't be used on this machine.
        GatewayError: when somebody else has the port.
    """
    if not 0 <= port <= 65_535:
        raise ConfigError(f"{port} is not a port", hint="allowed: 1 to 65535, or 0 for any free one", field="port")
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        return socket.create_server(address[:2], family=family, backlog=_BACKLOG)
    except socket.gaierror as error:
        raise ConfigError(f"unknown host {host!r}", hint="use 127.0.0.1 or 0.0.0.0", field="host") from error
    except OSError as error:
        raise _refused(host, port, error) from error


def free_port(taken: Container[int] = ()) -> int:
    """A loopback port that is free now and not in `taken`.

    Somebody may take it before it is used: whoever starts a server there has to be ready to try another one.
    """
    while True:
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = int(probe.getsockname()[1])
        if port not in taken:
            return port


def reachable(host: str) -> str:
    """A host for URLs from the one that is listened on: for every address, that of this machine.

    >>> reachable("0.0.0.0"), reachable("::"), reachable("10.0.0.5")
    ('127.0.0.1', '[::1]', '10.0.0.5')
    """
    host = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(host, host)
    return f"[{host}]" if ":" in host else host


def _refused(host: str, port: int, error: OSError) -> GatewayError | ConfigError:
    if error.errno == errno.EADDRINUSE:
        return GatewayError(
            f"port {port} on {host} is already in use",
            hint=f"stop the program that listens on port {port}, or choose another port",
            field="port",
        )
    if error.errno == errno.EACCES:
        return ConfigError(f"port {port} needs root rights", hint="choose one from 1024 on", field="port")
    return ConfigError(f"can't listen on {host}: {error.strerror}", hint="use an address of this machine", field="host")
