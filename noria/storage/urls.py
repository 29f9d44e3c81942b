"""A URL chooses a store's backend.

Each part has a table from scheme to backend: a new backend is one file and one line here. A plain path means the
embedded default. Relative paths start at the project's folder; `sqlite:` URLs follow the usual database form, in
which `sqlite:///name.db` is relative and `sqlite:////var/name.db` is absolute.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from noria.core import ConfigError, allowed

if TYPE_CHECKING:
    from noria.storage.blobs import BlobStore
    from noria.storage.event_log import EventLog
    from noria.storage.online import OnlineStore
    from noria.storage.records import Records
    from noria.storage.tables import Table

T = TypeVar("T")

_ELSEWHERE = {
    "tables": ("s3",),
    "blobs": ("s3",),
    "online": ("redis", "rediss", "unix"),
    "records": ("postgresql",),
    "log": ("kafka",),
}
"""Schemes whose URLs name no path on this machine."""


def open_table(url: str, name: str, root: Path | str = ".") -> Table:
    """The table `name` in the table store at `url` (`file://`, `s3://`)."""
    if url.startswith("s3://"):
        from noria.storage.delta_tables import DeltaLakeTable
        from noria.storage.s3 import options

        return DeltaLakeTable(name, f"{url.rstrip('/')}/{name}", options())

    def delta(folder: Path) -> Table:
        from noria.storage.delta_tables import DeltaLakeTable

        return DeltaLakeTable(name, folder / name)

    return _open("tables", url, root, "file", {"file": delta})


def open_online(url: str, root: Path | str = ".", *, impatient: bool = False) -> OnlineStore:
    """The online store at `url` (`lmdb://`, `redis://`, `rediss://`, `unix://`).

    Args:
        url: where it is.
        root: where relative paths start.
        impatient: reads of a server that doesn't answer fail soon, and then at once until it answers.
    """
    if url.partition("://")[0] in ("redis", "rediss", "unix"):
        from noria.storage.impatient import ImpatientOnline
        from noria.storage.redis_online import IMPATIENT_SECONDS, RedisOnline

        return ImpatientOnline(RedisOnline(url, seconds=IMPATIENT_SECONDS)) if impatient else RedisOnline(url)

    def lmdb(folder: Path) -> OnlineStore:
        from noria.storage.lmdb_online import LmdbOnline

        return LmdbOnline(folder)

    return _open("online", url, root, "lmdb", {"lmdb": lmdb})


def open_records(url: str, root: Path | str = ".", *, make: bool = True) -> Records:
    """The records store at `url` (`sqlite://`, `postgresql://`); one that isn't there is made, or a `StorageError`."""
    if url.partition("://")[0] in ("postgresql", "postgres"):
        from noria.storage.postgresql_records import PostgresqlRecords

        return PostgresqlRecords(url, make=make)

    def sqlite(file: Path) -> Records:
        from noria.storage.sqlite_records import SqliteRecords

        return SqliteRecords(file, make=make)

    return _open("records", url, root, "sqlite", {"sqlite": sqlite})


def open_blobs(url: str, root: Path | str = ".") -> BlobStore:
    """The blob store at `url` (`file://`, `s3://`)."""
    if url.startswith("s3://"):
        from noria.storage.s3_blobs import S3Blobs

        return S3Blobs(url, Path(root) / ".noria" / "cache" / "blobs")

    def files(folder: Path) -> BlobStore:
        from noria.storage.file_blobs import FileBlobs

        return FileBlobs(folder)

    return _open("blobs", url, root, "file", {"file": files})


def open_log(url: str, root: Path | str = ".") -> EventLog:
    """The event log at `url` (`log://`, `kafka://`)."""

    def segments(folder: Path) -> EventLog:
        from noria.storage.segment_log import SegmentLog

        return SegmentLog(folder)

    if url.startswith("kafka://"):
        from noria.storage.kafka_log import KafkaLog

        return KafkaLog(url)
    return _open("log", url, root, "log", {"log": segments})


def _open(part: str, url: str, root: Path | str, default: str, backends: dict[str, Callable[[Path], T]]) -> T:
    scheme, separator, rest = url.partition("://")
    if not separator:
        scheme, rest = default, url
    if scheme not in backends:
        raise ConfigError(
            f"storage.{part} = {shown(url)!r}: there is no backend for {scheme}://",
            hint=allowed([f"{s}://" for s in (*backends, *_ELSEWHERE.get(part, ()))], f"{scheme}://"),
            field=f"storage.{part}",
        )
    if scheme == "sqlite" and separator:
        rest = rest.removeprefix("/")
    if not rest:
        raise ConfigError(f"storage.{part} = {shown(url)!r} names no path", field=f"storage.{part}")
    return backends[scheme](Path(root) / rest)


def shown(url: str) -> str:
    """The URL without what may be secret: a user with a password, and options.

    >>> shown("kafkas://me:p@ss@host:9092?sasl.password=x")
    'kafkas://***@host:9092?***'
    """
    return re.sub(r"(?s)(?<=\?).*", "***", re.sub(r"(?s)://.*@", "://***@", url))
