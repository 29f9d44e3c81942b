"""registry: models, their versions and who is live.

A trained model enters as files with its metrics, parameters, signature and lineage, and becomes an immutable,
numbered `ModelVersion` whose bytes are kept by checksum. An alias says which version answers requests
(`champion`); `promote` and `rollback` move it, and every move is written to the audit trail. The server leaves
with the version's verified files. A `Deployment` says what else answers for a while: a canary, the variants of an A/B
experiment, a shadow.
"""

from noria.registry.code import code_state
from noria.registry.collect import Collected, collect
from noria.registry.deployment import CHAMPION, Deployment, Judging, Reward, Variant
from noria.registry.deployments import Deployments
from noria.registry.registry import AuditEntry, ModelRegistry
from noria.registry.version import Lineage, ModelVersion, Signature, parse_label

__all__ = [
    "CHAMPION",
    "AuditEntry",
    "Collected",
    "Deployment",
    "Deployments",
    "Judging",
    "Lineage",
    "ModelRegistry",
    "ModelVersion",
    "Reward",
    "Signature",
    "Variant",
    "code_state",
    "collect",
    "parse_label",
]
