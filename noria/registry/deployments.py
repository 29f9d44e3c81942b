"""The deployments of a registry: begun, changed and ended, each change with its reason in the audit trail.

At most one deployment of a model runs at a time. Whoever changes one says which state it was derived from, so that two
that act at once (a person and the judge) can't overwrite each other: one of them gets a `ConflictError`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from noria.core import Clock, ConfigError, ConflictError, NotFoundError, SystemClock
from noria.registry.deployment import CHAMPION, LATEST, Deployment, Judging, Kind, Variant, check_variants
from noria.registry.registry import ModelRegistry
from noria.registry.states import check_answers
from noria.registry.trail import Deed
from noria.registry.version import ModelVersion
from noria.storage import ABSENT, Put, Record, Records, Workspace

HISTORY = "deployment_history"
_RETRIES = 100


class Deployments:
    """What is tried of each model, and what was tried before."""

    def __init__(self, records: Records, registry: ModelRegistry, clock: Clock | None = None) -> None:
        self._records = records
        self._registry = registry
        self._clock = clock or SystemClock()

    @staticmethod
    def of(workspace: Workspace) -> Deployments:
        """The deployments of a project."""
        return Deployments(workspace.records, ModelRegistry.of(workspace), workspace.clock)

    def get(self, model: str) -> Deployment | None:
        """The model's present or last deployment."""
        record = self._records.get(LATEST, model)
        return None if record is None else Deployment.of_record(record)

    def tried(self, model: str) -> Deployment | None:
        """The model's present deployment, if there is one."""
        found = self.get(model)
        return None if found is None or found.over else found

    def check_idle(self, model: str) -> None:
        """Refuse to go past what is tried: whoever promotes another version takes away what it is compared with.

        Raises:
            ConflictError: something of this model is tried now.
        """
        tried = self.tried(model)
        if tried is not None:
            raise ConflictError(
                f"{tried.doing}: {tried.shares()}",
                hint=f"end it first: noria deployment finish {model}, or noria deployment abort {model}",
            )

    def running(self, model: str) -> Deployment:
        """The model's present deployment.

        Raises:
            NotFoundError: nothing of it is tried now.
        """
        return Deployment.of_record(self._running(model))

    def all(self) -> list[Deployment]:
        """Every model's present or last deployment."""
        return [Deployment.of_record(record) for record in self._records.list(LATEST)]

    def history(self, model: str) -> list[Deployment]:
        """The model's deployments that are over, the newest first."""
        found = self._records.list(HISTORY, f"{model}/", newest_first=True)
        return [Deployment.of_record(record) for record in found]

    def live(self, model: str) -> list[ModelVersion]:
        """Every version that answers now or may answer at once: the champion, the one before, what is tried."""
        numbers = self._registry.champions(model)[-2:]
        tried = self.tried(model)
        if tried is not None:
            numbers += tried.versions
        return [self._registry.get(model, number) for number in sorted(set(numbers))]

    def start(
        self,
        model: str,
        tried: Sequence[Variant],
        *,
        kind: Kind = "canary",
        control: Variant | None = None,
        shadow: int | None = None,
        steps: Sequence[float] = (),
        every: int = 0,
        judging: Judging | None = None,
        why: str = "",
        who: str | None = None,
    ) -> Deployment:
        """Try variants of a model beside its champion, or beside another `control`.

        Args:
            model: the model's name.
            tried: the variants and their shares; the control has the rest.
            kind: what it is called.
            control: what they are compared with; its share is worked out.
            shadow: a version that is asked on the side.
            steps, every: the shares of a canary and the microseconds that each lasts; the first begins now.
            judging: when a variant is worse.
            why: for the audit trail.
            who: for the audit trail; the user of this process by default.

        Raises:
            ConflictError: something of this model is tried already, or a version is rejected or retired.
            ConfigError: the variants or steps make no sense.
            NotFoundError: a version doesn't exist.
        """
        record = self._records.get(LATEST, model)
        before = None if record is None else Deployment.of_record(record)
        held = self._registry.hold(model)
        if steps:
            tried = [replace(tried[0], share=steps[0]), *tried[1:]]
        rest = control or Variant(CHAMPION, self._registry.get(model).version, 0.0)
        variants = (*tried, replace(rest, share=1.0 - sum(variant.share for variant in tried)))
        now = self._clock.now()
        made = Deployment(
            model, (before.number if before else 0) + 1, kind, variants, now, shadow, tuple(steps), every,
            stepped=now, judging=judging or Judging(), why=why,
        )  # fmt: skip
        _check(made)
        for version in sorted(made.versions):
            check_answers(model, version, self._registry.state(model, version))
        if before is not None and not before.over:
            self.check_idle(model)
        self._commit(record, made, f"deploy {kind}", who, held)
        return made

    def change(self, before: Deployment, after: Deployment, action: str, why: str, who: str | None = None) -> None:
        """Put a deployment into another state.

        Raises:
            ConflictError: it isn't as it was in `before` any more.
        """
        record = self._records.get(LATEST, before.model)
        if record is None or Deployment.of_record(record) != before:
            raise ConflictError(f"deployment {before.label} was changed by another process", hint="look again")
        self._commit(record, replace(after, why=why), action, who)

    def pause(self, model: str, *, why: str = "", who: str | None = None) -> Deployment:
        """Take no further steps; the shares stay as they are, and a worse variant still goes back.

        Raises:
            ConflictError: it is paused already.
        """
        before = self.running(model)
        if before.state == "paused":
            raise ConflictError(
                f"{before.kind} {before.label} is paused already", hint=f"go on: noria deployment resume {model}"
            )
        return self._changed(before, replace(before, state="paused"), "pause", why, who)

    def resume(self, model: str, *, why: str = "", who: str | None = None) -> Deployment:
        """Take steps again; the present one begins anew.

        Raises:
            ConflictError: it isn't paused.
        """
        before = self.running(model)
        if before.state != "paused":
            raise ConflictError(
                f"{before.kind} {before.label} isn't paused", hint=f"how far it is: noria deployment show {model}"
            )
        return self._changed(before, replace(before, state="running", stepped=self._clock.now()), "resume", why, who)

    def abort(
        self, model: str, *, why: str = "", who: str | None = None, before: Deployment | None = None
    ) -> Deployment:
        """Give every request to the champion again.

        Raises:
            ConflictError: it isn't as it was in `before` any more, where that is given.
        """
        before = before or self.running(model)
        return self._changed(before, replace(before, state="aborted"), "abort", why, who)

    def finish(
        self,
        model: str,
        *,
        winner: str | None = None,
        force: bool = False,
        why: str = "",
        who: str | None = None,
        before: Deployment | None = None,
    ) -> Deployment:
        """End it, and make the winner the champion: the variant that was tried, if there is one alone.

        A shadow ends without a winner unless one is named.

        Raises:
            ConfigError: there is no such variant, or several that could be meant.
            ConflictError: the model has another champion than the one that it was compared with (unless `force`), or
                the deployment isn't as it was in `before` any more, where that is given.
        """
        record = self._running(model)
        found = Deployment.of_record(record)
        if before is not None and found != before:
            raise ConflictError(f"deployment {before.label} was changed by another process", hint="look again")
        before = found
        won = _winner(before, winner)
        if won is None:
            return self._changed(before, replace(before, state="finished"), "finish", why or "no winner", who)
        champion = self._registry.get(model).version
        if champion not in (before.control.version, won.version) and not force:
            raise ConflictError(
                f"{model}@{champion} became the champion while {before.label} ran against "
                f"{before.control.version}; {won.version} wasn't compared with it",
                hint=f"noria deployment abort {model}, or: noria deployment finish {model} --force",
            )
        after = replace(before, state="finished", why=why or f"{won.name} won")
        self._registry.promote(
            model,
            won.version,
            why=f"{after.why} ({before.label})",
            who=who,
            also=_puts(record, after),
            deeds=[_deed(f"finish {before.kind}", after)],
        )
        return after

    def rollback(self, model: str, *, why: str = "", who: str | None = None) -> ModelVersion:
        """Take back what was changed last: what is tried now, or else the champion. Returns who answers then.

        Raises:
            NotFoundError: nothing is tried and there was no champion before.
        """
        if self.tried(model) is not None:
            self.abort(model, why=why or "rolled back", who=who)
            return self._registry.get(model)
        return self._registry.rollback(model, why=why, who=who)

    def _running(self, model: str) -> Record:
        record = self._records.get(LATEST, model)
        if record is None or Deployment.of_record(record).over:
            self._registry.get(model)  # says so if there is no such model
            raise NotFoundError(
                f"nothing of model {model!r} is tried now", hint=f"begin: noria deploy {model}@VERSION --canary 10%"
            )
        return record

    def _changed(self, before: Deployment, after: Deployment, action: str, why: str, who: str | None) -> Deployment:
        self.change(before, after, f"{action} {before.kind}", why, who)
        return replace(after, why=why)

    def _commit(self, record: Record | None, after: Deployment, action: str, who: str | None, *held: Put) -> None:
        """Commit on condition that the deployment is what it was; whatever else of the model changes meanwhile."""
        for _ in range(_RETRIES):
            entries = self._registry.trail.puts(after.model, who, _deed(action, after))
            try:
                self._records.commit(*_puts(record, after), *entries, *held)
            except ConflictError:
                now = self._records.get(LATEST, after.model)
                if held or (now and now.revision) != (record and record.revision):
                    raise
                continue
            return
        raise ConflictError(f"model {after.model!r} is being changed by too many processes", hint="try again")


def _puts(record: Record | None, after: Deployment) -> list[Put]:
    data = after.to_dict()
    puts = [Put(LATEST, after.model, data, record.revision if record else ABSENT)]
    if after.over:
        puts.append(Put(HISTORY, f"{after.model}/{after.number:08d}", data))
    return puts


def _deed(action: str, after: Deployment) -> Deed:
    return Deed(action, after.tried[0].version, after.why)


def _check(made: Deployment) -> None:
    check_variants(made.variants)
    if not made.tried:
        raise ConfigError("a deployment needs a version to try", hint="name one: MODEL@VERSION")
    if made.kind != "ab" and made.tried[0].version == made.control.version:
        raise ConfigError(
            f"{made.model}@{made.control.version} is the champion already",
            hint=f"try another version as a {made.kind}",
        )
    nobody = next((one.name for one in made.variants[:-1] if one.share == 0.0), None)
    if nobody is not None:
        raise ConfigError(
            f"{nobody} would answer nobody", hint="give it a share above 0%, or ask it on the side: --shadow"
        )
    if not 0.0 < made.judging.alpha < 1.0:
        raise ConfigError(f"alpha={made.judging.alpha} is no chance to be wrong", hint="it is between 0 and 1: 0.05")
    if made.steps and (made.every <= 0 or list(made.steps) != sorted(set(made.steps))):
        raise ConfigError(
            "the steps of a canary must grow, and last some time", hint="as in: --steps 1,10,50,100 --every 10m"
        )


def _winner(deployment: Deployment, name: str | None) -> Variant | None:
    every = {variant.name: variant for variant in (*deployment.tried, deployment.control)}
    if name is not None:
        if name not in every:
            raise ConfigError(f"{deployment.label} has no variant {name!r}", hint=f"allowed: {', '.join(every)}")
        return every[name]
    if deployment.kind == "canary":
        return deployment.variants[0]
    if deployment.kind == "shadow":
        return None
    raise ConfigError(
        f"{deployment.label} compares {', '.join(every)}", hint="say which has won: --winner NAME", field="winner"
    )
