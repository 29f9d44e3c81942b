"""The configuration of HAProxy: a frozen description in, text out, nothing else.

Every choice below was made for servers that are restarted under load:

* A request whose server dies before it has answered is sent to another one (`retry-on`, `option redispatch`). That
  is right only for requests which may run twice, so anything but GET, HEAD and POST to one of the `retried`
  operations, which change nothing, is retried only if no server had accepted the connection.
* HAProxy can send a request again only while all of it is in the buffer: headers and body may have `buffer_bytes`
  together. A longer request passes through, but isn't retried once its server has accepted the connection.
* An answer is passed on as it comes. A server that sends head and body of a short answer in one write is never caught
  between the two; one that dies in the middle of an answer leaves its client with a part of it.
* When no server is ready, requests go to the *waiting room*, a backup server that is HAProxy itself: there a few
  lines of Lua hold each one until a server is back. Only after `queue_timeout` is it answered with 503.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from noria.core.errors import ConfigError
from noria.gateway.probe import READY_PATH

BACKEND = "replicas"
_POLL_MILLISECONDS = 20
_ERRORS = {
    400: ("Bad request", "the request isn't valid HTTP, or its headers are too long"),
    403: ("Forbidden", "the gateway refuses this request"),
    408: ("Request timeout", "the request took too long to arrive"),
    500: ("Internal error", "the gateway failed"),
    502: ("Bad gateway", "the server ended the connection before it had answered"),
    503: ("Service unavailable", "no server is ready; try again in a moment"),
    504: ("Gateway timeout", "the server took too long to answer"),
}


@dataclass(frozen=True)
class ProxyOptions:
    """What a user may want to change.

    Attributes:
        max_connections: connections from clients at a time; more wait until one is free.
        max_requests_per_server: requests at a time on one server; more wait for up to `queue_timeout`.
        threads: threads of HAProxy.
        buffer_bytes: the longest request, headers and body together, that can be retried; memory per active request.
        retried: the last parts of the paths whose POST requests may run twice.
        health_interval: seconds between two health checks of a server.
        queue_timeout: seconds that a request waits for a server before it is answered with 503.
        request_timeout: seconds that a client has to send a request (headers, and body up to the buffer).
        answer_timeout: seconds that a server has to answer.
        keep_alive_timeout: seconds that a client's idle connection stays open.
        drain_timeout: seconds that requests in flight have to finish when the gateway stops.
        certificate: a PEM file with certificate and key: HTTPS with HTTP/2. Without it the gateway speaks HTTP.
    """

    max_connections: int = 4096
    max_requests_per_server: int = 1024
    threads: int = min(4, os.cpu_count() or 1)
    buffer_bytes: int = 65_536
    retried: tuple[str, ...] = ("predict", "recommend", "features", "get-online-features")
    health_interval: float = 0.5
    queue_timeout: float = 10.0
    request_timeout: float = 10.0
    answer_timeout: float = 60.0
    keep_alive_timeout: float = 60.0
    drain_timeout: float = 10.0
    certificate: Path | None = None

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if isinstance(value, int | float) and value <= 0:
                raise ConfigError(f"{name} is {value}", hint="it must be positive", field=name)
        if not 16_384 <= self.buffer_bytes <= 4 << 20:
            raise ConfigError(
                f"buffer_bytes is {self.buffer_bytes}", hint="allowed: 16384 to 4194304", field="buffer_bytes"
            )
        for operation in self.retried:
            if not re.fullmatch(r"[A-Za-z0-9_.~-]+", operation):
                raise ConfigError(
                    f"{operation!r} is no part of a path", hint="write it without '/', as in 'predict'", field="retried"
                )
        if self.certificate is not None and not self.certificate.is_file():
            raise ConfigError(
                f"there is no file {str(self.certificate)!r}",
                hint="give a PEM file that holds the certificate and its key",
                field="certificate",
            )


@dataclass(frozen=True)
class Upstream:
    """A server behind the proxy; one that is not `ready` gets no requests until the runtime socket says so."""

    name: str
    host: str
    port: int
    ready: bool = False


@dataclass(frozen=True)
class ProxyConfig:
    """All that one HAProxy process needs to know.

    Attributes:
        bind: where clients come in, `host:port` or `fd@3`.
        metrics_bind: where its own Prometheus metrics are, the same way.
        directory: an absolute, short and private path for the sockets and the Lua file.
        upstreams: the servers.
        options: the rest.
    """

    bind: str
    metrics_bind: str
    directory: Path
    upstreams: tuple[Upstream, ...]
    options: ProxyOptions = ProxyOptions()

    @property
    def admin_socket(self) -> Path:
        """Where the running process takes commands."""
        return self.directory / "admin.sock"

    @property
    def waiting_room(self) -> Path:
        """The socket on which HAProxy is its own backup server."""
        return self.directory / "wait.sock"

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
    sections = (_global(config), _defaults(config.options), _public(config), _metrics(config), _wait(config))
    return "\n".join("\n  ".join(lines) + "\n" for lines in (*sections, _backend(config)))


def waiting_room_lua(options: ProxyOptions) -> str:
    """Lua that holds a request until a server is ready, or leaves a mark after `queue_timeout`."""
    polls = max(1, round(options.queue_timeout * 1000 / _POLL_MILLISECONDS))
    return f"""\
core.register_action("wait_for_server", {{"http-req"}}, function(txn)
  for _ = 1, {polls} do
    if core.backends["{BACKEND}"]:get_srv_act() > 0 then return end
    core.msleep({_POLL_MILLISECONDS})
  end
  txn:set_var("txn.in_vain", true)
end)
"""


def _global(config: ProxyConfig) -> Sequence[str]:
    return (
        "global",
        f"stats socket {config.admin_socket} mode 600 level admin",
        f"lua-load-per-thread {config.lua_file}",
        f"maxconn {2 * config.options.max_connections}",  # a request in the waiting room counts twice
        f"nbthread {config.options.threads}",
        f"tune.bufsize {config.options.buffer_bytes}",
        f"hard-stop-after {_ms(config.options.drain_timeout)}",
        "ssl-default-bind-options ssl-min-ver TLSv1.2",
    )


def _defaults(options: ProxyOptions) -> Sequence[str]:
    return (
        "defaults",
        "mode http",
        f"timeout client {_ms(options.answer_timeout)}",
        f"timeout server {_ms(options.answer_timeout)}",
        "timeout connect 2s",  # a dead process refuses at once; a full queue of a living one takes longer
        f"timeout queue {_ms(options.queue_timeout)}",
        f"timeout http-request {_ms(options.request_timeout)}",
        f"timeout http-keep-alive {_ms(options.keep_alive_timeout)}",
        *(_error(status, title, detail) for status, (title, detail) in _ERRORS.items()),
    )


def _error(status: int, title: str, detail: str) -> str:
    code = "unavailable" if status == 503 else title.lower().replace(" ", "-")
    problem = json.dumps({"type": f"urn:noria:{code}", "title": title, "status": status, "detail": detail})
    text = problem.replace("'", "\\u0027")
    retry = " hdr retry-after 1" if status == 503 else ""
    return f"http-error status {status} content-type application/problem+json string '{text}'{retry}"


def _public(config: ProxyConfig) -> Sequence[str]:
    certificate = config.options.certificate
    tls = f" ssl crt {certificate} alpn h2,http/1.1" if certificate else ""
    return (
        "frontend public",
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
        "frontend waiting-room",
        f"bind unix@{config.waiting_room} mode 600",
        f"maxconn {config.options.max_connections}",
        "http-request lua.wait_for_server",
        "http-request deny deny_status 503 if { var(txn.in_vain) -m bool }",
        f"default_backend {BACKEND}",
    )


def _backend(config: ProxyConfig) -> Sequence[str]:
    interval, limit = _ms(config.options.health_interval), config.options.max_requests_per_server
    return (
        f"backend {BACKEND}",
        "balance roundrobin",
        "option httpchk",
        f"http-check send meth GET uri {READY_PATH} ver HTTP/1.1 hdr host noria",
        "http-check expect status 200",
        f"http-request disable-l7-retry unless {_may_run_twice(config.options)}",
        "retries 10",
        "option redispatch 1",
        "retry-on conn-failure empty-response junk-response",
        f"default-server check inter {interval} downinter 100ms fall 2 rise 1 maxconn {limit}",
        # A refused connection on loopback is known within microseconds: without this all retries would be spent on
        # a dead server before anybody can take it out. A living one is back after one health check.
        "default-server observe layer4 error-limit 1 on-error mark-down",
        *(_server(upstream) for upstream in config.upstreams),
        f"server waiting-room unix@{config.waiting_room} backup no-check maxconn 0",
    )


def _may_run_twice(options: ProxyOptions) -> str:
    paths = " ".join(f"/{operation}" for operation in options.retried)
    return f"METH_GET or METH_POST {{ path_end {paths} }}" if paths else "METH_GET"  # METH_GET stands for HEAD too


def _server(upstream: Upstream) -> str:
    host = f"[{upstream.host}]" if ":" in upstream.host else upstream.host
    return f"server {upstream.name} {host}:{upstream.port}{'' if upstream.ready else ' disabled'}"


def _ms(seconds: float) -> str:
    return f"{max(1, round(seconds * 1000))}ms"
