"""monitoring: is it still right?

A `DriftMonitor` keeps how a reference frame was distributed and says how far newer rows have moved from it; an
`AlertManager` watches recorded metrics against thresholds and tells whoever listens, once when an alert starts and
once when it is over. Deployments are judged by what servers count and by the events that follow their answers; a
`Rollout` takes back what is worse for certain, and lets what goes well go on. `console` is administration over HTTP.
Backup has its place here and no code yet.
"""

from typing import TYPE_CHECKING

from noria.core.lazy import exports

if TYPE_CHECKING:
    from noria.monitoring.alerts import Alert, AlertManager, Rule
    from noria.monitoring.drift import ColumnDrift, DriftMonitor
    from noria.monitoring.judge import Comparison, Verdict
    from noria.monitoring.rollout import Done, Rollout, tend

_ORIGIN = {
    "Alert": "alerts",
    "AlertManager": "alerts",
    "ColumnDrift": "drift",
    "Comparison": "judge",
    "Done": "rollout",
    "DriftMonitor": "drift",
    "Rollout": "rollout",
    "Rule": "alerts",
    "Verdict": "judge",
    "tend": "rollout",
}

__all__ = [
    "Alert",
    "AlertManager",
    "ColumnDrift",
    "Comparison",
    "Done",
    "DriftMonitor",
    "Rollout",
    "Rule",
    "Verdict",
    "tend",
]

__getattr__ = exports(__name__, _ORIGIN)
