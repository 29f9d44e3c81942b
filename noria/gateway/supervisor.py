"""Supervisor: keep N replicas of a server alive behind one address.

It runs in a thread of its own, which makes all child processes: the kernel kills them when that thread ends, so
nothing outlives a supervisor, not even one that was killed with SIGKILL.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any, Self, TypeVar

from noria.core.errors import ConfigError
from noria.core.settings import MOST_REPLICAS
from noria.gateway.autoscale import ScaleLimits
from noria.gateway.control import SOCKET_NAME, Control
from noria.gateway.ejection import eject_outliers
from noria.gateway.events import log_event, on_signals
from noria.gateway.fleet import Fleet
from noria.gateway.handover import Inheritance, farewell, take_over
from noria.gateway.listeners import Listeners
from noria.gateway.operations import Operations, ServerStatus, operations, upstream_of
from noria.gateway.ports import reachable
from noria.gateway.proxy import Proxy
from noria.gateway.proxy_config import BASE_WEIGHT, Upstream
from noria.gateway.proxy_options import ProxyOptions
from noria.gateway.replica import HOST, Replica, ReplicaStatus
from noria.gateway.restarts import RestartPolicy
from noria.gateway.run_directory import RunDirectory
from noria.gateway.scaler import Scaler

T = TypeVar("T")


class Supervisor:
    """Replicas of a server behind HAProxy; use it as a context manager.

    Clients of a replica that dies see no error: their requests go to another one, or wait for the next (see
    `noria.gateway.proxy_config` for the limits of this promise).

    Args:
        command: the program and arguments that serve on 127.0.0.1, from the replica's index and its port; with
            `grpc_port` from the port where it has to speak gRPC, too.
        replicas: how many; 0 is enough where there are `servers`.
        host, port: where clients come in; port 0 takes any free one.
        grpc_port: where they come in over gRPC, on the same host; None for nowhere. Only to replicas.
        run_dir: a directory for the logs (`logs/replica-0.log`, `logs/haproxy.log`) and the lock.
        servers: `host:port` of servers elsewhere, behind the same HAProxy. Nobody here starts or stops them.
        scaling: have more or fewer replicas by load; `replicas` is then how many there are at first.
        take_over: take the place of the supervisor that runs in `run_dir` (or has given this already), which ends when
            its clients have gone; these come in where they do now, whatever `host` says.
        env: environment variables for the replicas, on top of ours.
        options: what HAProxy shall do.
        restarts: when a lost replica is started again.
        ready_timeout: seconds that a replica has from its start until `GET /health/ready` answers 200.
        hang_timeout: seconds without an answer after which a replica is killed and started again.
        on_event: told what happens, as `on_event("replica_lost", replica="replica-0", …)`, in the supervisor's thread.
    """

    def __init__(
        self,
        command: Callable[..., Sequence[str]],
        replicas: int = 2,
        host: str = "127.0.0.1",
        port: int = 8080,
        *,
        grpc_port: int | None = None,
        run_dir: str | Path,
        servers: Sequence[str] = (),
        scaling: ScaleLimits | None = None,
        take_over: bool | Inheritance = False,
        env: Mapping[str, str] | None = None,
        options: ProxyOptions | None = None,
        restarts: RestartPolicy | None = None,
        ready_timeout: float = 60.0,
        hang_timeout: float = 30.0,
        on_event: Callable[..., None] = log_event,
    ) -> None:
        scaling = scaling or ScaleLimits(replicas, replicas) if replicas >= 0 else ScaleLimits()
        least = 0 if servers else 1
        if not least <= replicas <= MOST_REPLICAS or scaling.maximum > MOST_REPLICAS:
            raise ConfigError(
                f"{replicas} replicas can't be run", hint=f"from {least} to {MOST_REPLICAS}", field="replicas"
            )
        self._command, self._env, self._servers, self._scaling = command, env, tuple(servers), scaling
        self._count = min(max(replicas, scaling.minimum), scaling.maximum)
        self._host, self._port, self._grpc_port, self._path = host, port, grpc_port, run_dir
        self._options, self._restarts = options or ProxyOptions(), restarts or RestartPolicy()
        self._timeouts = (ready_timeout, hang_timeout)
        self._tell = on_event
        self._take_over = take_over
        self._given: Inheritance | None = None
        self._fleet: Fleet | None = None
        self._verbs: Operations | None = None
        self._thread: threading.Thread | None = None
        self._metrics_port = 0
        self._started = threading.Event()
        self._error: BaseException | None = None

    @property
    def url(self) -> str:
        """Where clients come in."""
        return f"{'https' if self._options.certificate else 'http'}://{reachable(self._host)}:{self._port}"

    @property
    def grpc_address(self) -> str | None:
        """`host:port` where they come in over gRPC; None for nowhere."""
        return None if self._grpc_port is None else f"{reachable(self._host)}:{self._grpc_port}"

    @property
    def metrics_url(self) -> str:
        """Where HAProxy's own metrics are, on the loopback interface only."""
        return f"http://{HOST}:{self._metrics_port}/metrics"

    def status(self) -> list[ReplicaStatus]:
        """How each replica is."""
        return [replica.status() for replica in self._fleet.replicas] if self._fleet else []

    def servers(self) -> list[ServerStatus]:
        """How each server is, with what HAProxy counts of it."""
        return self._do(self._running().servers())

    def scale(self, minimum: int, maximum: int | None = None, *, force: bool = False) -> None:
        """Have so many replicas, or as many in between as the load asks for; see `Operations.scale`.

        Raises:
            ConfigError: numbers that can't be.
            GatewayError: a replica can't be started (there are as many as before), or the gateway stops.
        """
        self._do(self._running().scale(minimum, maximum, force))

    def restart(self) -> None:
        """Replace every replica by a new process, with the code that is on the disk now; no request fails.

        Raises:
            GatewayError: a new one can't be started; those that were not replaced yet go on.
        """
        self._do(self._running().restart())

    def reload(self, options: ProxyOptions | None = None) -> None:
        """Replace HAProxy by a process with other options, or a new certificate in the same file; no request fails.

        Raises:
            GatewayError: the new one doesn't start; the old one goes on.
        """
        self._do(self._running().reload(options))
        self._options = options or self._options

    def add_server(self, address: str, weight: int = BASE_WEIGHT) -> str:
        """Put one more server elsewhere behind HAProxy; returns its name. It gets requests once it is healthy."""
        return self._do(self._running().add(address, weight))

    def remove_server(self, name: str) -> None:
        """Take a server elsewhere out, when it has finished what it has."""
        self._do(self._running().remove(name))

    def drain_server(self, name: str) -> bool:
        """Send a server no new requests; returns whether it has finished what it had in time."""
        return self._do(self._running().drain(name))

    def resume_server(self, name: str) -> None:
        """Send requests to a drained server again."""
        self._do(self._running().resume(name))

    def set_weight(self, name: str, weight: int) -> None:
        """Let a server have another part of the requests: 0 (none) to 256; a server has 100 unless told otherwise."""
        self._do(self._running().weigh(name, weight))

    def start(self) -> Self:
        """Start everything and return when every replica is ready.

        Raises:
            GatewayError: when the port is taken (then nothing was started), or when a replica or HAProxy can't be
                started (then all is stopped); it shows the last lines of the log.
            BusyError: when another process uses the run directory.
        """
        if self._thread is not None:
            raise ConfigError("this supervisor was started before", hint="make a new one")
        listeners, run_dir = self._claim()
        self._port, self._metrics_port, *grpc = listeners.ports
        self._grpc_port = grpc[0] if grpc else None
        proxy = Proxy(
            listeners.sockets, run_dir.sockets, run_dir.log("haproxy"), (), self._options, self._restarts, self._hear
        )
        self._fleet = self._make_fleet(run_dir, proxy)
        self._scaler = Scaler(self._fleet, self._scaling, self._hear)
        self._verbs = Operations(self._fleet, self._scaler)
        verbs = operations(self._fleet, self._scaler) | farewell(self._fleet, listeners, run_dir)
        verbs |= {"addresses": self._addresses}
        self._control = Control(run_dir.sockets / SOCKET_NAME, verbs)
        self._thread = threading.Thread(
            target=self._run, args=(self._fleet, run_dir), name="noria-supervisor", daemon=True
        )
        self._thread.start()
        try:
            while not self._started.wait(0.2):  # a signal that comes as the wait begins is seen after it only
                pass
        except BaseException:  # Ctrl-C while the replicas start
            self.stop()
            raise
        if self._error is not None:
            self.stop()
            raise self._error
        if self._given is not None:
            self._given.confirm()
        return self

    def wait(self) -> None:
        """Stay until the end; in the main thread SIGTERM and SIGINT drain and stop, a second one stops at once.

        Raises:
            GatewayError: when the gateway itself has failed.
        """
        if self._thread is None or self._fleet is None:
            raise ConfigError("the supervisor isn't running", hint="call start() first")
        with on_signals(self._fleet):
            while self._thread.is_alive():
                self._thread.join(0.2)  # see `start`
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

    def _claim(self) -> tuple[Listeners, RunDirectory]:
        """The sockets and the directory: new ones, or those of the supervisor that runs."""
        if given := self._take_over:
            given = take_over(self._path, self._port, self._grpc_port) if given is True else given
            self._given, self._host = given, given.host
            return given.listeners, given.run_dir
        listeners = Listeners.open(self._host, self._port, self._grpc_port)
        try:
            return listeners, RunDirectory(self._path)
        except BaseException:
            listeners.close()
            raise

    def _make_fleet(self, run_dir: RunDirectory, proxy: Proxy) -> Fleet:
        def make(index: int) -> Replica:
            log, speaks_grpc = run_dir.log(f"replica-{index}"), self._grpc_port is not None
            return Replica(index, self._command, log, self._env, *self._timeouts, speaks_grpc)

        return Fleet(
            make,
            self._count,
            proxy,
            restarts=self._restarts,
            drain_timeout=self._options.drain_timeout,
            on_event=self._hear,
        )

    def _run(self, fleet: Fleet, run_dir: RunDirectory) -> None:
        try:
            asyncio.run(self._serve(fleet))
        except BaseException as error:
            self._error = error
        finally:
            run_dir.release()
            self._started.set()

    async def _serve(self, fleet: Fleet) -> None:
        known: dict[str, Upstream] = fleet.proxy.upstreams
        for address in self._servers:
            upstream = await upstream_of(address, known)
            known[upstream.name] = upstream
        others = (self._control.run(), self._scaler.run(), eject_outliers(fleet.proxy, self._hear))
        await fleet.run(self._started.set, *others)

    def _hear(self, event: str, **fields: Any) -> None:
        self._tell(event, **fields)
        self._control.tell(event, fields)

    async def _addresses(self) -> dict[str, str]:
        """Where clients come in, and where HAProxy's metrics are; for the control socket."""
        return {"url": self.url, "metrics": self.metrics_url}

    def _running(self) -> Operations:
        if self._verbs is None:
            raise ConfigError("the supervisor isn't running", hint="call start() first")
        return self._verbs

    def _do(self, work: Coroutine[Any, Any, T]) -> T:
        """Have the gateway's thread do something, and wait for it."""
        loop = self._fleet.loop if self._fleet else None
        if self._fleet is None or loop is None or self._thread is None or not self._thread.is_alive():
            work.close()
            raise ConfigError("the supervisor isn't running", hint="call start() first")
        return asyncio.run_coroutine_threadsafe(self._fleet.operate(work), loop).result()
