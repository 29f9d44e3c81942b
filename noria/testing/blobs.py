"""What every blob store has to do."""

from __future__ import annotations

import hashlib

import pytest

from noria.core import NotFoundError
from noria.storage import BlobStore


class BlobStoreConformance:
    """Subclass it and return a new, empty store from `store`."""

    def store(self) -> BlobStore:
        """A new, empty store."""
        raise NotImplementedError

    @pytest.mark.parametrize("data", [b"", b"abc", bytes(range(256)) * 5000])
    def test_what_was_written_is_read_under_its_checksum(self, data: bytes) -> None:
        store = self.store()
        blob = store.write(data)
        assert (blob.digest, blob.size) == (hashlib.sha256(data).hexdigest(), len(data))
        assert store.read(blob.digest) == data
        assert store.path(blob.digest).read_bytes() == data
        assert store.write(data) == blob

    def test_what_was_not_written_is_not_found(self) -> None:
        with pytest.raises(NotFoundError, match="no blob"):
            self.store().read("0" * 64)
