"""The controller of deployments: what is worse goes back, what goes well gets its next share, what is through wins.

Any number of controllers may look after one registry: each change is conditional on the state that it was derived
from, so that one of them makes it and the others look again. Nothing is kept between two looks but the rewards, which
cost more to find than the rest and are looked up at most every half minute.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from noria.core import ConflictError, NoriaError, StorageError
from noria.monitoring.confidence import Moments
from noria.monitoring.evidence import Evidence, begin_step, gather
from noria.monitoring.judge import Verdict, judge
from noria.monitoring.rewards import rewards
from noria.registry import Deployment, Deployments, ModelRegistry
from noria.serving.exposures import Tally
from noria.storage import Workspace

ENOUGH = 100
"""Requests of the canary in a step, before the next one is taken: time alone is no evidence."""
GRACE = 10_000_000
"""Microseconds in which servers may fail to load a variant before that ends its deployment."""
WHO = "noria rollout"
"""Who acts, in the audit trail."""
_REWARDS_EVERY = 30_000_000


@dataclass(frozen=True)
class Done:
    """What the controller did.

    Attributes:
        deployment: its label.
        action: `abort`, `advance`, `finish`, `resume`, or `fail` where it couldn't look at all that it should.
        why: in words.
    """

    deployment: str
    action: str
    why: str


@dataclass
class Rollout:
    """Looks after the deployments of a registry."""

    workspace: Workspace
    _rewards: dict[str, tuple[int, int, dict[str, Moments]]] = field(default_factory=dict)

    def tend(self, now: int) -> list[Done]:
        """Look at each deployment that isn't over, and do what is due. Says what was done."""
        done: list[Done] = []
        for deployment in Deployments.of(self.workspace).all():
            if deployment.over:
                self._rewards.pop(deployment.label, None)
                continue
            try:
                done += self._tend(deployment, now)
            except ConflictError:
                continue  # another controller or a person has changed it: look again next time
            except StorageError:
                raise  # it is the registry: the others can't be looked at, either
            except NoriaError as error:
                done.append(Done(deployment.label, "fail", error.message))
        return done

    def _tend(self, deployment: Deployment, now: int) -> list[Done]:
        evidence = gather(self.workspace.records, deployment)
        if not evidence.begun:
            begin_step(self.workspace.records, deployment, evidence.totals, now)
        done: list[Done] = []
        try:
            found = self._found(deployment, evidence.since, now)
        except NoriaError as error:  # errors and latency are judged all the same
            found = {}
            done.append(Done(deployment.label, "fail", f"its rewards can't be looked up: {error.message}"))
        worse = reason(deployment, evidence, judge(deployment, evidence, found), now)
        if worse:
            self._deployments.abort(deployment.model, why=worse, who=WHO, before=deployment)
            return [*done, Done(deployment.label, "abort", worse)]
        return [*done, *self._advance(deployment, evidence, now)]

    def _advance(self, deployment: Deployment, evidence: Evidence, now: int) -> list[Done]:
        """Take the next step if it is due and there is evidence that the present one went well."""
        if deployment.state == "running" and deployment.steps and deployment.stepped - now > deployment.every:
            why = "the clock was put back: the present step begins anew"
            anew = replace(deployment, stepped=now)
            self._deployments.change(deployment, anew, f"resume {deployment.kind}", why, WHO)
            return [Done(deployment.label, "resume", why)]
        after = deployment.advanced(now)
        if after is None or evidence.of(deployment.tried[0].name).requests < ENOUGH:
            return []
        if after.over:
            return [self._finish(deployment)]
        begin_step(self.workspace.records, after, evidence.totals, now)
        share = f"{after.variants[0].share * 100:.4g}%"
        requests = evidence.of(deployment.variants[0].name).requests
        why = f"step {after.step + 1} of {len(after.steps)}: {share} of the entities, after {requests:,} requests"
        self._deployments.change(deployment, after, f"advance {deployment.kind}", why, WHO)
        return [Done(deployment.label, "advance", why)]

    def _finish(self, deployment: Deployment) -> Done:
        champion = ModelRegistry.of(self.workspace).get(deployment.model).version
        if champion not in (deployment.control.version, deployment.variants[0].version):
            why = (
                f"version {champion} has become the champion meanwhile; {deployment.variants[0].name} "
                f"{deployment.variants[0].version} was compared with {deployment.control.version}"
            )
            self._deployments.abort(deployment.model, why=why, who=WHO, before=deployment)
            return Done(deployment.label, "abort", why)
        why = "every step went well"
        self._deployments.finish(deployment.model, why=why, who=WHO, before=deployment)
        return Done(deployment.label, "finish", why)

    def _found(self, deployment: Deployment, since: int, now: int) -> dict[str, Moments]:
        """The rewards, as they were found in the last half minute."""
        wanted = deployment.judging.reward
        if wanted is None:
            return {}
        looked, of, found = self._rewards.get(deployment.label, (0, -1, {}))
        if of != since or not 0 <= now - looked < _REWARDS_EVERY:
            self._rewards[deployment.label] = now, since, {}  # so that a failure isn't repeated at once, either
            found = rewards(self.workspace, deployment, wanted, since, now)
            self._rewards[deployment.label] = now, since, found
        return found

    @property
    def _deployments(self) -> Deployments:
        return Deployments.of(self.workspace)


def tend(workspace: Workspace, now: int) -> list[Done]:
    """Look once at every deployment of a project."""
    return Rollout(workspace).tend(now)


def reason(deployment: Deployment, evidence: Evidence, verdicts: list[Verdict], now: int) -> str:
    """Why a deployment has to go back, in words and figures; empty while it hasn't."""
    for verdict in verdicts:
        name = f"{verdict.variant.name} {verdict.variant.version}"
        if (
            verdict.variant.name in evidence.failed
            and not evidence.totals.get(verdict.variant.name, Tally()).requests
            and now - deployment.started >= GRACE
        ):
            return f"{name} can't be loaded: {evidence.failed[verdict.variant.name]}"
        worse = [comparison.in_words() for comparison in verdict.comparisons if comparison.finding == "worse"]
        if worse:
            sure = f"{(1.0 - deployment.judging.alpha) * 100:.4g}%"
            return f"{name}: {', '.join(worse)}, {sure} anytime-valid, {verdict.requests:,} requests"
    return ""
