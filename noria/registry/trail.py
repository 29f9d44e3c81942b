"""The audit trail: who did what to which model, when and why. Entries are added, never changed and never removed.

The entries of a model are a chain: each is numbered and keeps a SHA-256 of itself and of the one before, and the last
number and digest stand in a record of their own. So an entry that was changed, added or taken away by other means is
found (`Trail.check`), unless whoever did it computed all later digests anew: against them, keep the newest digest
elsewhere. The entry of a registration keeps the seal of the version's record, so the chain vouches for versions, too.
The record of the last entry is changed by every new one, so that two processes can't write one number.
"""

from __future__ import annotations

import getpass
import hashlib
import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, TypedDict

import msgspec

from noria.core import Clock, IntegrityError, to_iso
from noria.core.decoding import RESTORE, decodable, read_back
from noria.registry.deployment import CHAMPION
from noria.registry.version import record_key, seal_of
from noria.storage import ABSENT, Put, Record, Records

AUDIT = "audit"
HEADS = "audit_heads"
REGISTER = "register"
_MADE_CHAMPION = (f"promote {CHAMPION}", f"rollback {CHAMPION}")


@dataclass(frozen=True)
class Deed:
    """What is about to be done, for the trail.

    Attributes:
        action: `promote champion`, `retire`, ….
        verdicts: of the gates that judged it, as plain JSON data.
        seal: of the version's record, where it is registered.
    """

    action: str
    version: int
    why: str = ""
    verdicts: Sequence[dict[str, Any]] = ()
    seal: str = ""


@dataclass(frozen=True)
class AuditEntry:
    """Who did what, when and why.

    Attributes:
        verdicts: of the gates that judged it, where some did.
        number: one, two, … of this model; 0 in entries from before they were numbered.
        digest: of this entry and, by its digest, of all before it.
        seal: the SHA-256 of the version's record, where it was registered; empty in older entries.
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
    seal: str = ""


@decodable
class _Head(TypedDict):
    number: int
    digest: str


@dataclass(frozen=True)
class TrailCheck:
    """Whether a model's entries, its versions and its champion are those that were written.

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
        head, last = self._last(model)
        number, digest = last["number"], last["digest"]
        made, now, who = [], self._clock.now(), who or _user()
        for deed in deeds:
            number += 1
            verdicts = list(deed.verdicts)
            told = _text(who), deed.action, model, deed.version, _text(deed.why)
            entry = AuditEntry(to_iso(now), *told, verdicts, number, seal=deed.seal)
            data = {**asdict(entry), "digest": _digest(digest, entry)}
            digest = data["digest"]
            made.append(Put(AUDIT, f"{now:020d}-{number:012d}-{secrets.token_hex(4)}", data, ABSENT))
        newest = {"number": number, "digest": digest}
        return [*made, Put(HEADS, model, newest, head.revision if head else ABSENT)]

    def models(self) -> list[str]:
        """The models that have entries which are chained."""
        return [record.key for record in self._records.list(HEADS)]

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
        """The entries, the newest first: those of one model by their numbers, whatever the clock has said.

        Args:
            model, version, who: only of these.
            action: only where the action has this word: `promote`, `champion`, `promote champion`.
            since, until: only from then on, and before that; microseconds.
            limit: so many at most.
        """
        alone = (version, who, action, since, until, model) == (None,) * 6
        found = []
        for record in self._records.list(AUDIT, newest_first=True, limit=limit if alone else None):
            at = _instant(record)
            if (since is not None and at < since) or (until is not None and at >= until):
                continue
            entry = _entry(record)
            if model not in (None, entry.model) or version not in (None, entry.version) or who not in (None, entry.who):
                continue
            if action is None or f" {action} " in f" {entry.action} ":
                found.append(entry)
        if model is not None:
            found.sort(key=lambda one: -one.number)  # the clock may have been put back
        return found if limit is None else found[: max(limit, 0)]

    def check(self, model: str) -> TrailCheck:
        """Compute a model's chain anew."""
        entries, kept = self.entries(model), self._records.get("models", model)
        chained = sorted((one for one in entries if one.number), key=lambda one: one.number)
        head, last = self._last(model)
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
        if not entries and head is None and kept is not None:
            wrong.append("all entries are gone")
        if entries and kept is None:
            wrong.append("the record of the model is gone")
        wrong += [what for entry in chained if (what := self._changed(entry))]
        if kept is not None and not wrong:
            wrong += _contradicted(kept.data, chained)
        return TrailCheck(model, len(chained), last["digest"], tuple(wrong))

    def _last(self, model: str) -> tuple[Record | None, _Head]:
        """The number and the digest of a model's newest entry, and the record that has them."""
        head = self._records.get(HEADS, model)
        if head is None:
            return None, {"number": 0, "digest": ""}
        return head, read_back(head.data, _Head, f"the last entry of the audit trail of {model!r}")

    def _changed(self, entry: AuditEntry) -> str:
        """What was done by other means to the record of a version that an entry has registered."""
        if entry.action != REGISTER:
            return ""
        record = self._records.get("versions", record_key(entry.model, entry.version))
        if record is None:
            return f"the record of version {entry.version} is gone"
        changed = entry.seal not in ("", seal_of(record.data))
        return f"the record of version {entry.version} isn't what was registered" if changed else ""


def _contradicted(model: Mapping[str, Any], chained: Sequence[AuditEntry]) -> Iterator[str]:
    """What a model's record says otherwise than its entries."""
    newest = max((entry.version for entry in chained if entry.action == REGISTER), default=0)
    if model["latest"] < newest:
        yield f"the model's newest version isn't {model['latest']}: {newest} was registered"
    named = [entry.version for entry in chained if entry.action in _MADE_CHAMPION]
    if named and model["aliases"].get(CHAMPION) != named[-1]:
        yield f"the champion isn't version {named[-1]}, which was made it last"


def _gap(expected: int, found: int) -> str:
    if found < expected:
        return f"there is more than one entry {found}"
    return f"entry {expected} is gone" if found == expected + 1 else f"entries {expected} to {found - 1} are gone"


def _instant(record: Record) -> int:
    """When an entry was written; before 1970 its key begins with a minus."""
    try:
        return int(record.key.rsplit("-", 2)[0])
    except ValueError as error:
        raise IntegrityError(
            f"the entry {record.key} of the audit trail isn't what was written: its key tells no time", hint=RESTORE
        ) from error


def _entry(record: Record) -> AuditEntry:
    try:
        return msgspec.convert(record.data, AuditEntry)
    except msgspec.ValidationError as error:
        raise IntegrityError(
            f"the entry {record.key} of the audit trail isn't what was written: {error}", hint=RESTORE
        ) from error


def _text(said: str) -> str:
    """Without what a command line has of bytes that are no text, and no record can keep."""
    return said.encode("utf-8", "backslashreplace").decode("utf-8")


def _digest(before: str, entry: AuditEntry) -> str:
    told = {**asdict(entry), "digest": "", "before": before}
    if not entry.seal:
        del told["seal"]  # as when entries had none
    return hashlib.sha256(msgspec.json.encode(told, order="deterministic")).hexdigest()


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user without an entry
        return "unknown"
