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
from dataclasses import dataclass
from pathlib import Path

from noria.core.errors import ConfigError, NoriaError
from noria.gateway.control import SOCKET_NAME, ask_at, reach
from noria.gateway.errors import GatewayError
from noria.gateway.run_directory import RunDirectory, sockets_of


@dataclass(frozen=True)
class Inheritance:
    """What the old supervisor has given.

    Attributes:
        public, metrics: the listening sockets.
        run_dir: the run directory; not ours by name until `confirm`.
        old: the control socket of the old supervisor.
    """

    public: socket.socket
    metrics: socket.socket
    run_dir: RunDirectory
    old: Path

    def confirm(self) -> None:
        """All is ready: let others find us, and the old one leave."""
        self.run_dir.publish()
        with contextlib.suppress(NoriaError, OSError):  # it has gone by itself
            ask_at(self.old, "leave")


def take_over(path: str | Path, port: int) -> Inheritance:
    """Ask the gateway that runs in a directory for its sockets.

    Args:
        path: the run directory.
        port: where clients shall come in: as they do now, or 0.

    Raises:
        NotFoundError: no gateway runs there.
        ConfigError: it listens on another port.
        GatewayError: it can't give them.
    """
    with contextlib.closing(reach(path)) as connection:
        connection.sendall(b'{"do": "hand_over"}\n')
        line, descriptors, *_ = socket.recv_fds(connection, 65_536, 3)
    if len(descriptors) != 3:
        for descriptor in descriptors:
            os.close(descriptor)
        answer = json.loads(line or b"{}").get("error", {})
        raise GatewayError(f"it doesn't hand over: {answer.get('detail', 'no answer')}", hint="stop it, and start anew")
    public, metrics = (socket.socket(fileno=descriptor) for descriptor in descriptors[:2])
    now = public.getsockname()[1]
    if port not in (0, now):
        for held in (public, metrics):
            held.close()
        os.close(descriptors[2])
        raise ConfigError(
            f"the running gateway listens on port {now}, not on {port}", hint="keep the port", field="port"
        )
    old = sockets_of(path)
    return Inheritance(public, metrics, RunDirectory(path, lock=descriptors[2]), (old or Path(path)) / SOCKET_NAME)
