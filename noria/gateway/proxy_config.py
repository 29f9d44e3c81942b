"""The configuration of HAProxy: a frozen description in, text out, nothing else.

Every choice below was made for servers that are restarted under load:

* A request whose server dies before it has answered is sent to another one (`retry-on`, `option redispatch`). That
  is right only for requests which may run twice, so anything but GET, HEAD and POST to one of the `retried`
  operations, which change nothing, is retried only if no server had accepted the connection.
* HAProxy can send a request again only while all of it is in the buffer: headers and body may have `buffer_bytes`
  together. A longer request passes through, but isn't retried once its server has accepted the connection.
* The text describes the servers as they are now, whatever the runtime socket has changed since the last start: a
  process that is started anew, after a crash or for other options, forgets no weight and no server.
* An answer is passed on as it comes. A server that sends head and body of a short answer in one write is never caught
  between the two; one that dies in the middle of an answer leaves its client with a part of it.
* When no server is ready, requests go to the *waiting room*, a backup server that is HAProxy itself: there a few
  lines of Lua hold each one until a server is back. Only after `queue_timeout` is it answered with 503.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from noria.core.errors import ConfigError
from noria.gateway import grpc_config
from noria.gateway.grpc_config import GRPC, GRPC_FRONTEND
from noria.gateway.probe import READY_PATH
from noria.gateway.proxy_errors import as_grpc, as_problems
from noria.gateway.proxy_options import ALGORITHMS, ProxyOptions
from noria.gateway.proxy_options import milliseconds as _ms

BACKEND = "replicas"
FRONTEND = "public"
BASE_WEIGHT = 100
"""Of a server of which nobody says more; not 1, so that a part of it is a whole number, too."""
FIRST_ID_ELSEWHERE = 1000
"""Of servers elsewhere; the ids of replicas are below."""
WAITING_ROOM = "waiting-room"
_WAITING_ROOM_ID = 999
_POLL_MILLISECONDS = 20


@dataclass(frozen=True)
class Upstream:
    """A server behind the proxy.

    Attributes:
        name: as HAProxy and its metrics call it.
        host, port: where it listens.
        id: a number of its own, from 1: a consistent hash knows servers by it.
        weight: its part of the requests, relative to that of the others: 0 (none) to 256.
        ready: whether it may get requests; one that isn't ready is in maintenance.
        drained: it finishes what it has, and gets no new requests, because somebody wishes so.
        ejected: the same, because it answers wrongly.
        grpc_port: where it speaks gRPC; 0 when it doesn't.
    """

    name: str
    host: str
    port: int
    id: int
    weight: int = BASE_WEIGHT
    ready: bool = False
    drained: bool = False
    ejected: bool = False
    grpc_port: int = 0

    @property
    def takes_new(self) -> bool:
        """Whether it gets new requests."""
        return self.ready and not self.drained and not self.ejected

    @property
    def address(self) -> str:
        """`host:port`."""
        return self.address_in(BACKEND)

    def address_in(self, backend: str) -> str:
        """`host:port` of what it does in a backend."""
        return f"{f'[{self.host}]' if ':' in self.host else self.host}:{self.port_in(backend)}"

    def port_in(self, backend: str) -> int:
        """The port that a backend knows; 0 when it has none there."""
        return self.grpc_port if backend == GRPC else self.port


@dataclass(frozen=True)
class ProxyConfig:
    """All that one HAProxy process needs to know.

    Attributes:
        bind: where clients come in, `host:port` or `fd@3`.
        metrics_bind: where its own Prometheus metrics are, the same way.
        directory: an absolute, short and private path for the sockets and the Lua file.
        upstreams: the servers.
        options: the rest.
        generation: counts the processes; each takes commands on a socket of its own.
        grpc_bind: where clients that speak gRPC come in; empty for nowhere.
    """

    bind: str
    metrics_bind: str
    directory: Path
    upstreams: tuple[Upstream, ...]
    options: ProxyOptions = field(default_factory=ProxyOptions)
    generation: int = 0
    grpc_bind: str = ""

    @property
    def backends(self) -> tuple[str, ...]:
        """The groups of servers; most servers are in each, under the same name."""
        return (BACKEND, GRPC) if self.grpc_bind else (BACKEND,)

    @property
    def frontends(self) -> tuple[str, ...]:
        """Where clients come in."""
        return (FRONTEND, GRPC_FRONTEND) if self.grpc_bind else (FRONTEND,)

    @property
    def admin_socket(self) -> Path:
        """Where the running process takes commands."""
        return self.directory / f"admin-{self.generation}.sock"

    @property
    def state_file(self) -> Path:
        """Where a process finds what its predecessor knew of the servers' health."""
        return self.directory / "servers.state"

    def waiting_room_of(self, backend: str) -> Path:
        """The socket on which HAProxy is its own backup server."""
        return self.directory / f"wait-{backend}.sock"

    @property
    def lua_file(self) -> Path:
        """Where `waiting_room_lua` has to be written."""
        return self.directory / "waiting_room.lua"


def render(config: ProxyConfig) -> str:
    """The text of the configuration, for HAProxy 2.8 or newer in the foreground (`-db`), with no root rights.

    Raises:
        ConfigError: when a path can't be written in it.
    """
    for path in (config.directory, config.options.certificate):
        if path is not None and not re.fullmatch(r"[\w/.+,@=-]+", str(path)):
            raise ConfigError(f"HAProxy can't use the path {str(path)!r}", hint="use letters, digits, '.', '_' and '-'")
    defaults = _defaults(config.options, as_problems())
    sections = [_global(config), defaults, _public(config), _metrics(config), _wait(config), _backend(config, BACKEND)]
    if config.grpc_bind:
        sections += [
            _defaults(config.options, as_grpc()),
            grpc_config.frontend(config.grpc_bind, config.options),
            grpc_config.again(WAITING_ROOM, config.waiting_room_of(GRPC), config.options),
            grpc_config.waiting_room(config.waiting_room_of(GRPC), config.options),
            _backend(config, GRPC),
        ]
    return "\n".join("\n  ".join(lines) + "\n" for lines in sections)


def waiting_room_lua(options: ProxyOptions) -> str:
    """Lua that holds a request until a server is ready, or leaves a mark after `queue_timeout`."""
    polls = max(1, round(options.queue_timeout * 1000 / _POLL_MILLISECONDS))
    return f"""\
core.register_action("wait_for_server", {{"http-req"}}, function(txn, backend)
  for _ = 1, {polls} do
    if core.backends[backend]:get_srv_act() > 0 then return end
    core.msleep({_POLL_MILLISECONDS})
  end
  txn:set_var("txn.in_vain", true)
end, 1)
"""


def _global(config: ProxyConfig) -> Sequence[str]:
    return (
        "global",
        f"stats socket {config.admin_socket} mode 600 level admin",
        "stats timeout 2m",
        f"server-state-file {config.state_file}",
        f"lua-load-per-thread {config.lua_file}",
        f"maxconn {2 * config.options.max_connections}",  # a request in the waiting room counts twice
        "no strict-limits",  # most clients are idle: fewer files will do than that for which each could need two
        f"nbthread {config.options.threads}",
        f"tune.bufsize {config.options.buffer_bytes}",
        # After a reload, by when the clients of the old process have had their answers and been silent long enough.
        f"hard-stop-after {_ms(config.options.answer_timeout + config.options.keep_alive_timeout)}",
        "ssl-default-bind-options ssl-min-ver TLSv1.2",
    )


def _defaults(options: ProxyOptions, errors: Sequence[str]) -> Sequence[str]:
    return (
        "defaults",
        "mode http",
        "load-server-state-from-file global",
        f"timeout client {_ms(options.answer_timeout)}",
        f"timeout server {_ms(options.answer_timeout)}",
        "timeout connect 2s",  # a dead process refuses at once; a full queue of a living one takes longer
        f"timeout queue {_ms(options.queue_timeout)}",
        f"timeout http-request {_ms(options.request_timeout)}",
        f"timeout http-keep-alive {_ms(options.keep_alive_timeout)}",
        *errors,
    )


def _public(config: ProxyConfig) -> Sequence[str]:
    certificate = config.options.certificate
    tls = f" ssl crt {certificate} alpn h2,http/1.1" if certificate else ""
    return (
        f"frontend {FRONTEND}",
        f"bind {config.bind}{tls}",
        f"maxconn {config.options.max_connections}",
        "option http-buffer-request",  # a slow body occupies this process, not a server
        "option idle-close-on-response",
        "http-request set-header x-forwarded-for %[src]",  # never believe what a client says of itself
        f"http-request set-header x-forwarded-proto {'https' if certificate else 'http'}",
        "http-request set-header x-forwarded-host %[req.hdr(host)]",
        f"default_backend {BACKEND}",
    )


def _metrics(config: ProxyConfig) -> Sequence[str]:
    return (
        "frontend metrics",
        f"bind {config.metrics_bind}",
        "http-request use-service prometheus-exporter if { path /metrics }",
        "stats enable",
        "stats uri /",
        "stats refresh 5s",
    )


def _wait(config: ProxyConfig) -> Sequence[str]:
    return (
        f"frontend {WAITING_ROOM}",
        f"bind unix@{config.waiting_room_of(BACKEND)} mode 600",
        f"maxconn {config.options.max_connections}",
        f"http-request lua.wait_for_server {BACKEND}",
        "http-request deny deny_status 503 if { var(txn.in_vain) -m bool }",
        f"default_backend {BACKEND}",
    )


def _backend(config: ProxyConfig, name: str) -> Sequence[str]:
    options = config.options
    servers = [upstream for upstream in config.upstreams if upstream.port_in(name)]
    return (
        f"backend {name}",
        *ALGORITHMS[options.policy],
        *((f"hash-balance-factor {round(options.hash_balance * 100)}",) if options.policy == "consistent_hash" else ()),
        "option httpchk",
        f"http-check send meth GET uri {READY_PATH} ver HTTP/1.1 hdr host noria",
        "http-check expect status 200",
        f"retries {options.retries}",
        "option redispatch 1",
        *([] if name == GRPC else _retries(config)),
        *(f"server {server_line(upstream, options, name)}{_held(upstream)}" for upstream in servers),
    )


def _retries(config: ProxyConfig) -> Sequence[str]:
    room = config.waiting_room_of(BACKEND)
    return (
        f"http-request disable-l7-retry unless {_may_run_twice(config.options)}",
        "retry-on conn-failure empty-response junk-response",
        f"server {WAITING_ROOM} unix@{room} id {_WAITING_ROOM_ID} backup no-check maxconn 0",
    )


def server_line(upstream: Upstream, options: ProxyOptions, backend: str = BACKEND) -> str:
    """What follows the word `server`, or the command `add server`: a server that was added later has no defaults."""
    words = [
        f"{upstream.name} {upstream.address_in(backend)} id {upstream.id} weight {upstream.weight}",
        # It is asked over HTTP how it is, in either backend.
        *([f"proto h2 check-proto h1 port {upstream.port}"] if backend == GRPC else []),
        f"check inter {_ms(options.health_interval)} downinter 100ms fall 2 rise 1",
        f"maxconn {options.max_requests_per_server} maxqueue {options.max_queue}",
        # A refused connection on loopback is known within microseconds: without this all retries would be spent on
        # a dead server before anybody can take it out. A living one is back after one health check.
        "observe layer4 error-limit 1 on-error mark-down",
        *([f"slowstart {_ms(options.slow_start)}"] if options.slow_start else []),
    ]
    return " ".join(words)


def _held(upstream: Upstream) -> str:
    """One that is drained is started in maintenance, too, for no word says it: the runtime socket tells it."""
    return "" if upstream.takes_new else " disabled"


def _may_run_twice(options: ProxyOptions) -> str:
    ends = " ".join(f"/{operation} :{operation}" for operation in options.retried)
    return f"METH_GET or METH_POST {{ path_end {ends} }}" if ends else "METH_GET"  # METH_GET stands for HEAD too
