"""Blobs in a folder: one file per blob, in 256 sub-folders."""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeAlias

from noria.core import IntegrityError, NotFoundError, StorageError
from noria.storage.blobs import BLOCK, Blob, Stored

Buffer: TypeAlias = bytes | memoryview

_WRITING = ".writing-"
_REMOVING = ".removing-"
_FOLDER = re.compile(r"[0-9a-f]{2}")
_REST = re.compile(r"[0-9a-f]{62}")


class FileBlobs:
    """`BlobStore` in a folder."""

    def __init__(self, folder: Path | str) -> None:
        self._folder = Path(folder)

    def write(self, data: bytes | Path) -> Blob:
        if isinstance(data, Path):
            return self.write_blocks(blocks_of(data))
        digest = hashlib.sha256(data).hexdigest()
        if self._renewed(digest):
            return Blob(digest, len(data))
        whole = memoryview(data)
        return self.write_blocks(whole[at : at + BLOCK] for at in range(0, len(data), BLOCK))

    def write_blocks(self, blocks: Iterable[Buffer], wanted: str | None = None) -> Blob:
        """Store what comes in blocks; if a digest is `wanted` and they have another one, store nothing.

        Raises:
            IntegrityError: they don't have the digest.
        """
        with self._errors():
            self._folder.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(dir=self._folder, prefix=_WRITING)
        try:
            with self._errors(), os.fdopen(handle, "wb") as stream:
                blob = _copied(blocks, stream)
                if wanted not in (None, blob.digest):
                    raise IntegrityError(f"what was read has the checksum {blob.digest}, not {wanted}")
                if self._renewed(blob.digest):
                    return blob
                os.fsync(stream.fileno())
            with self._errors():
                self._put_in_place(Path(name), self._file(blob.digest))
            return blob
        finally:
            Path(name).unlink(missing_ok=True)

    def read(self, digest: str) -> bytes:
        return self.path(digest).read_bytes()

    def path(self, digest: str) -> Path:
        target = self._file(digest)
        try:
            found = _digest(target)
        except FileNotFoundError:
            raise NotFoundError(f"there is no blob {digest} in {self._folder}") from None
        except OSError as error:  # such as a sector that can't be read
            raise IntegrityError(f"the blob {target} can't be read: {error}", hint=_MEND) from error
        if found != digest:
            raise IntegrityError(
                f"the blob {target} is corrupt: its bytes don't have the checksum that it was stored under", hint=_MEND
            )
        return target

    def stored(self) -> Iterator[Stored]:
        for entry in _entries(self._folder):
            if entry.name.startswith((_WRITING, _REMOVING)):
                yield from _listed(entry, "")
            elif _FOLDER.fullmatch(entry.name) and entry.is_dir():
                for file in _entries(Path(entry.path)):
                    if file.name.startswith((_WRITING, _REMOVING)):
                        yield from _listed(file, "")
                    elif _REST.fullmatch(file.name):
                        yield from _listed(file, entry.name + file.name)

    def remove(self, stored: Stored) -> bool:
        file = Path(stored.place)
        aside = file.with_name(f"{_REMOVING}{file.name.removeprefix(_REMOVING)}")
        with self._errors("remove"):
            try:
                if _written(file.stat()) != stored.written:
                    return False  # also where a clock that was put back makes what is newer look older
                file.replace(aside)
            except FileNotFoundError:
                return False
            # Looked at again now that no writer can find it: one that did before has renewed it, and needs it.
            if aside.stat().st_mtime_ns // 1000 > stored.written:
                aside.replace(file)
                return False
            aside.unlink()
        return True

    def _renewed(self, digest: str) -> bool:
        """Whether the blob is there and whole; it then counts as written now, and isn't taken for an old one."""
        target = self._file(digest)
        try:
            if _digest(target) != digest:
                return False
            os.utime(target)
        except FileNotFoundError:
            return False
        except OSError as error:
            raise _cant("write", self._folder, error) from error
        return True

    def _put_in_place(self, half: Path, target: Path) -> None:
        """A reader sees the whole file or none: written aside and flushed, it is renamed, and the folders flushed."""
        made = not target.parent.exists()
        target.parent.mkdir(exist_ok=True)
        half.chmod(0o444)
        half.replace(target)
        _flush(target.parent)
        if made:
            _flush(self._folder)

    def _file(self, digest: str) -> Path:
        return self._folder / digest[:2] / digest[2:]

    @contextmanager
    def _errors(self, what: str = "write") -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise _cant(what, self._folder, error) from error


def blocks_of(file: Path) -> Iterator[memoryview]:
    """A file's bytes, one block after the other; each is good until the next one is asked for.

    Raises:
        NotFoundError: there is no such file.
        StorageError: it can't be read.
    """
    try:
        block = memoryview(bytearray(BLOCK))
        with file.open("rb", buffering=0) as stream:
            while size := stream.readinto(block):
                yield block[:size]
    except FileNotFoundError:
        raise NotFoundError(f"there is no file {file}", hint="was it written, and is the path right?") from None
    except OSError as error:
        raise StorageError(f"{file} can't be read: {error}", hint="is it a file that you may read?") from error


_MEND = "restore the file from a backup, or train and register the model again"


def _copied(blocks: Iterable[Buffer], stream: Any) -> Blob:
    """Write the blocks; what is written is what is hashed, whatever becomes of where it came from.

    In one thread: a second one that hashes made it take up to twice as long where the cores are busy.
    """
    digest, size = hashlib.sha256(), 0
    for block in blocks:
        digest.update(block)
        stream.write(block)
        # The kernel begins to write it out while the next block is hashed; being dirty, its pages stay in memory.
        with suppress(OSError):  # it is advice
            os.posix_fadvise(stream.fileno(), size, len(block), os.POSIX_FADV_DONTNEED)
        size += len(block)
    stream.flush()
    return Blob(digest.hexdigest(), size)


def _digest(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _flush(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _entries(folder: Path) -> Iterator[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as found:
            yield from found
    except FileNotFoundError:
        return


def _listed(entry: os.DirEntry[str], digest: str) -> Iterator[Stored]:
    try:
        found = entry.stat(follow_symlinks=False)
    except FileNotFoundError:  # renamed or removed since the folder was read
        return
    yield Stored(digest, found.st_size, _written(found), entry.path)


def _written(found: os.stat_result) -> int:
    """What a backup has restored with its old times is new all the same: one of the two times is the kernel's own."""
    return max(found.st_mtime_ns, found.st_ctime_ns) // 1000


def _cant(what: str, folder: Path, error: OSError) -> StorageError:
    return StorageError(
        f"can't {what} a blob in {folder}: {error}", hint="check that the folder is writable and the disk isn't full"
    )
