"""The part of HAProxy's configuration for gRPC: the same servers at their other ports, with the same promises.

* Each call is a request of HTTP/2, so it is balanced and retried by itself, however few connections a client has.
* All calls of the Open Inference Protocol change nothing and may run twice, except that a stream (`ModelStreamInfer`)
  is sent on as it comes: it can't be sent again, is on one server, and ends with it.
* HAProxy goes through itself: what clients reach repeats a call, and what is behind it holds the call until a server
  is ready, chooses one, and gives back a whole answer or none. In one place both would lose calls, for HAProxy 2.8 ends
  a client's stream when what it repeats meets a refused connection, and can't repeat what has begun to be answered:
  a server that is killed often has its last answer's beginning read and the rest thrown away.
* HAProxy's own errors are gRPC's, see `noria.gateway.proxy_errors`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from noria.gateway.proxy_errors import NO_SERVER
from noria.gateway.proxy_options import ProxyOptions
from noria.gateway.proxy_options import milliseconds as _ms

GRPC = "grpc"
"""The name of the backend with the servers."""
GRPC_FRONTEND = "public-grpc"
_AGAIN = "grpc-again"
_SERVICE = "/inference.GRPCInferenceService/"
_STREAM = f"{{ path {_SERVICE}ModelStreamInfer }}"


def frontend(bind: str, options: ProxyOptions) -> Sequence[str]:
    """Where clients come in; HTTP/2 only, with TLS where there is a certificate."""
    tls = f"ssl crt {options.certificate} alpn h2" if options.certificate else "proto h2"
    return (
        f"frontend {GRPC_FRONTEND}",
        f"bind {bind} {tls}",
        f"maxconn {options.max_connections}",
        # Only what is all there can be sent again; a stream must not wait for its end.
        f"http-request wait-for-body time {_ms(options.request_timeout)} unless {_STREAM}",
        # gRPC's own errors have a type and status 200, so these are HAProxy's.
        "http-after-response set-header content-type application/grpc unless { res.hdr(content-type) -m found }",
        "http-after-response set-status 200 unless { status 200 }",
        f"use_backend {GRPC} if {{ stopping }}",  # it listens no more, not even to itself
        f"default_backend {_AGAIN}",
    )


def again(name: str, socket: Path, options: ProxyOptions) -> Sequence[str]:
    """What repeats a call; `name` is what its one server, HAProxy itself, is called."""
    return (
        f"backend {_AGAIN}",
        f"http-request disable-l7-retry unless {{ path_beg {_SERVICE} }} !{_STREAM}",
        f"retries {options.retries}",
        "retry-on conn-failure empty-response junk-response 502 503",
        f"server {name} unix@{socket} proto h2 no-check maxconn 0",
    )


def waiting_room(socket: Path, options: ProxyOptions) -> Sequence[str]:
    """Where a call is held while no server is ready."""
    headers = f"hdr grpc-status {NO_SERVER[0]} hdr grpc-message '{NO_SERVER[1]}'"
    return (
        "frontend grpc-waiting-room",
        f"bind unix@{socket} mode 600 proto h2",
        f"maxconn {options.max_connections}",
        f"http-request lua.wait_for_server {GRPC}",
        # An error with status 503 would be repeated.
        f"http-request return status 200 {headers} if {{ var(txn.in_vain) -m bool }}",
        f"http-request set-var(txn.stream) bool(true) if {_STREAM}",
        f"http-response wait-for-body time {_ms(options.answer_timeout)} unless {{ var(txn.stream) -m bool }}",
        f"default_backend {GRPC}",
    )
