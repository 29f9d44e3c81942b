"""noria: one Python package that runs a whole machine-learning system.

Describe sources, features, models and services as plain objects; `noria run` brings what is stale up to date and
`noria serve` answers requests. Importing this package loads no dataframe, array or model library: a name is
imported from its room when it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_ROOMS = {
    "noria.core": ("NoriaError", "Schema", "Settings", "Timestamp"),
    "noria.telemetry": ("MLLogger", "MetricsCollector"),
    "noria.storage": ("Workspace",),
    "noria.pipelines": (
        "BatchProcessor",
        "DropMissing",
        "Encode",
        "Impute",
        "Normalize",
        "Source",
        "between",
        "matches",
        "one_of",
        "unique",
    ),
    "noria.features": ("FeatureGroup", "FeatureStore", "count", "last", "latest", "max", "mean", "min", "sum"),
    "noria.registry": ("ModelRegistry",),
    "noria.training": ("ModelTrainingPipeline", "RandomSplit", "TimeSplit"),
    "noria.serving": ("ModelServer",),
    "noria.gateway": ("LoadBalancer", "Supervisor"),
    "noria.recommender": ("ALS", "ItemKNN", "Popular", "RecommenderSystem"),
    "noria.system": ("System",),
    "polars": ("col",),
}
_ORIGIN = {name: room for room, names in _ROOMS.items() for name in names}

__all__ = sorted(_ORIGIN)  # pyright: ignore[reportUnsupportedDunderAll]

if TYPE_CHECKING:
    from polars import col
else:

    def __getattr__(name: str) -> Any:
        if name not in _ORIGIN:
            raise AttributeError(f"module 'noria' has no attribute {name!r}")
        value = getattr(import_module(_ORIGIN[name]), name)
        globals()[name] = value  # the next look-up finds it at once
        return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
