"""Handover: a new supervisor takes the place of one that runs, with noria's new code, and no client notices.

The new one asks over the control socket for the listening sockets and for the lock of the run directory, which come as
file descriptors (SCM_RIGHTS, unix(7)). It starts HAProxy and replicas of its own; for a moment both accept. When all
is ready it takes the run directory's name, and the old one is asked to leave: it accepts nothing more, and ends when
its clients have gone. If the new one can't start, it just ends, and nothing has changed.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from noria.core.errors import ConfigError, NoriaError
from noria.gateway.control import SOCKET_NAME, Descriptors, ask_at, reach
from noria.gateway.errors import GatewayError
from noria.gateway.fleet import Fleet
from noria.gateway.listeners import Listeners
from noria.gateway.ports import listen
from noria.gateway.run_directory import RunDirectory, sockets_of


@dataclass(frozen=True)
class Inheritance:
    """What the old supervisor has given.

    Attributes:
        listeners: the listening sockets.
        run_dir: the run directory; not ours by name until `confirm`.
        old: the control socket of the old supervisor.
    """

    listeners: Listeners
    run_dir: RunDirectory
    old: Path

    @property
    def host(self) -> str:
        """The address where clients come in, whatever our settings say: what may be served there is judged by it."""
        return str(self.listeners.public.getsockname()[0])

    def decline(self) -> None:
        """Give up what was given; the old supervisor goes on."""
        self.listeners.close()
        self.run_dir.release()  # the lock stays the old one's, who has the same open file

    def confirm(self) -> None:
        """All is ready: let others find us, and the old one leave."""
        self.run_dir.publish()
        with contextlib.suppress(NoriaError, OSError):  # it has gone by itself
            ask_at(self.old, "leave")


def farewell(
    fleet: Fleet, listeners: Listeners, run_dir: RunDirectory
) -> dict[str, Callable[[], Coroutine[Any, Any, Any]]]:
    """What a supervisor that takes over asks of us."""

    async def hand_over() -> Descriptors:
        public, metrics, *grpc = (each.fileno() for each in listeners.sockets)
        return Descriptors((public, metrics, run_dir.lock, *grpc))  # in this order: an older noria reads three

    async def leave() -> None:
        fleet.end(patient=True, cause="another has taken over")

    return {"hand_over": hand_over, "leave": leave}


def take_over(path: str | Path, port: int, grpc_port: int | None = None) -> Inheritance:
    """Ask the gateway that runs in a directory for its sockets.

    Args:
        path: the run directory.
        port: where clients shall come in: as they do now, or 0.
        grpc_port: where they shall come in over gRPC, on the same address: there or elsewhere, 0 for as they do now;
            None for nowhere.

    Raises:
        NotFoundError: no gateway runs there.
        ConfigError: it listens on another port.
        GatewayError: it can't give them.
    """
    with contextlib.closing(reach(path)) as connection:
        connection.sendall(b'{"do": "hand_over"}\n')
        line, descriptors, *_ = socket.recv_fds(connection, 65_536, 4)
    if len(descriptors) < 3:
        for descriptor in descriptors:
            os.close(descriptor)
        answer = json.loads(line or b"{}").get("error", {})
        raise GatewayError(f"it doesn't hand over: {answer.get('detail', 'no answer')}", hint="stop it, and start anew")
    lock = descriptors.pop(2)
    given = Listeners(*(socket.socket(fileno=descriptor) for descriptor in descriptors))
    try:
        if port not in (0, now := given.ports[0]):
            raise ConfigError(
                f"the running gateway listens on port {now}, not on {port}", hint="keep the port", field="port"
            )
        listeners = _with_grpc(given, grpc_port)
    except NoriaError:
        given.close()
        os.close(lock)
        raise
    old = sockets_of(path)
    return Inheritance(listeners, RunDirectory(path, lock=lock), (old or Path(path)) / SOCKET_NAME)


def _with_grpc(given: Listeners, port: int | None) -> Listeners:
    """The same with a socket for gRPC on this port, the old one where it is that already."""
    if given.grpc is not None:
        if port is not None and port in (0, given.ports[2]):
            return given
        given.grpc.close()
    return replace(given, grpc=None if port is None else listen(given.public.getsockname()[0], port))
