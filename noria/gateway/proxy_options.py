"""What a user may want of HAProxy: limits, times, and how it chooses a server."""

from __future__ import annotations

import os
import re
import resource
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from noria.core.errors import ConfigError, allowed
from noria.gateway.outliers import OutlierLimits

ENTITY_HEADER = "x-entity-id"
"""Where a client names the entity of its request, for `consistent_hash`."""
ALGORITHMS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "round_robin": ("balance roundrobin",),
        "least_connections": ("balance leastconn",),
        "consistent_hash": (f"balance hdr({ENTITY_HEADER})", "hash-type consistent sdbm avalanche"),
    }
)
"""HAProxy's lines for each policy; the names are those of `noria.gateway.POLICIES`."""
_MAY_BE_ZERO = ("slow_start", "max_queue")


def default_connections(files: int) -> int:
    """How many clients may come at once where a process may open so many files.

    A connection is a file, and a running request is another one, to its server; a quarter of the files and 2,048 more
    are left for these.

    >>> [default_connections(n) for n in (1024, 4096, 20_000, 1 << 20)]
    [256, 1536, 13464, 16384]
    """
    return max(256, min(16_384, (files - 2048) * 3 // 4))


def milliseconds(seconds: float) -> str:
    """A time as HAProxy reads it; at least one millisecond, for 0 would mean none.

    >>> milliseconds(0.25), milliseconds(1e-9)
    ('250ms', '1ms')
    """
    return f"{max(1, round(seconds * 1000))}ms"


def _connections_here() -> int:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return default_connections(1 << 20 if hard == resource.RLIM_INFINITY else hard)


@dataclass(frozen=True)
class ProxyOptions:
    """What a user may want to change.

    Attributes:
        policy: how a server is chosen. `round_robin`: each in turn, by weight. `least_connections`: the one with the
            fewest requests in flight for its weight. `consistent_hash`: the same server for the same `X-Entity-Id`, as
            long as it is there, so that what it has cached is used; a request without that header goes round robin.
        hash_balance: with `consistent_hash`, how much more than its share a server may have in flight before its
            next request goes to another one (consistent hashing with bounded loads; Mirrokni et al., 2018).
        max_connections: connections from clients at a time; more wait until one is free. An idle one costs
            about 6 KB, one whose request is arriving or running up to two buffers.
        max_requests_per_server: requests at a time on one server; more wait for up to `queue_timeout`.
        max_queue: requests that may wait for one server before the next goes to another one; 0 for no limit.
        threads: threads of HAProxy.
        buffer_bytes: the longest request, headers and body together, that can be retried; memory per active request.
            HAProxy copies a whole buffer for each request that may be retried: a quarter of this saves it a fifth of
            its time, and a replica that dies then loses the requests above 16 KB.
        retried: the operations whose POST requests may run twice: the last part of the path (`/models/m/predict`), or
            what stands after its colon (`/v1/models/m:predict`).
        retries: how often a request is tried again.
        health_interval: seconds between two health checks of a server.
        slow_start: seconds over which a server that comes back gets its full share of the requests; 0: at once.
        outliers: when a server that answers, but wrongly, gets no requests for a while; None for never.
        queue_timeout: seconds that a request waits for a server before it is answered with 503.
        request_timeout: seconds that a client has to send a request (headers, and body up to the buffer).
        answer_timeout: seconds that a server has to answer.
        keep_alive_timeout: seconds that a client's idle connection stays open.
        drain_timeout: seconds that requests in flight have to finish when a server or the gateway stops.
        certificate: a PEM file with certificate and key: HTTPS with HTTP/2. Without it the gateway speaks HTTP.
    """

    policy: str = "round_robin"
    hash_balance: float = 1.5
    max_connections: int = _connections_here()
    max_requests_per_server: int = 1024
    max_queue: int = 0
    threads: int = min(4, os.cpu_count() or 1)
    buffer_bytes: int = 65_536
    retried: tuple[str, ...] = ("predict", "recommend", "features", "get-online-features", "infer", "invocations")
    retries: int = 10
    health_interval: float = 0.5
    slow_start: float = 0.0
    outliers: OutlierLimits | None = field(default_factory=OutlierLimits)
    queue_timeout: float = 10.0
    request_timeout: float = 10.0
    answer_timeout: float = 60.0
    keep_alive_timeout: float = 60.0
    drain_timeout: float = 10.0
    certificate: Path | None = None

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if isinstance(value, int | float) and (value < 0 or (value == 0 and name not in _MAY_BE_ZERO)):
                raise ConfigError(f"{name} is {value}", hint="it must be positive", field=name)
        self._check_ranges()
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

    def _check_ranges(self) -> None:
        if self.policy not in ALGORITHMS:
            raise ConfigError(f"unknown policy {self.policy!r}", hint=allowed(ALGORITHMS, self.policy), field="policy")
        if not 16_384 <= self.buffer_bytes <= 4 << 20:
            raise ConfigError(
                f"buffer_bytes is {self.buffer_bytes}", hint="allowed: 16384 to 4194304", field="buffer_bytes"
            )
        if not 1.0 <= self.hash_balance <= 100.0:
            raise ConfigError(f"hash_balance is {self.hash_balance}", hint="allowed: 1 to 100", field="hash_balance")
