"""registry: models, their versions and who is live.

A trained model enters as files with its metrics, parameters, signature and lineage, and becomes an immutable,
numbered `ModelVersion` whose bytes are kept by checksum. An alias says which version answers requests
(`champion`); `promote` and `rollback` move it, and every move is written to the audit trail. The server leaves
with the version's verified files.
"""

from noria.registry.code import code_state
from noria.registry.registry import CHAMPION, AuditEntry, ModelRegistry
from noria.registry.version import Lineage, ModelVersion, Signature, parse_label

__all__ = [
    "CHAMPION",
    "AuditEntry",
    "Lineage",
    "ModelRegistry",
    "ModelVersion",
    "Signature",
    "code_state",
    "parse_label",
]
