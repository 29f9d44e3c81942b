"""The history of materializations: of which instant a group's online values were at a time, and of which rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from noria.storage import Put
from noria.storage.records import Records

_COLLECTION = "materializations"
_KEPT = 1000


@dataclass(frozen=True)
class Note:
    """One materialization.

    Attributes:
        at: when it was done, microseconds; its values were written shortly before.
        as_of: the instant of its values.
        versions: the source table's version when it began, and when it was done: what it read is one of those from the
            first to the last. None where it read a frame.
    """

    at: int
    as_of: int
    versions: tuple[int, int] | None


def noted(records: Records, place: str, note: Note) -> Put:
    """The change that keeps a note; the oldest goes when there are a thousand.

    What changes nothing (of the same rows, as of the same instant) isn't noted again.
    """
    record = records.get(_COLLECTION, place)
    notes = list(record.data["notes"]) if record is not None else []
    first, last = note.versions or (None, None)
    if not notes or notes[-1][1:] != [note.as_of, first, last]:
        notes.append([note.at, note.as_of, first, last])
    return Put(_COLLECTION, place, {"notes": notes[-_KEPT:]})


def notes_of(records: Records, place: str) -> list[Note]:
    """What is known of a place's materializations, the oldest first."""
    record = records.get(_COLLECTION, place)
    kept = record.data["notes"] if record is not None else []
    return [Note(at, as_of, None if first is None else (first, last)) for at, as_of, first, last in kept]


def around(notes: Sequence[Note], since: int, until: int) -> tuple[Note | None, list[Note]]:
    """Whose values may have been read in a span of time: the materialization in force, those noted within, and the one
    after them, whose values may have been there already."""
    before = [note for note in notes if note.at < since]
    after = [note for note in notes if note.at > until]
    return (before[-1] if before else None), list(notes[len(before) : len(notes) - len(after)]) + after[:1]
