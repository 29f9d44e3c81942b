"""Collecting what no version refers to: files of registrations that were killed half way.

A version's files are written before its record. So files without a version are a registration in progress, or what a
killed one has left; age tells them apart. What is listed is listed before the records are read: a version that is
committed in between is known by then. Writing a file that is there already makes it new again, so what a registration
is about to refer to is never old.

**Backups.** Versions are never deleted and their files never change, so a copy of the records, and after it a copy of
the files, is whole whatever is collected meanwhile. Restore the files first and the records after them: restored files
are new, whatever times the backup has given them.
"""

from __future__ import annotations

from dataclasses import dataclass

from noria.core import Clock, ConflictError, SystemClock
from noria.registry.registry import ModelRegistry

DAY = 86_400_000_000
_BYTES = {"kept": "kept_bytes", "young": "young_bytes", "orphans": "orphan_bytes", "halves": "half_bytes"}


@dataclass(frozen=True)
class Collected:
    """What was found, and removed (or would be, on a dry run): how many files, and their bytes.

    Attributes:
        kept, kept_bytes: files of versions, each counted once.
        young, young_bytes: without a version, and too new to tell why.
        orphans, orphan_bytes: removed, for no version refers to them.
        halves, half_bytes: removed, for whoever wrote them was killed.
    """

    dry_run: bool
    kept: int = 0
    kept_bytes: int = 0
    young: int = 0
    young_bytes: int = 0
    orphans: int = 0
    orphan_bytes: int = 0
    halves: int = 0
    half_bytes: int = 0


def collect(
    registry: ModelRegistry,
    *,
    older_than: int = DAY,
    dry_run: bool = False,
    empty: bool = False,
    clock: Clock | None = None,
) -> Collected:
    """Remove the files that no version refers to and that nobody has written for a while.

    A blob store belongs to one registry: files of another one would be taken for orphans.

    Args:
        registry: whose blob store is looked through.
        older_than: microseconds; younger files may belong to a registration in progress.
        dry_run: only say what would be removed.
        empty: go on also if the registry has no version at all.
        clock: tells how old a file is; the machine's.

    Raises:
        ConflictError: the registry has no version: more likely it is the wrong one than that all files are orphans.
        IntegrityError: a version's record is damaged; nothing was removed.
        StorageError: a store can't be read or written.
    """
    before = (clock or SystemClock()).now() - older_than
    found = list(registry.blobs.stored())
    needed = registry.references()
    if found and not needed and not empty:
        raise ConflictError(
            f"the registry has no version, and its blob store has {len(found)} files: is it the right registry?",
            hint="compare storage.records and storage.blobs; if the files are of killed runs: noria models gc --empty",
        )
    counts: dict[str, int] = {}
    for stored in found:
        if stored.digest in needed:
            kind = "kept"
        elif stored.written > before:
            kind = "young"
        elif not dry_run and not registry.blobs.remove(stored):
            continue  # written again, or gone: by another who collects
        else:
            kind = "orphans" if stored.digest else "halves"
        counts[kind] = counts.get(kind, 0) + 1
        counts[_BYTES[kind]] = counts.get(_BYTES[kind], 0) + stored.size
    return Collected(dry_run, **counts)
