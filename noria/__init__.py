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
    "noria.training": ("LeaveLastOut", "ModelTrainingPipeline", "RandomSplit", "TimeSplit"),
    "noria.serving": ("ModelServer",),
    "noria.gateway": ("LoadBalancer", "Supervisor"),
    "noria.recommender": ("ALS", "ItemKNN", "Popular", "RecommenderSystem"),
    "noria.system": ("System",),
    "polars": ("col",),
}
_ORIGIN = {name: room for room, names in _ROOMS.items() for name in names}

__all__ = sorted(_ORIGIN)  # pyright: ignore[reportUnsupportedDunderAll]

if TYPE_CHECKING:
    from polars import col as col

    from noria.core import NoriaError as NoriaError
    from noria.core import Schema as Schema
    from noria.core import Settings as Settings
    from noria.core import Timestamp as Timestamp
    from noria.features import (
        FeatureGroup as FeatureGroup,
    )
    from noria.features import (
        FeatureStore as FeatureStore,
    )
    from noria.features import (
        count as count,
    )
    from noria.features import (
        last as last,
    )
    from noria.features import (
        latest as latest,
    )
    from noria.features import (
        max as max,
    )
    from noria.features import (
        mean as mean,
    )
    from noria.features import (
        min as min,
    )
    from noria.features import (
        sum as sum,
    )
    from noria.gateway import LoadBalancer as LoadBalancer
    from noria.gateway import Supervisor as Supervisor
    from noria.pipelines import (
        BatchProcessor as BatchProcessor,
    )
    from noria.pipelines import (
        DropMissing as DropMissing,
    )
    from noria.pipelines import (
        Encode as Encode,
    )
    from noria.pipelines import (
        Impute as Impute,
    )
    from noria.pipelines import (
        Normalize as Normalize,
    )
    from noria.pipelines import (
        Source as Source,
    )
    from noria.pipelines import (
        between as between,
    )
    from noria.pipelines import (
        matches as matches,
    )
    from noria.pipelines import (
        one_of as one_of,
    )
    from noria.pipelines import (
        unique as unique,
    )
    from noria.recommender import (
        ALS as ALS,
    )
    from noria.recommender import (
        ItemKNN as ItemKNN,
    )
    from noria.recommender import (
        Popular as Popular,
    )
    from noria.recommender import (
        RecommenderSystem as RecommenderSystem,
    )
    from noria.registry import ModelRegistry as ModelRegistry
    from noria.serving import ModelServer as ModelServer
    from noria.storage import Workspace as Workspace
    from noria.system import System as System
    from noria.telemetry import MetricsCollector as MetricsCollector
    from noria.telemetry import MLLogger as MLLogger
    from noria.training import (
        LeaveLastOut as LeaveLastOut,
    )
    from noria.training import (
        ModelTrainingPipeline as ModelTrainingPipeline,
    )
    from noria.training import (
        RandomSplit as RandomSplit,
    )
    from noria.training import (
        TimeSplit as TimeSplit,
    )
else:

    def __getattr__(name: str) -> Any:
        if name not in _ORIGIN:
            raise AttributeError(f"module 'noria' has no attribute {name!r}")
        value = getattr(import_module(_ORIGIN[name]), name)
        globals()[name] = value  # the next look-up finds it at once
        return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
