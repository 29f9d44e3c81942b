"""monitoring: is it still right?

A `DriftMonitor` keeps how a reference frame was distributed and says how far newer rows have moved from it; an
`AlertManager` watches recorded metrics against thresholds and tells whoever listens, once when an alert starts and
once when it is over. Automatic rollback, backup and the web console have their place here and no code yet.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

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


def __getattr__(name: str) -> Any:
    if name not in _ORIGIN:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_ORIGIN[name]}"), name)
