"""What is known of a deployment: the totals of its variants over all servers, and what of them is of the present step.

Variants are compared within one step only. While the shares stay as they are, chance alone decides what each variant is
asked, at every hour; over steps a canary has had most of its requests of late and the control most of its earlier, so
that one bad hour looks like a bad canary (Simpson's paradox). Servers count from the beginning; so the totals at the
beginning of each step are kept, and taken away.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec

from noria.registry import Deployment
from noria.serving.exposures import TALLIES, Tally, server_names, tallies_of, tally_key
from noria.storage import Put, Records

STEPS = "deployment_steps"
"""The collection of the totals with which steps began: key `MODEL/NUMBER/STEP`."""


@dataclass(frozen=True)
class Evidence:
    """What has been seen of each variant.

    Attributes:
        totals: since the deployment began, by the variant's name.
        step: since the present step began.
        since: when that was, microseconds.
        begun: whether it is known what servers had counted by then; where it isn't, nothing of the step is.
        servers: who has counted, and the step that each follows.
        failed: why servers couldn't load a variant, by its name.
    """

    totals: dict[str, Tally]
    step: dict[str, Tally]
    since: int
    begun: bool = True
    servers: dict[str, int] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)

    def of(self, variant: str) -> Tally:
        """The present step's totals of a variant."""
        return self.step.get(variant, Tally())


def gather(records: Records, deployment: Deployment) -> Evidence:
    """Read what the servers have written."""
    prefix = tally_key(deployment.model, deployment.number)
    totals: dict[str, Tally] = {}
    servers: dict[str, int] = {}
    failed: dict[str, str] = {}
    found = records.list(TALLIES, prefix)
    names = server_names(record.key.removeprefix(prefix) for record in found)
    for record in found:
        name = names[record.key.removeprefix(prefix)]
        servers[name] = max(servers.get(name, 0), record.data.get("step", 0))  # it may have been started anew since
        for variant, tally in tallies_of(record.data).items():
            totals[variant] = totals.get(variant, Tally()) + tally
        failed.update(record.data.get("failed", {}))
    if deployment.step == 0:
        return Evidence(totals, totals, deployment.started, True, servers, failed)
    begun = records.get(STEPS, _key(deployment))
    before = {} if begun is None else tallies_of(begun.data)
    step = {name: tally - before.get(name, Tally()) for name, tally in totals.items()}
    if begun is None or any(tally.requests < tally.errors or tally.errors < 0 for tally in step.values()):
        # Nobody kept how it began, or a server has forgotten what it had counted by then: the step begins anew.
        return Evidence(totals, {}, deployment.stepped, False, servers, failed)
    return Evidence(totals, step, begun.data["at"], True, servers, failed)


def begin_step(records: Records, deployment: Deployment, totals: dict[str, Tally], now: int) -> None:
    """Keep the totals with which a step begins."""
    records.commit(Put(STEPS, _key(deployment), {"at": now, "variants": msgspec.to_builtins(totals)}))


def _key(deployment: Deployment) -> str:
    return f"{tally_key(deployment.model, deployment.number)}{deployment.step:08d}"
