"""Blobs on S3: an object for each digest, and a folder on this machine for those that were read."""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path

from noria.core import IntegrityError, NotFoundError
from noria.storage import s3
from noria.storage.blobs import Blob, FileBlobs


class S3Blobs:
    """`BlobStore` under an `s3://` URL.

    Args:
        url: bucket and prefix.
        cache: where `path` puts what it has verified; by default a folder in the machine's temporary folder.
    """

    def __init__(self, url: str, cache: Path | None = None) -> None:
        self._url = url.rstrip("/")
        s3.split(self._url)
        name = hashlib.sha256(self._url.encode()).hexdigest()[:16]
        self._cache = FileBlobs(cache or Path(tempfile.gettempdir()) / f"noria-blobs-{name}")

    def write(self, data: bytes) -> Blob:
        digest = hashlib.sha256(data).hexdigest()
        s3.put(self._object(digest), data)
        return Blob(digest, len(data))

    def read(self, digest: str) -> bytes:
        try:
            data = s3.get(self._object(digest))
        except NotFoundError as error:
            raise NotFoundError(
                f"there is no blob {digest} under {self._url}",
                hint="restore the object from a backup, or train and register the model again",
            ) from error
        if hashlib.sha256(data).hexdigest() != digest:
            raise IntegrityError(
                f"the blob {self._object(digest)} is corrupt: its bytes don't have the checksum of their name",
                hint="restore the object from a backup, or train and register the model again",
            )
        return data

    def path(self, digest: str) -> Path:
        try:
            if s3.exists(self._object(digest)):  # what is gone from the store is gone, also if it is still here
                return self._cache.path(digest)
        except (NotFoundError, IntegrityError):
            pass
        return self._cache.path(self._cache.write(self.read(digest)).digest)

    def _object(self, digest: str) -> str:
        return f"{self._url}/{digest[:2]}/{digest[2:]}"
