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
        "Arrow",
        "Avro",
        "BatchProcessor",
        "Bucket",
        "Cast",
        "Clip",
        "Deduplicate",
        "Derive",
        "Drop",
        "DropMissing",
        "Encode",
        "Filter",
        "ForwardFill",
        "Impute",
        "Json",
        "LatestRow",
        "Normalize",
        "Rename",
        "Source",
        "Stream",
        "StreamProcessor",
        "Totals",
        "between",
        "matches",
        "one_of",
        "unique",
    ),
    "noria.features": (
        "Entity",
        "FeatureGroup",
        "FeatureStore",
        "OnDemand",
        "count",
        "decayed_sum",
        "derived",
        "distinct",
        "first",
        "last",
        "latest",
        "max",
        "mean",
        "min",
        "std",
        "sum",
        "top_k",
    ),
    "noria.registry": (
        "ModelRegistry",
        "at_least",
        "at_most",
        "better",
        "latency_under",
        "no_slice_worse",
        "size_under",
    ),
    "noria.training": (
        "GroupSplit",
        "LeaveLastOut",
        "ModelTrainingPipeline",
        "RandomSplit",
        "RollingSplit",
        "StratifiedSplit",
        "TimeSplit",
        "TorchModule",
        "recency",
        "by_day",
        "by_month",
        "by_week",
    ),
    "noria.training.search": ("Auto", "choice", "integer", "log", "tune", "uniform"),
    "noria.training.distributed": (
        "AllReduce",
        "Average",
        "DistributedTraining",
        "FederatedTraining",
        "Histograms",
        "Stack",
        "Vote",
    ),
    "noria.serving": ("ModelServer",),
    "noria.gateway": ("LoadBalancer", "Supervisor"),
    "noria.recommender": ("ALS", "ItemKNN", "Popular", "RecommenderSystem"),
    "noria.system": ("System",),
    "polars": ("col", "lit", "when"),
}
_ORIGIN = {name: room for room, names in _ROOMS.items() for name in names}

__all__ = sorted(_ORIGIN)  # pyright: ignore[reportUnsupportedDunderAll]

if TYPE_CHECKING:
    from polars import col as col
    from polars import lit as lit
    from polars import when as when

    from noria.core import NoriaError as NoriaError
    from noria.core import Schema as Schema
    from noria.core import Settings as Settings
    from noria.core import Timestamp as Timestamp
    from noria.features import (
        Entity as Entity,
    )
    from noria.features import (
        FeatureGroup as FeatureGroup,
    )
    from noria.features import (
        FeatureStore as FeatureStore,
    )
    from noria.features import (
        OnDemand as OnDemand,
    )
    from noria.features import (
        count as count,
    )
    from noria.features import (
        decayed_sum as decayed_sum,
    )
    from noria.features import (
        derived as derived,
    )
    from noria.features import (
        distinct as distinct,
    )
    from noria.features import (
        first as first,
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
        std as std,
    )
    from noria.features import (
        sum as sum,
    )
    from noria.features import (
        top_k as top_k,
    )
    from noria.gateway import LoadBalancer as LoadBalancer
    from noria.gateway import Supervisor as Supervisor
    from noria.pipelines import (
        Arrow as Arrow,
    )
    from noria.pipelines import (
        Avro as Avro,
    )
    from noria.pipelines import (
        BatchProcessor as BatchProcessor,
    )
    from noria.pipelines import (
        Bucket as Bucket,
    )
    from noria.pipelines import (
        Cast as Cast,
    )
    from noria.pipelines import (
        Clip as Clip,
    )
    from noria.pipelines import (
        Deduplicate as Deduplicate,
    )
    from noria.pipelines import (
        Derive as Derive,
    )
    from noria.pipelines import (
        Drop as Drop,
    )
    from noria.pipelines import (
        DropMissing as DropMissing,
    )
    from noria.pipelines import (
        Encode as Encode,
    )
    from noria.pipelines import (
        Filter as Filter,
    )
    from noria.pipelines import (
        ForwardFill as ForwardFill,
    )
    from noria.pipelines import (
        Impute as Impute,
    )
    from noria.pipelines import (
        Json as Json,
    )
    from noria.pipelines import (
        LatestRow as LatestRow,
    )
    from noria.pipelines import (
        Normalize as Normalize,
    )
    from noria.pipelines import (
        Rename as Rename,
    )
    from noria.pipelines import (
        Source as Source,
    )
    from noria.pipelines import (
        Stream as Stream,
    )
    from noria.pipelines import (
        StreamProcessor as StreamProcessor,
    )
    from noria.pipelines import (
        Totals as Totals,
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
    from noria.registry import at_least as at_least
    from noria.registry import at_most as at_most
    from noria.registry import better as better
    from noria.registry import latency_under as latency_under
    from noria.registry import no_slice_worse as no_slice_worse
    from noria.registry import size_under as size_under
    from noria.serving import ModelServer as ModelServer
    from noria.storage import Workspace as Workspace
    from noria.system import System as System
    from noria.telemetry import MetricsCollector as MetricsCollector
    from noria.telemetry import MLLogger as MLLogger
    from noria.training import (
        GroupSplit as GroupSplit,
    )
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
        RollingSplit as RollingSplit,
    )
    from noria.training import (
        StratifiedSplit as StratifiedSplit,
    )
    from noria.training import (
        TimeSplit as TimeSplit,
    )
    from noria.training import (
        TorchModule as TorchModule,
    )
    from noria.training import (
        by_day as by_day,
    )
    from noria.training import (
        by_month as by_month,
    )
    from noria.training import (
        by_week as by_week,
    )
    from noria.training import (
        recency as recency,
    )
    from noria.training.distributed import (
        AllReduce as AllReduce,
    )
    from noria.training.distributed import (
        Average as Average,
    )
    from noria.training.distributed import (
        DistributedTraining as DistributedTraining,
    )
    from noria.training.distributed import (
        FederatedTraining as FederatedTraining,
    )
    from noria.training.distributed import (
        Histograms as Histograms,
    )
    from noria.training.distributed import (
        Stack as Stack,
    )
    from noria.training.distributed import (
        Vote as Vote,
    )
    from noria.training.search import (
        Auto as Auto,
    )
    from noria.training.search import (
        choice as choice,
    )
    from noria.training.search import (
        integer as integer,
    )
    from noria.training.search import (
        log as log,
    )
    from noria.training.search import (
        tune as tune,
    )
    from noria.training.search import (
        uniform as uniform,
    )
else:

    def __getattr__(name: str) -> Any:
        if name not in _ORIGIN:
            from noria.core.errors import allowed

            hint = allowed(__all__, name).partition("?")[0]
            near = f"; {hint}?" if hint.startswith("did you mean") else ""
            raise AttributeError(f"module 'noria' has no attribute {name!r}{near}")
        value = getattr(import_module(_ORIGIN[name]), name)
        globals()[name] = value  # the next look-up finds it at once
        return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
