"""What every blob store has to do."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path

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

    @pytest.mark.parametrize("size", [0, 3, (9 << 20) + 1])
    def test_a_file_is_copied(self, size: int, tmp_path: Path) -> None:
        store, file = self.store(), tmp_path / "file"
        file.write_bytes(bytes(range(256)) * (size // 256) + b"x" * (size % 256))
        before = file.read_bytes()
        blob = store.write(file)
        assert blob == store.write(before)
        file.write_bytes(b"something else")
        assert store.read(blob.digest) == before
        with pytest.raises(NotFoundError, match="there is no file"):
            store.write(tmp_path / "none")

    def test_what_is_stored_is_listed_and_removed(self) -> None:
        store = self.store()
        blobs = [store.write(data) for data in (b"", b"abc", b"abc" * 1000)]
        listed = {one.digest: one for one in store.stored()}
        assert {(digest, one.size) for digest, one in listed.items()} == {(blob.digest, blob.size) for blob in blobs}
        gone = listed[blobs[1].digest]
        assert store.remove(gone)
        assert not store.remove(gone)
        with pytest.raises(NotFoundError, match="no blob"):
            store.read(gone.digest)
        assert {one.digest for one in store.stored()} == {blobs[0].digest, blobs[2].digest}

    def test_what_was_written_again_since_it_was_listed_stays(self) -> None:
        store = self.store()
        blob = store.write(b"abc")
        (before,) = store.stored()
        time.sleep(1.1)  # S3 tells whole seconds
        store.write(b"abc")
        assert not store.remove(before)
        assert store.read(blob.digest) == b"abc"

    def test_what_was_not_written_is_not_found(self) -> None:
        with pytest.raises(NotFoundError, match="no blob"):
            self.store().read("0" * 64)
