"""Supervisor: keep N replicas of a server alive behind one address.

It runs in a thread of its own, which makes all child processes: the kernel kills them when that thread ends, so
nothing outlives a supervisor, not even one that was killed with SIGKILL.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from itertools import count
from pathlib import Path
from typing import Any, Self

from noria.core.errors import ConfigError
from noria.gateway.fleet import Fleet, RestartPolicy
from noria.gateway.haproxy import HAProxy
from noria.gateway.ports import listen
from noria.gateway.proxy_config import ProxyConfig, ProxyOptions, Upstream
from noria.gateway.replica import HOST, Replica, ReplicaStatus
from noria.gateway.run_directory import RunDirectory

_LOG = logging.getLogger("noria.gateway")


def log_event(event: str, **fields: Any) -> None:
    """Tell an event through `logging`: good news as information, losses as warnings, giving up as an error."""
    level = {"lost": logging.WARNING, "failed": logging.ERROR}.get(event.rpartition("_")[2], logging.INFO)
    _LOG.log(level, "%s %s", event, " ".join(f"{name}={value}" for name, value in fields.items()))


class Supervisor:
    """Replicas of a server behind HAProxy; use it as a context manager.

    Clients of a replica that dies see no error: their requests go to another one, or wait for the next (see
    `noria.gateway.proxy_config` for the limits of this promise).

    Args:
        command: the program and arguments that serve on 127.0.0.1, from the replica's index and its port.
        replicas: how many.
        host, port: where clients come in; port 0 takes any free one.
        run_dir: a directory for the logs (`logs/replica-0.log`, `logs/haproxy.log`) and the lock.
        env: environment variables for the replicas, on top of ours.
        options: what HAProxy shall do.
        restarts: when a lost replica is started again.
        ready_timeout: seconds that a replica has from its start until `GET /health/ready` answers 200.
        hang_timeout: seconds without an answer after which a replica is killed and started again.
        on_event: told what happens, as `on_event("replica_lost", replica="replica-0", …)`, in the supervisor's thread.
    """

    def __init__(
        self,
        command: Callable[[int, int], Sequence[str]],
        replicas: int = 2,
        host: str = "127.0.0.1",
        port: int = 8080,
        *,
        run_dir: str | Path,
        env: Mapping[str, str] | None = None,
        options: ProxyOptions | None = None,
        restarts: RestartPolicy | None = None,
        ready_timeout: float = 60.0,
        hang_timeout: float = 30.0,
        on_event: Callable[..., None] = log_event,
    ) -> None:
        if not 1 <= replicas <= 256:
            raise ConfigError(f"{replicas} replicas can't be run", hint="allowed: 1 to 256", field="replicas")
        self._command, self._count, self._env = command, replicas, env
        self._host, self._port, self._path = host, port, run_dir
        self._options, self._restarts = options or ProxyOptions(), restarts or RestartPolicy()
        self._timeouts = (ready_timeout, hang_timeout)
        self._tell = on_event
        self._fleet: Fleet | None = None
        self._thread: threading.Thread | None = None
        self._metrics_port = 0
        self._started = threading.Event()
        self._error: BaseException | None = None

    @property
    def url(self) -> str:
        """Where clients come in."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(self._host, self._host)
        scheme = "https" if self._options.certificate else "http"
        return f"{scheme}://{f'[{host}]' if ':' in host else host}:{self._port}"

    @property
    def metrics_url(self) -> str:
        """Where HAProxy's own metrics are, on the loopback interface only."""
        return f"http://{HOST}:{self._metrics_port}/metrics"

    def status(self) -> list[ReplicaStatus]:
        """How each replica is."""
        return [replica.status() for replica in self._fleet.replicas] if self._fleet else []

    def start(self) -> Self:
        """Start everything and return when every replica is ready.

        Raises:
            GatewayError: when the port is taken (then nothing was started), or when a replica or HAProxy can't be
                started (then all is stopped); it shows the last lines of the log.
            BusyError: when another process uses the run directory.
        """
        if self._thread is not None:
            raise ConfigError("this supervisor was started before", hint="make a new one")
        with ExitStack() as undo:
            listener = undo.enter_context(listen(self._host, self._port))
            metrics = undo.enter_context(listen(HOST, 0))
            run_dir = RunDirectory(self._path)
            undo.pop_all()
        self._port, self._metrics_port = listener.getsockname()[1], metrics.getsockname()[1]
        self._fleet = self._make_fleet(run_dir, listener, metrics)
        self._thread = threading.Thread(
            target=self._run, args=(self._fleet, run_dir), name="noria-supervisor", daemon=True
        )
        self._thread.start()
        try:
            self._started.wait()
        except BaseException:  # Ctrl-C while the replicas start
            self.stop()
            raise
        if self._error is not None:
            self.stop()
            raise self._error
        return self

    def wait(self) -> None:
        """Stay until the end; in the main thread SIGTERM and SIGINT drain and stop, a second one stops at once.

        Raises:
            GatewayError: when all replicas had to be given up.
        """
        if self._thread is None or self._fleet is None:
            raise ConfigError("the supervisor isn't running", hint="call start() first")
        with _on_signals(self._fleet):
            self._thread.join()
        if self._error is not None:
            raise self._error

    def stop(self) -> None:
        """Finish the requests in flight, then stop HAProxy and the replicas; more calls do nothing."""
        if self._thread is not None and self._fleet is not None:
            self._fleet.end()
            self._thread.join()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _make_fleet(self, run_dir: RunDirectory, listener: socket.socket, metrics: socket.socket) -> Fleet:
        replicas = tuple(
            Replica(i, self._command, run_dir.log(f"replica-{i}"), self._env, *self._timeouts)
            for i in range(self._count)
        )
        config = ProxyConfig(
            bind=f"fd@{listener.fileno()}",
            metrics_bind=f"fd@{metrics.fileno()}",
            directory=run_dir.sockets,
            upstreams=tuple(Upstream(replica.name, HOST, port=1) for replica in replicas),  # told when they are ready
            options=self._options,
        )
        descriptors = (listener.fileno(), metrics.fileno())
        return Fleet(
            replicas,
            start_proxy=lambda: HAProxy(config, run_dir.log("haproxy"), descriptors),
            listeners=(listener, metrics),
            restarts=self._restarts,
            drain_timeout=self._options.drain_timeout,
            on_event=self._tell,
        )

    def _run(self, fleet: Fleet, run_dir: RunDirectory) -> None:
        try:
            asyncio.run(fleet.run(on_started=self._started.set))
        except BaseException as error:
            self._error = error
        finally:
            run_dir.release()
            self._started.set()


@contextmanager
def _on_signals(fleet: Fleet) -> Iterator[None]:
    """Let SIGTERM and SIGINT end the fleet, the second one in a hurry; only the main thread can."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    hurry = count()
    numbers = (signal.SIGTERM, signal.SIGINT)
    before = [signal.signal(number, lambda *_: fleet.end(hurry=next(hurry) > 0)) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
