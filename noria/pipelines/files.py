"""Files and objects that a path names, and how it is told whether one has changed."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec

from noria.core import DataError, Settings
from noria.pipelines.csv_records import header_may_change
from noria.pipelines.extract import Input

TEXT = {".csv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl"}
FORMATS = (*(f"{form}{packed}" for form in TEXT for packed in ("", ".gz", ".zst")), ".parquet")
_BLOCK = 1 << 20
_PART = 32 << 20


def kind_of(path: str) -> str | None:
    """`csv`, `jsonl` or `parquet`, by the path's end; None for others."""
    name = path.lower()
    if name.endswith(".parquet"):
        return "parquet"
    bare = name.removesuffix(".gz").removesuffix(".zst")
    return next((kind for end, kind in TEXT.items() if bare.endswith(end)), None)


def find_files(path: str, settings: Settings) -> list[Input]:
    """The files that a path with `*`, `?`, `[…]` and `**` names now, in order, each with its content's digest.

    Hidden ones are left out.
    """
    pattern = settings.root / path
    found = [pattern] if pattern.is_file() else []
    if not found and any(sign in path for sign in "*?["):
        # From the root, not through it: its own name may have brackets in it.
        absolute = Path(path).is_absolute()
        start = Path(pattern.anchor) if absolute else settings.root
        matched = start.glob(str(pattern.relative_to(pattern.anchor)) if absolute else path)
        found = sorted(file for file in matched if file.is_file() and not file.name.startswith("."))
    digests = _Digests(settings.state_dir / "digests.json")
    inputs = [_input(file, path, settings, digests) for file in found]
    digests.save()
    return inputs


def find_objects(url: str) -> list[Input]:
    """The same for an `s3://` URL."""
    from noria.storage.s3 import listing

    kind = kind_of(url) or ""
    return [Input(item.url, kind, item.url, item.size, item.version) for item in listing(url, os.environ)]


def _input(file: Path, path: str, settings: Settings, digests: _Digests) -> Input:
    name = str(file.relative_to(settings.root) if file.is_relative_to(settings.root) else file)
    try:
        size, digest = digests.of(file)
        return Input(name, kind_of(path) or "", str(file), size, digest)
    except OSError as error:
        raise DataError(f"{file} can't be read: {error}") from error


def has_grown(item: Input, seen: dict[str, Any]) -> bool:
    """Whether a file is what it was and more after it, so that only the rest has to be read."""
    plain = item.location.lower().endswith(tuple(TEXT)) and "://" not in item.location
    if not plain or item.size <= seen["size"] or not seen["size"] or seen.get("open"):
        return False
    with Path(item.location).open("rb") as stream:
        if item.kind == "csv" and header_may_change(stream):
            return False
        stream.seek(seen["size"] - 1)
        return stream.read(1) == b"\n" and _digest(Path(item.location), seen["size"]) == seen["identity"]


class _Digests:
    """Digests of files, kept by size and time of change: a large file isn't read to learn that it is the same."""

    def __init__(self, file: Path) -> None:
        self._file = file
        try:
            self._known: dict[str, Any] = msgspec.json.decode(file.read_bytes())
        except (OSError, msgspec.DecodeError):
            self._known = {}
        self._new = False

    def of(self, file: Path) -> tuple[int, str]:
        """The size, and the digest of just as many bytes: a file may grow in between."""
        about = file.stat()
        state = [about.st_size, about.st_mtime_ns, about.st_ino]
        known = self._known.get(str(file))
        if about.st_size < _BLOCK or known is None or known[0] != state:
            known = [state, _digest(file, about.st_size)]
            # A file that was changed this very moment could change again unseen: its digest is not kept.
            if about.st_size >= _BLOCK and time.time_ns() - about.st_mtime_ns > 2_000_000_000:
                self._known[str(file)] = known
                self._new = True
        digest: str = known[1]
        return about.st_size, digest

    def save(self) -> None:
        """Keep what is new; two that save at once lose nothing but time."""
        if self._new:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            aside = self._file.with_name(f"digests.{os.getpid()}.{threading.get_ident()}")
            aside.write_bytes(msgspec.json.encode(self._known))
            aside.replace(self._file)


def _digest(file: Path, size: int) -> str:
    """SHA-256 of the SHA-256 of each part, so that several cores can share a large file."""
    starts = range(0, max(size, 1), _PART)
    if len(starts) == 1:
        parts = [_digest_part(file, 0, size)]
    else:
        with ThreadPoolExecutor(min(4, len(os.sched_getaffinity(0))), "noria-digest") as pool:
            parts = list(pool.map(lambda start: _digest_part(file, start, min(_PART, size - start)), starts))
    return hashlib.sha256(b"".join(parts)).hexdigest()


def _digest_part(file: Path, start: int, size: int) -> bytes:
    digest = hashlib.sha256()
    with file.open("rb", buffering=0) as stream:
        stream.seek(start)
        while size > 0 and (data := stream.read(min(size, _BLOCK))):
            digest.update(data)
            size -= len(data)
    return digest.digest()
