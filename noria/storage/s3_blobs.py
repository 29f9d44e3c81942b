"""Blobs on S3: an object for each digest, and a folder on this machine for those that were read."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path

from noria.core import IntegrityError, NotFoundError, StorageError
from noria.storage import s3
from noria.storage.blobs import Blob, Stored
from noria.storage.file_blobs import FileBlobs, blocks_of

_MEND = "restore the object from a backup, or train and register the model again"
_KEY = re.compile(r"(?:.*/)?([0-9a-f]{2})/([0-9a-f]{62})", re.DOTALL)


class S3Blobs:
    """`BlobStore` under an `s3://` URL.

    Args:
        url: bucket and prefix.
        cache: a folder where `path` puts what it has verified.
    """

    def __init__(self, url: str, cache: Path) -> None:
        self._url = url.rstrip("/")
        s3.split(self._url)
        self._cache = FileBlobs(cache)

    def write(self, data: bytes | Path) -> Blob:
        if isinstance(data, Path):
            return self._write_file(data)
        digest = hashlib.sha256(data).hexdigest()
        s3.put(self._object(digest), data)
        return Blob(digest, len(data))

    def _write_file(self, file: Path) -> Blob:
        """Read it twice, for its name must be known before; what is sent is hashed again, and refused if it changed."""
        blob = _blob(blocks_of(file))

        def unchanged() -> Iterator[bytes]:
            sent = hashlib.sha256()
            for block in blocks_of(file):
                sent.update(block)
                yield bytes(block)
            if sent.hexdigest() != blob.digest:
                raise IntegrityError(f"{file} changed while it was stored", hint="try again when it is finished")

        s3.put_blocks(self._object(blob.digest), unchanged())
        return blob

    def read(self, digest: str) -> bytes:
        data = b"".join(self._blocks(digest))
        if hashlib.sha256(data).hexdigest() != digest:
            raise self._corrupt(digest)
        return data

    def path(self, digest: str) -> Path:
        try:
            if self._may_be_there(digest):
                return self._cache.path(digest)
        except (NotFoundError, IntegrityError):
            pass
        try:
            self._cache.write_blocks(self._blocks(digest), wanted=digest)
        except IntegrityError:
            raise self._corrupt(digest) from None
        return self._cache.path(digest)

    def stored(self) -> Iterator[Stored]:
        for one in s3.listing(f"{self._url}/**"):
            found = _KEY.fullmatch(one.url.removeprefix(f"{self._url}/"))
            if found:
                yield Stored(found[1] + found[2], one.size, one.written, one.url)
        yield from (one for one in self._cache.stored() if not one.digest)

    def remove(self, stored: Stored) -> bool:
        if not stored.digest:
            return self._cache.remove(stored)
        try:  # S3 has no way to do both at once: who writes it between these two requests would have to write it again
            if s3.info(stored.place).written > stored.written:
                return False
            s3.delete(stored.place)
        except NotFoundError:
            return False
        return True

    def _blocks(self, digest: str) -> Iterator[bytes]:
        try:
            yield from s3.blocks(self._object(digest))
        except NotFoundError as error:
            raise NotFoundError(f"there is no blob {digest} under {self._url}", hint=_MEND) from error

    def _corrupt(self, digest: str) -> IntegrityError:
        return IntegrityError(
            f"the blob {self._object(digest)} is corrupt: its bytes don't have the checksum that it was stored under",
            hint=_MEND,
        )

    def _may_be_there(self, digest: str) -> bool:
        """What is gone from the store is gone, also if it is still here; a store that is down keeps nobody from it."""
        try:
            return s3.exists(self._object(digest))
        except StorageError:
            return True

    def _object(self, digest: str) -> str:
        return f"{self._url}/{digest[:2]}/{digest[2:]}"


def _blob(blocks: Iterator[memoryview]) -> Blob:
    digest, size = hashlib.sha256(), 0
    for block in blocks:
        digest.update(block)
        size += len(block)
    return Blob(digest.hexdigest(), size)
