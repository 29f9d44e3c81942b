"""monitoring: is it still right?

A `DriftMonitor` keeps how a reference frame was distributed and says how far newer rows have moved from it; an
`AlertManager` watches recorded metrics against thresholds and tells whoever listens, once when an alert starts and
once when it is over. The judge of deployments and its rollout take back what is worse; `console` is administration
over HTTP. Backup has its place here and no code yet.
"""

from typing import TYPE_CHECKING

from noria.core.lazy import exports

if TYPE_CHECKING:
    from noria.monitoring.alerts import Alert, AlertManager, Rule
    from noria.monitoring.drift import ColumnDrift, DriftMonitor

_ORIGIN = {
    "Alert": "alerts",
    "AlertManager": "alerts",
    "ColumnDrift": "drift",
    "DriftMonitor": "drift",
    "Rule": "alerts",
}

__all__ = ["Alert", "AlertManager", "ColumnDrift", "DriftMonitor", "Rule"]

__getattr__ = exports(__name__, _ORIGIN)
