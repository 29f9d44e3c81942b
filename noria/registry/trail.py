"""The audit trail: who did what to which model, when and why. Entries are added, never changed and never removed.

The entries of a model are a chain: each is numbered and keeps a SHA-256 of itself and of the one before, and the last
number and digest stand in a record of their own. So an entry that was changed, added or taken away by other means is
found (`Trail.check`), unless whoever did it computed all later digests anew: against them, keep the newest digest
elsewhere. The record of the last one is changed by every entry, so that two processes can't write one number.
"""

from __future__ import annotations

import getpass
import hashlib
import secrets
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import msgspec

from noria.core import Clock, IntegrityError, to_iso
from noria.storage import ABSENT, Put, Record, Records

AUDIT = "audit"
HEADS = "audit_heads"


@dataclass(frozen=True)
class Deed:
    """What is about to be done, for the trail.

    Attributes:
        action: `promote champion`, `retire`, ….
        verdicts: of the gates that judged it, as plain JSON data.
    """

    action: str
    version: int
    why: str = ""
    verdicts: Sequence[dict[str, Any]] = ()


@dataclass(frozen=True)
class AuditEntry:
    """Who did what, when and why.

    Attributes:
        verdicts: of the gates that judged it, where some did.
        number: one, two, … of this model; 0 in entries from before they were numbered.
        digest: of this entry and, by its digest, of all before it.
    """

    at: str
    who: str
    action: str
    model: str
    version: int
    why: str
    verdicts: list[dict[str, Any]] = field(default_factory=list)
    number: int = 0
    digest: str = ""


@dataclass(frozen=True)
class TrailCheck:
    """Whether a model's entries are those that were written.

    Attributes:
        entries: how many are chained.
        digest: the newest one: kept elsewhere, it proves later that nothing before it was changed.
        wrong: what isn't as it was written, in words; empty when all is.
    """

    model: str
    entries: int
    digest: str
    wrong: tuple[str, ...] = ()


class Trail:
    """The entries of all models."""

    def __init__(self, records: Records, clock: Clock) -> None:
        self._records = records
        self._clock = clock

    def puts(self, model: str, who: str | None, *deeds: Deed) -> list[Put]:
        """Entries of one model, to be committed with what they tell; the commit fails if another came in between."""
        if not deeds:
            return []
        head = self._records.get(HEADS, model)
        number, digest = (head.data["number"], head.data["digest"]) if head else (0, "")
        made, now, who = [], self._clock.now(), who or _user()
        for deed in deeds:
            number += 1
            verdicts = list(deed.verdicts)
            told = _text(who), deed.action, model, deed.version, _text(deed.why)
            entry = AuditEntry(to_iso(now), *told, verdicts, number)
            data = {**asdict(entry), "digest": _digest(digest, entry)}
            digest = data["digest"]
            made.append(Put(AUDIT, f"{now:020d}-{number:012d}-{secrets.token_hex(4)}", data, ABSENT))
        last = {"number": number, "digest": digest}
        return [*made, Put(HEADS, model, last, head.revision if head else ABSENT)]

    def entries(
        self,
        model: str | None = None,
        *,
        version: int | None = None,
        who: str | None = None,
        action: str | None = None,
        since: int | None = None,
        until: int | None = None,
        limit: int | None = None,
    ) -> list[AuditEntry]:
        """The entries, the newest first.

        Args:
            model, version, who: only of these.
            action: only where the action has this word: `promote`, `champion`, `promote champion`.
            since, until: only from then on, and before that; microseconds.
            limit: so many at most.
        """
        alone = (version, who, action, since, until, model) == (None,) * 6
        found = []
        for record in self._records.list(AUDIT, newest_first=True, limit=limit if alone else None):
            at = int(record.key.partition("-")[0])
            if (since is not None and at < since) or (until is not None and at >= until):
                continue
            entry = _entry(record)
            if model not in (None, entry.model) or version not in (None, entry.version) or who not in (None, entry.who):
                continue
            if action is None or f" {action} " in f" {entry.action} ":
                found.append(entry)
        return found if limit is None else found[: max(limit, 0)]

    def check(self, model: str) -> TrailCheck:
        """Compute a model's chain anew."""
        entries = self.entries(model)
        chained = sorted((one for one in entries if one.number), key=lambda one: one.number)
        head = self._records.get(HEADS, model)
        last: dict[str, Any] = head.data if head else {"number": 0, "digest": ""}
        wrong, before, expected = [], "", 0
        for entry in chained:
            expected += 1
            if entry.number != expected:
                wrong.append(_gap(expected, entry.number))
                expected = entry.number
            elif entry.digest != _digest(before, entry):
                wrong.append(f"entry {entry.number} ({entry.at}, {entry.action}) isn't what was written")
            before = entry.digest
        if expected < last["number"]:
            wrong.append(_gap(expected + 1, last["number"] + 1))
        elif (expected, before) != (last["number"], last["digest"]) and not wrong:
            wrong.append(f"entry {expected} isn't the last one that was written")
        if not entries and head is None and self._records.get("models", model) is not None:
            wrong.append("all entries are gone")
        return TrailCheck(model, len(chained), last["digest"], tuple(wrong))


def _gap(expected: int, found: int) -> str:
    if found < expected:
        return f"there is more than one entry {found}"
    return f"entry {expected} is gone" if found == expected + 1 else f"entries {expected} to {found - 1} are gone"


def _entry(record: Record) -> AuditEntry:
    try:
        return msgspec.convert(record.data, AuditEntry)
    except msgspec.ValidationError as error:
        raise IntegrityError(
            f"the entry {record.key} of the audit trail isn't what was written: {error}",
            hint="restore the records from a backup",
        ) from error


def _text(said: str) -> str:
    """Without what a command line has of bytes that are no text, and no record can keep."""
    return said.encode("utf-8", "backslashreplace").decode("utf-8")


def _digest(before: str, entry: AuditEntry) -> str:
    told = {**asdict(entry), "digest": "", "before": before}
    return hashlib.sha256(msgspec.json.encode(told, order="deterministic")).hexdigest()


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user without an entry
        return "unknown"
