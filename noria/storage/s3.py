"""Objects on S3 and what is compatible with it, by the usual `AWS_*` variables.

obstore is chosen over boto3 since it is one 4 MB wheel without dependencies and the same Rust library that Polars and
Delta read objects with: an object is seen the same way by all of them.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, BinaryIO

from noria.core import ConfigError, MissingExtraError, NotFoundError, StorageError

_VARIABLES = {
    "AWS_ENDPOINT_URL": "aws_endpoint_url",
    "AWS_ENDPOINT_URL_S3": "aws_endpoint_url",
    "AWS_DEFAULT_REGION": "aws_region",
    "AWS_REGION": "aws_region",
    "AWS_ACCESS_KEY_ID": "aws_access_key_id",
    "AWS_SECRET_ACCESS_KEY": "aws_secret_access_key",
    "AWS_SESSION_TOKEN": "aws_session_token",
}
_READ_AHEAD = 8 << 20


@dataclass(frozen=True)
class ObjectInfo:
    """An object: its URL, its size in bytes, and a version that changes with its content."""

    url: str
    size: int
    version: str


def options(environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """The settings as Polars and Delta understand them (`storage_options`)."""
    environ = os.environ if environ is None else environ
    found = {key: environ[name] for name, key in _VARIABLES.items() if environ.get(name)}
    if found.get("aws_endpoint_url", "").startswith("http://"):
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
    bucket, key = split(url)
    with _errors(url):
        return bytes(_library().get(_store(bucket), key).bytes())


def exists(url: str) -> bool:
    """Whether there is such an object."""
    bucket, key = split(url)
    try:
        with _errors(url):
            _library().head(_store(bucket), key)
    except NotFoundError:
        return False
    return True


def listing(pattern: str, environ: Mapping[str, str] | None = None) -> list[ObjectInfo]:
    """The objects that an `s3://` URL with `*`, `?`, `[…]` and `**` names, in order."""
    bucket, key = split(pattern)
    fixed = re.split(r"[*?\[]", key, maxsplit=1)[0]
    prefix = fixed if fixed == key else fixed.rpartition("/")[0]
    matches = re.compile(_regex(key))
    with _errors(pattern):
        if fixed == key:
            found = [_library().head(_store(bucket), key)]
        else:
            found = [one for page in _library().list(_store(bucket), prefix or None) for one in page]
    return sorted(
        (
            ObjectInfo(f"s3://{bucket}/{one['path']}", int(one["size"]), str(one.get("e_tag") or one["last_modified"]))
            for one in found
            if matches.fullmatch(one["path"])
        ),
        key=lambda one: one.url,
    )


def open_object(url: str, size: int) -> BinaryIO:
    """An object as a file that is read in blocks, forwards mostly."""
    return io.BufferedReader(_Object(url, size), _READ_AHEAD)


class _Object(io.RawIOBase):
    """Reads ranges; what is behind the place that is read isn't kept."""

    def __init__(self, url: str, size: int) -> None:
        self._url = url
        self._size = size
        self._bucket, self._key = split(url)
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
        with _errors(self._url):
            data = bytes(_library().get_range(_store(self._bucket), self._key, start=self._at, length=length))
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)


def _regex(key: str) -> str:
    """A pattern as of a shell, in which `*` and `?` don't cross a `/` and `**` does."""
    signs = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    parts = re.split(r"(\*\*/|\*\*|\*|\?|\[[^\]]+\])", key)
    return "".join(signs.get(part) or (part if part.startswith("[") else re.escape(part)) for part in parts)


@lru_cache(maxsize=16)
def _made(bucket: str, given: tuple[tuple[str, str], ...]) -> Any:
    config = dict(given)
    client = {"allow_http": True} if config.pop("aws_allow_http", "") else {}
    from obstore.store import S3Store

    plain = {key.removeprefix("aws_"): value for key, value in config.items() if key != "aws_conditional_put"}
    plain["endpoint"] = plain.pop("endpoint_url", "")
    settings: Any = {key: value for key, value in plain.items() if value}
    options: Any = {**client, "timeout": "30s", "connect_timeout": "5s"}
    return S3Store(
        bucket,
        config=settings,
        client_options=options,
        retry_config={"max_retries": 3},
        virtual_hosted_style_request=False,
    )


def _store(bucket: str) -> Any:
    _library()
    return _made(bucket, tuple(sorted(options().items())))


def _library() -> Any:
    try:
        import obstore
    except ImportError as error:
        raise MissingExtraError("obstore", "s3", "an s3:// URL") from error
    return obstore


class _errors:  # noqa: N801 - used as a `with` word
    """Turns the library's errors into ours."""

    def __init__(self, url: str) -> None:
        self._url = url

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        ours = error is not None and (kind.__module__.startswith("obstore") or isinstance(error, (OSError, ValueError)))
        if not ours:
            return
        if isinstance(error, FileNotFoundError) or kind.__name__ == "NotFoundError":
            raise NotFoundError(f"there is no object {self._url}") from error
        first = str(error).strip().partition("\n")[0][:300]
        raise StorageError(
            f"{self._url} can't be reached: {first}",
            hint="check AWS_ENDPOINT_URL, AWS_REGION and the keys (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY)",
        ) from error
