"""registry: models, their versions and who is live.

A trained model enters as files with its metrics, parameters, signature and lineage, and becomes an immutable,
numbered `ModelVersion` whose bytes are kept by checksum. An alias says which version answers requests
(`champion`); `promote` and `rollback` move it, versions that are unfit or have had their time are set aside, and every
move is written to the audit trail, a chain to which entries are only added. The server leaves with the version's
verified files. A `Deployment` says what else answers for a while: a canary, the variants of an A/B
experiment, a shadow.
"""

from noria.registry.code import code_state
from noria.registry.collect import Collected, collect
from noria.registry.deployment import CHAMPION, Deployment, Judging, Reward, Variant
from noria.registry.deployments import Deployments
from noria.registry.evidence import Evidence, Gate, Needs, Verdict
from noria.registry.gates import (
    at_least,
    at_most,
    better,
    latency_under,
    no_slice_worse,
    size_under,
)
from noria.registry.registry import ModelRegistry
from noria.registry.states import MOVES, State
from noria.registry.trail import AuditEntry, Trail, TrailCheck
from noria.registry.version import Lineage, ModelVersion, Signature, parse_label

__all__ = [
    "CHAMPION",
    "MOVES",
    "AuditEntry",
    "Collected",
    "Deployment",
    "Deployments",
    "Evidence",
    "Gate",
    "Judging",
    "Lineage",
    "ModelRegistry",
    "ModelVersion",
    "Needs",
    "Reward",
    "Signature",
    "State",
    "Trail",
    "TrailCheck",
    "Variant",
    "Verdict",
    "at_least",
    "at_most",
    "better",
    "code_state",
    "collect",
    "latency_under",
    "no_slice_worse",
    "parse_label",
    "size_under",
]
