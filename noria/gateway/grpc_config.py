"""The part of HAProxy's configuration for gRPC: the same servers at their other ports, with the same promises.

* Each call is a request of HTTP/2, so it is balanced and retried by itself, however few connections a client has.
* All calls of the Open Inference Protocol change nothing and may run twice, except that a stream (`ModelStreamInfer`)
  is sent on as it comes: it can't be sent again, is on one server, and ends with it.
* HAProxy's own errors are gRPC's, see `noria.gateway.proxy_errors`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from noria.gateway.proxy_options import ProxyOptions, milliseconds

GRPC = "grpc"
"""The name of the backend."""
GRPC_FRONTEND = "public-grpc"
_SERVICE = "/inference.GRPCInferenceService/"
_STREAM = f"{{ path {_SERVICE}ModelStreamInfer }}"
MAY_RUN_TWICE = f"{{ path_beg {_SERVICE} }} !{_STREAM}"
"""HAProxy's condition."""


def frontend(bind: str, options: ProxyOptions) -> Sequence[str]:
    """Where clients come in; HTTP/2 only, with TLS where there is a certificate."""
    tls = f"ssl crt {options.certificate} alpn h2" if options.certificate else "proto h2"
    return (f"frontend {GRPC_FRONTEND}", f"bind {bind} {tls}", *_calls(options), f"default_backend {GRPC}")


def waiting_room(socket: Path, options: ProxyOptions) -> Sequence[str]:
    """Where calls are held while no server is ready."""
    return (
        f"frontend {GRPC}-waiting-room",
        f"bind unix@{socket} mode 600 proto h2",
        *_calls(options),
        f"http-request lua.wait_for_server {GRPC}",
        "http-request deny deny_status 503 if { var(txn.in_vain) -m bool }",
        f"default_backend {GRPC}",
    )


def _calls(options: ProxyOptions) -> Sequence[str]:
    return (
        f"maxconn {options.max_connections}",
        # Only what is all there can be sent again; a stream must not wait for its end.
        f"http-request wait-for-body time {milliseconds(options.request_timeout)} unless {_STREAM}",
        # gRPC's own errors have status 200, so these are HAProxy's.
        "http-after-response set-header content-type application/grpc unless { status 200 }",
        "http-after-response set-status 200 unless { status 200 }",
    )
