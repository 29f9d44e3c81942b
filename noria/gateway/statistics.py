"""What HAProxy counts of each server: the rows of its `show stat`."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class ServerStatistics:
    """One server, as HAProxy sees it.

    Attributes:
        name: `replica-0`, or `host:port` of a server elsewhere.
        address: `host:port`.
        state: `UP`, `DOWN`, `DRAIN` (no new requests), `MAINT` (taken out), or how far a check is (`UP 1/2`).
        weight: its part of the requests, relative to that of the others.
        sessions: requests in flight.
        queued: requests that wait for this server.
        requests: since HAProxy started.
        errors: connections that failed, and requests that got no whole answer.
        failures: answers with status 5xx, those that HAProxy had to give instead of the server included.
        retries: requests that were asked of it again.
        check: the last health check, as `L7OK 200`.
    """

    name: str
    address: str
    state: str
    weight: int
    sessions: int
    queued: int
    requests: int
    errors: int
    failures: int
    retries: int
    check: str


_COUNTS = ("sessions", "queued", "requests", "errors", "failures", "retries")


def parse(text: str) -> list[ServerStatistics]:
    r"""The rows of `show stat`, for servers and backends alike.

    >>> parse("# pxname,svname,qcur,scur,status,\nreplicas,replica-0,1,2,UP,\n")[0].queued
    1
    """
    rows = csv.DictReader(text.strip().removeprefix("# ").splitlines())
    return [_server(row) for row in rows]


def together(rows: Iterable[ServerStatistics]) -> list[ServerStatistics]:
    """One row for each name, from those of several backends: what is counted is added up, the rest is the first one's.

    >>> rows = parse("# svname,qcur,status,\\na,1,UP,\\nb,2,UP,\\na,3,DOWN,\\n")
    >>> [(row.name, row.queued, row.state) for row in together(rows)]
    [('a', 4, 'UP'), ('b', 2, 'UP')]
    """
    found: dict[str, ServerStatistics] = {}
    for row in rows:
        one = found.get(row.name)
        counts = {name: getattr(one, name) + getattr(row, name) for name in _COUNTS} if one else {}
        found[row.name] = replace(one or row, **counts)
    return list(found.values())


def _server(row: dict[str, str]) -> ServerStatistics:
    def count(*columns: str) -> int:
        return sum(int(row.get(column) or 0) for column in columns)

    return ServerStatistics(
        name=row["svname"],
        address=row.get("addr") or "",
        state=row.get("status") or "",
        weight=count("uweight"),
        sessions=count("scur"),
        queued=count("qcur"),
        requests=count("stot"),
        errors=count("econ", "eresp"),
        failures=count("hrsp_5xx"),
        retries=count("wretr"),
        check=" ".join(part for part in (row.get("check_status"), row.get("check_code")) if part),
    )
