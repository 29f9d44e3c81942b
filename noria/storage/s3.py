"""Objects on S3 and what is compatible with it, by the usual `AWS_*` variables.

obstore is chosen over boto3 since it is one wheel of a few megabytes without dependencies, and the same Rust library
that Polars and Delta read objects with: an object is seen the same way by all of them.
"""

from __future__ import annotations

import io
import ipaddress
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, BinaryIO
from urllib.parse import urlsplit

from noria.core import ConfigError, ConflictError, MissingExtraError, NotFoundError, StorageError

BLOCK = 8 << 20
"""What one request asks for at most: so much passes within its time limit on a slow line, too."""

_VARIABLES = {
    "AWS_ENDPOINT_URL": "aws_endpoint_url",
    "AWS_ENDPOINT_URL_S3": "aws_endpoint_url",
    "AWS_DEFAULT_REGION": "aws_region",
    "AWS_REGION": "aws_region",
    "AWS_ACCESS_KEY_ID": "aws_access_key_id",
    "AWS_SECRET_ACCESS_KEY": "aws_secret_access_key",
    "AWS_SESSION_TOKEN": "aws_session_token",
}


@dataclass(frozen=True)
class ObjectInfo:
    """An object: its URL, its size in bytes, a version that changes with its content, and when it was written.

    The time is in microseconds since 1970, by the server's clock; most servers tell whole seconds.
    """

    url: str
    size: int
    version: str
    written: int


def options(environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """The settings as Polars and Delta understand them (`storage_options`).

    Raises:
        ConfigError: the endpoint is reached over plain HTTP, isn't on this machine, and AWS_ALLOW_HTTP isn't `true`.
    """
    environ = os.environ if environ is None else environ
    found = {key: environ[name] for name, key in _VARIABLES.items() if environ.get(name)}
    endpoint = found.get("aws_endpoint_url", "")
    if endpoint.lower().startswith("http://"):
        if not (_is_loopback(endpoint) or environ.get("AWS_ALLOW_HTTP", "").lower() in ("1", "true", "yes")):
            raise ConfigError(
                f"AWS_ENDPOINT_URL = {endpoint!r} would send data unencrypted over the network",
                hint="use https://, or set AWS_ALLOW_HTTP=true if that network is yours",
            )
        found["aws_allow_http"] = "true"
    found.setdefault("aws_region", "us-east-1")
    # Two writers of one Delta version: the server takes the first and refuses the other.
    found["aws_conditional_put"] = "etag"
    return found


def split(url: str) -> tuple[str, str]:
    """Bucket and key of an `s3://` URL."""
    bucket, _, key = url.removeprefix("s3://").partition("/")
    if not url.startswith("s3://") or not bucket:
        raise ConfigError(f"{url!r} names no bucket", hint="s3://BUCKET/PATH")
    return bucket, key


def put(url: str, data: bytes) -> None:
    """Write an object: the whole of it, or nothing."""
    bucket, key = split(url)
    with _errors(url):
        _library().put(_store(bucket), key, data)


def get(url: str) -> bytes:
    """An object's bytes.

    Raises:
        NotFoundError: there is none.
    """
    return b"".join(blocks(url))


def exists(url: str) -> bool:
    """Whether there is such an object."""
    try:
        info(url)
    except NotFoundError:
        return False
    return True


def put_blocks(url: str, blocks: Iterator[bytes]) -> None:
    """Write an object that comes in blocks: the whole of it, or nothing if the iterator raises."""
    bucket, key = split(url)
    with _errors(url):
        _library().put(_store(bucket), key, blocks)


def delete(url: str) -> None:
    """Delete an object, if there is one."""
    bucket, key = split(url)
    with _errors(url):
        _library().delete(_store(bucket), key)


def info(url: str) -> ObjectInfo:
    """What is known of an object.

    Raises:
        NotFoundError: there is none.
    """
    bucket, key = split(url)
    with _errors(url):
        return _info(bucket, _library().head(_store(bucket), key))


def listing(pattern: str, environ: Mapping[str, str] | None = None) -> list[ObjectInfo]:
    """The objects that an `s3://` URL with `*`, `?`, `[…]` and `**` names, in order.

    Raises:
        NotFoundError: the URL has no such sign, and there is no such object.
    """
    bucket, key = split(pattern)
    fixed = re.split(r"[*?\[]", key, maxsplit=1)[0]
    matches = _expression(key)
    with _errors(pattern):
        store = _store(bucket, environ)
        if fixed == key:
            found = [_library().head(store, key)]
        else:
            found = [one for page in _library().list(store, fixed.rpartition("/")[0] or None) for one in page]
    return sorted(
        (_info(bucket, one) for one in found if fixed == key or matches.fullmatch(one["path"])),
        key=lambda one: one.url,
    )


def read_range(url: str, start: int, length: int) -> bytes:
    """Some of an object's bytes; fewer where it ends."""
    return _read(url, start, length)[0]


def blocks(url: str, size: int = BLOCK) -> Iterator[bytes]:
    """An object's bytes, `size` at a time, all of one version of it.

    Raises:
        NotFoundError: there is no such object.
        ConflictError: it was replaced while it was read.
    """
    bucket, key = split(url)
    with _errors(url):
        whole = _library().get(_store(bucket), key)
        total, tag = int(whole.meta["size"]), whole.meta.get("e_tag")
        small = bytes(whole.bytes()) if total <= size else None
        del whole  # lets go of the connection
    if small is not None:
        yield small
        return
    for start in range(0, total, size):
        yield _read(url, start, min(size, total - start), tag)[0]


def open_object(url: str, size: int) -> BinaryIO:
    """An object of that size as a file that is read in blocks, forwards mostly; all of one version of it."""
    return io.BufferedReader(_Object(url, size), BLOCK)


class _Object(io.RawIOBase):
    """Reads ranges; what is behind the place that is read isn't kept."""

    def __init__(self, url: str, size: int) -> None:
        self._url = url
        self._size = size
        self._tag: str | None = None
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        self._at = start + offset
        return self._at

    def readinto(self, buffer: Any) -> int:
        length = min(len(buffer), self._size - self._at)
        if length <= 0:
            return 0
        data, meta = _read(self._url, self._at, length, self._tag)
        if meta["size"] != self._size:
            raise _changed(self._url)
        self._tag = meta.get("e_tag")
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)


def _read(url: str, start: int, length: int, tag: str | None = None) -> tuple[bytes, Any]:
    """A range, and what is known of the object; if a tag is given, only of the version that has it."""
    bucket, key = split(url)
    wanted: Any = {"range": (start, start + length)}
    if tag:
        wanted["if_match"] = tag
    with _errors(url):
        found = _library().get(_store(bucket), key, options=wanted)
        return bytes(found.bytes()), found.meta


def _info(bucket: str, meta: Any) -> ObjectInfo:
    written = meta["last_modified"]
    version = str(meta.get("e_tag") or written)
    url = f"s3://{bucket}/{meta['path']}"
    return ObjectInfo(url, int(meta["size"]), version, int(written.timestamp() * 1_000_000))


def _expression(key: str) -> re.Pattern[str]:
    """A pattern as of a shell, in which `*` and `?` don't cross a `/` and `**` does."""
    signs = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    parts = re.split(r"(\*\*/|\*\*|\*|\?|\[!?\]?[^\]]*\])", key)
    made = [signs.get(part) or (_one_of(part) if part.startswith("[") else re.escape(part)) for part in parts]
    try:
        return re.compile("".join(made), re.DOTALL)
    except re.error as error:
        raise ConfigError(f"{key!r} is no pattern: {error}", hint="signs are *, ?, [abc], [!abc] and **/") from error


def _one_of(part: str) -> str:
    if not part.endswith("]"):
        return re.escape(part)
    inner = part[1:-1].removeprefix("!").replace("\\", r"\\").replace("[", r"\[").replace("]", r"\]")
    return f"[{'^' if part.startswith('[!') else ''}{inner.replace('^', chr(92) + '^')}]"


def _is_loopback(endpoint: str) -> bool:
    host = urlsplit(endpoint).hostname or ""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


@lru_cache(maxsize=16)
def _made(bucket: str, settings: tuple[tuple[str, str], ...]) -> Any:
    from obstore.store import S3Store

    config: Any = dict(settings)
    client: Any = {"timeout": "30s", "connect_timeout": "5s"}
    if config.pop("aws_allow_http", ""):
        client["allow_http"] = True
    return S3Store(
        bucket,
        config=config,
        client_options=client,
        retry_config={"max_retries": 3},
        virtual_hosted_style_request=False,
    )


def _store(bucket: str, environ: Mapping[str, str] | None = None) -> Any:
    _library()
    return _made(bucket, tuple(sorted(options(environ).items())))


def _library() -> Any:
    try:
        import obstore
    except ImportError as error:
        raise MissingExtraError("obstore", "s3", "an s3:// URL") from error
    return obstore


@contextmanager
def _errors(url: str) -> Iterator[None]:
    """Turns the library's errors into ours."""
    try:
        yield
    except FileNotFoundError as error:
        raise NotFoundError(f"there is no object {url}") from error
    except Exception as error:
        if type(error).__name__ == "PreconditionError":
            raise _changed(url) from error
        if not (type(error).__module__.startswith("obstore") or isinstance(error, (OSError, ValueError))):
            raise
        raise StorageError(
            f"{url} can't be reached: {str(error).strip().partition(chr(10))[0][:300]}",
            hint="check AWS_ENDPOINT_URL, AWS_REGION and the keys (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY)",
        ) from error


def _changed(url: str) -> ConflictError:
    return ConflictError(f"{url} was replaced while it was read", hint="read it again")
