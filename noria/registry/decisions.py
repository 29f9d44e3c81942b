"""What is decided about the versions of a model: who is called what, who is unfit, who has had its time.

Each decision is a pure plan on the model's record, committed on condition that the record is still what the plan was
made of, together with its entry of the audit trail. Where something else has changed meanwhile (a version was
registered), the plan is made again; where another process has decided about the same thing, it is told so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, TypedDict

from noria.core import ConfigError, ConflictError, IntegrityError, NotFoundError, allowed, check_name
from noria.core.decoding import RESTORE, decodable, read_back
from noria.registry import aliases
from noria.registry.deployment import CHAMPION, LATEST, Deployment
from noria.registry.states import ASIDE, CHALLENGER, State, check_answers, check_move, refused
from noria.registry.trail import AuditEntry, Deed, Trail
from noria.registry.version import ModelVersion, number_of, record_key
from noria.storage import Put, Record, Records

STATES = "states"
VERDICTS = "verdicts"
_RETRIES = 100

_Plan: TypeAlias = "Callable[[aliases.Model], _Change | None]"


@dataclass(frozen=True)
class _Change:
    """What becomes of a model's record, what the trail says of it, and what else is written."""

    model: aliases.Model
    deeds: Sequence[Deed]
    puts: Sequence[Put] = ()


class Decisions:
    """The part of the registry that moves aliases and states."""

    def __init__(self, records: Records, trail: Trail) -> None:
        self._records = records
        self.trail = trail

    def promote(
        self,
        name: str,
        version: int,
        *,
        alias: str = CHAMPION,
        why: str = "",
        who: str | None = None,
        before: int | None = None,
        verdicts: Sequence[dict[str, Any]] = (),
        also: Sequence[Put] = (),
        deeds: Sequence[Deed] = (),
    ) -> None:
        """Point an alias at a version. The version before it is kept for `rollback`.

        Args:
            name, version: what it is to point at.
            alias: its name.
            why, who: for the audit trail; `who` is this process's user by default.
            before: the version that it must point at now (0: none), where the choice was made by comparing with that.
            verdicts: of the gates that judged the version, for the audit trail and `verdicts`.
            also, deeds: committed with it, or without it where the alias points there already.

        Raises:
            NotFoundError: there is no such model or version.
            ConflictError: another process moved the alias at the same time (the error says who), or the version is
                rejected or retired.
        """
        check_name(alias, "alias")
        self._version(name, version)
        seen = before

        def plan(model: aliases.Model) -> _Change | None:
            nonlocal seen
            now = model["aliases"].get(alias, 0)
            seen = now if seen is None else seen
            if now == version:
                return _Change(model, deeds) if deeds else None
            if now != seen:
                raise aliases.moved(name, alias, now, version, self._mover(name, alias))
            self._check_pointed(model, name, version, alias)
            deed = Deed(f"{'promote' if alias == CHAMPION else 'alias'} {alias}", version, why, verdicts)
            return _Change(aliases.pointed(model, alias, version), (*deeds, deed), self._judged(name, deed))

        self._change(name, plan, who, also)

    def alias(self, name: str, version: int, alias: str, *, why: str = "", who: str | None = None) -> None:
        """Name a version: `challenger`, or any name. A name that points elsewhere is moved.

        Raises:
            ConfigError: it is no name, or `champion`, which only `promote` gives.
            ConflictError: another process moved it at the same time, or the version can't have it.
        """
        if alias == CHAMPION:
            raise ConfigError("the champion is made by promotion", hint=f"noria models promote {name}@{version}")
        self.promote(name, version, alias=alias, why=why, who=who)

    def unalias(self, name: str, alias: str, *, why: str = "", who: str | None = None) -> None:
        """Take a name away from the version that has it.

        Raises:
            ConfigError: it is `champion`: somebody has to answer.
            NotFoundError: there is no such alias.
        """
        if alias == CHAMPION:
            raise ConfigError(
                "a model isn't left without a champion",
                hint=f"promote another one: noria models promote {name}@VERSION",
            )

        def plan(model: aliases.Model) -> _Change:
            left = aliases.removed(model, name, alias)
            return _Change(left, [Deed(f"unalias {alias}", model["aliases"][alias], why)])

        self._change(name, plan, who)

    def rollback(self, name: str, *, alias: str = CHAMPION, why: str = "", who: str | None = None) -> ModelVersion:
        """Point an alias back at the version that it pointed at before; returns that version.

        Raises:
            NotFoundError: there is no version to go back to.
            ConflictError: another process moved the alias at the same time.
        """
        seen: int | None = None

        def plan(model: aliases.Model) -> _Change:
            nonlocal seen
            back = aliases.stepped_back(model, name, alias)
            now, then = model["aliases"][alias], back["aliases"][alias]
            if seen not in (None, now):
                raise aliases.moved(name, alias, now, then, self._mover(name, alias))
            seen = now
            return _Change(back, [Deed(f"rollback {alias}", then, why)])

        number: int = self._change(name, plan, who)["aliases"][alias]
        return self._version(name, number)

    def refuse(
        self, name: str, version: int, verdicts: Sequence[dict[str, Any]], *, why: str = "", who: str | None = None
    ) -> None:
        """Write down that gates kept a version from becoming the champion; its state stays as it is."""
        deed = Deed(f"refuse {CHAMPION}", version, why, verdicts)
        self._version(name, version)
        self._change(name, lambda model: _Change(model, [deed], self._judged(name, deed)), who)

    def reject(self, name: str, version: int, *, why: str = "", who: str | None = None) -> None:
        """Say that a version is unfit to answer: nothing can be pointed at it until it is restored.

        Raises:
            ConflictError: its state doesn't allow it, or it has an alias.
        """
        self._set_aside(name, version, "rejected", Deed("reject", version, why), who)

    def retire(self, name: str, version: int, *, why: str = "", who: str | None = None) -> None:
        """Say that a version has had its time. Its files stay; no rollback leads to it until it is restored.

        Raises:
            ConflictError: it is live (champion, or tried now), it has an alias, or its state doesn't allow it.
        """
        self._set_aside(name, version, "retired", Deed("retire", version, why), who)

    def restore(self, name: str, version: int, *, why: str = "", who: str | None = None) -> None:
        """Take back that a version was rejected or retired.

        Raises:
            ConflictError: it wasn't.
        """

        def plan(model: aliases.Model) -> _Change:
            now = self._state(model, name, version)
            if now not in ASIDE:
                raise refused(name, version, now, "and there is nothing to restore")
            return _Change(model, [Deed("restore", version, why)], [_mark(name, version, "")])

        self._version(name, version)
        self._change(name, plan, who)

    def state(self, name: str, version: int) -> State:
        """What has been decided about a version."""
        self._version(name, version)
        return self._state(self._model(name).data, name, version)

    def states(self, name: str) -> dict[int, State]:
        """The versions that are more than registered, with their states."""
        model = self._model(name).data
        marks = ((record.key, _marked(record)) for record in self._records.list(STATES, f"{name}@"))
        found: dict[int, State] = {number_of(key): state for key, state in marks if state}
        found |= dict.fromkeys(self._tried(name), CHALLENGER)
        named: tuple[State, ...] = (CHALLENGER, "champion")
        found |= {model["aliases"][state]: state for state in named if state in model["aliases"]}
        return found

    def verdicts(self, name: str, version: int) -> list[dict[str, Any]]:
        """What gates said of a version when they judged it last; empty when none did."""
        record = self._records.get(VERDICTS, record_key(name, version))
        if record is None:
            return []
        kept = read_back(record.data, _Judged, f"the verdicts on {name}@{version}")
        return [dict(one) for one in kept["verdicts"]]

    def hold(self, name: str) -> Put:
        """To be committed with something that was worked out from a model's state: fails if that has changed since."""
        model = self._model(name)
        return Put("models", name, model.data, model.revision)

    def _set_aside(self, name: str, version: int, state: State, deed: Deed, who: str | None) -> None:
        def plan(model: aliases.Model) -> _Change:
            check_move(name, version, self._state(model, name, version), state)
            if version in self._tried(name):
                raise ConflictError(
                    f"{name}@{version} is tried now, and can't become {state}",
                    hint=f"end it first: noria deployment abort {name}",
                )
            left = aliases.set_aside(model, name, version)
            return _Change(left, [deed], [_mark(name, version, state)])

        self._version(name, version)
        self._change(name, plan, who)

    def _change(self, name: str, plan: _Plan, who: str | None, also: Sequence[Put] = ()) -> aliases.Model:
        """Commit what the plan makes of the model's record; where it changes nothing, `also` alone. Returns the record.

        Raises:
            ConflictError: one of `also` can't be written any more, or the plan says so.
        """
        for _ in range(_RETRIES):
            record = self._model(name)
            change = plan(record.data)
            if change is None:
                self._records.commit(*also)
                return record.data
            held = Put("models", name, change.model, record.revision)
            try:
                self._records.commit(held, *change.puts, *also, *self.trail.puts(name, who, *change.deeds))
            except ConflictError:
                if self._is_outdated(also):
                    raise
                continue
            return change.model
        raise ConflictError(f"model {name!r} is being changed by too many processes", hint="try again")

    def _is_outdated(self, puts: Sequence[Put]) -> bool:
        for put in puts:
            record = self._records.get(put.collection, put.key)
            if put.expect is not None and put.expect != (record.revision if record else 0):
                return True
        return False

    def _check_pointed(self, model: aliases.Model, name: str, version: int, alias: str) -> None:
        """Refuse to point an alias at a version whose state doesn't allow it."""
        now = self._state(model, name, version)
        if alias in (CHAMPION, CHALLENGER) and now != alias:
            check_move(name, version, now, "champion" if alias == CHAMPION else CHALLENGER)
        check_answers(name, version, now)

    def _state(self, model: aliases.Model, name: str, version: int) -> State:
        for alias in (CHAMPION, CHALLENGER):
            if model["aliases"].get(alias) == version:
                return "champion" if alias == CHAMPION else "challenger"
        mark = self._records.get(STATES, record_key(name, version))
        state: State = (_marked(mark) if mark is not None else "") or "registered"
        return CHALLENGER if state == "registered" and version in self._tried(name) else state

    def _tried(self, name: str) -> list[int]:
        """The versions that are tried beside the champion now."""
        record = self._records.get(LATEST, name)
        found = Deployment.of_record(record) if record else None
        return [] if found is None or found.over else [variant.version for variant in found.tried]

    def _mover(self, name: str, alias: str) -> AuditEntry | None:
        """Who moved an alias last."""
        return next(iter(self.trail.entries(name, action=alias, limit=1)), None)

    def _judged(self, name: str, deed: Deed) -> list[Put]:
        """The verdicts, to be kept with the version."""
        if not deed.verdicts:
            return []
        return [Put(VERDICTS, record_key(name, deed.version), {"verdicts": list(deed.verdicts), "action": deed.action})]

    def _model(self, name: str) -> Record:
        model = self._records.get("models", name)
        if model is None:
            names = [record.key for record in self._records.list("models")]
            raise NotFoundError(
                f"there is no model {name!r}", hint=allowed(names, name) if names else "call `noria run`"
            )
        return aliases.whole(model)

    def _version(self, name: str, number: int) -> ModelVersion:
        record = self._records.get("versions", record_key(name, number))
        if record is None:
            latest = self._model(name).data["latest"]
            if 1 <= number <= latest:
                raise IntegrityError(f"the record of version {name}@{number} is gone", hint=RESTORE)
            raise NotFoundError(f"model {name!r} has no version {number}", hint=f"its versions are 1 to {latest}")
        return ModelVersion.of_record(record)


@decodable
class _Mark(TypedDict):
    state: Literal["", "rejected", "retired"]


class _Verdict(TypedDict):
    gate: str
    passed: bool | None
    why: str


@decodable
class _Judged(TypedDict):
    verdicts: list[_Verdict]


def _marked(record: Record) -> Literal["", "rejected", "retired"]:
    """Whether a version was set aside, and how."""
    return read_back(record.data, _Mark, f"the state of {record.key}")["state"]


def _mark(name: str, version: int, state: str) -> Put:
    return Put(STATES, record_key(name, version), {"state": state})
