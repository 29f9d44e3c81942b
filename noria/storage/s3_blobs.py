"""Blobs on S3: an object for each digest, and a folder on this machine for those that were read."""

from __future__ import annotations

import hashlib
from pathlib import Path

from noria.core import IntegrityError, NotFoundError, StorageError
from noria.storage import s3
from noria.storage.blobs import Blob, FileBlobs


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

    def write(self, data: bytes) -> Blob:
        digest = hashlib.sha256(data).hexdigest()
        s3.put(self._object(digest), data)
        return Blob(digest, len(data))

    def read(self, digest: str) -> bytes:
        hint = "restore the object from a backup, or train and register the model again"
        target = self._object(digest)
        try:
            data = s3.get(target)
        except NotFoundError as error:
            raise NotFoundError(f"there is no blob {digest} under {self._url}", hint=hint) from error
        if hashlib.sha256(data).hexdigest() != digest:
            raise IntegrityError(
                f"the blob {target} is corrupt: its bytes don't have the checksum that it was stored under", hint=hint
            )
        return data

    def path(self, digest: str) -> Path:
        try:
            if self._may_be_there(digest):
                return self._cache.path(digest)
        except (NotFoundError, IntegrityError):
            pass
        return self._cache.path(self._cache.write(self.read(digest)).digest)

    def _may_be_there(self, digest: str) -> bool:
        """What is gone from the store is gone, also if it is still here; a store that is down keeps nobody from it."""
        try:
            return s3.exists(self._object(digest))
        except StorageError:
            return True

    def _object(self, digest: str) -> str:
        return f"{self._url}/{digest[:2]}/{digest[2:]}"
