"""features: what is known about an entity at a time.

A `FeatureGroup` says it once: attributes (the latest value) and aggregates over windows of an entity's events. The
`FeatureStore` gives training sets in which each label sees only events strictly before it, puts the newest values into
the online store, and reads them back for one or many entities. Both paths are the same code, so that training and
serving can't disagree.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from noria.features.definitions import Feature, count, last, latest, max, mean, min, sum  # noqa: A004
    from noria.features.group import FeatureGroup
    from noria.features.online import OnlineFeatures, OnlineReader, OnlineSpec
    from noria.features.store import FeatureStore, Materialized

_ORIGIN = {
    **dict.fromkeys(("Feature", "count", "last", "latest", "max", "mean", "min", "sum"), "definitions"),
    "FeatureGroup": "group",
    "FeatureStore": "store",
    "Materialized": "store",
    **dict.fromkeys(("OnlineFeatures", "OnlineReader", "OnlineSpec"), "online"),
}

__all__ = [
    "Feature",
    "FeatureGroup",
    "FeatureStore",
    "Materialized",
    "OnlineFeatures",
    "OnlineReader",
    "OnlineSpec",
    "count",
    "last",
    "latest",
    "max",
    "mean",
    "min",
    "sum",
]


def __getattr__(name: str) -> Any:
    if name not in _ORIGIN:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_ORIGIN[name]}"), name)
