"""features: what is known about an entity at a time.

A `FeatureGroup` says it once: attributes (the latest value) and aggregates over windows of an entity's events. The
`FeatureStore` gives training sets in which each label sees only events strictly before it, puts the newest values into
the online store, and reads them back for one or many entities. Both paths are the same code, so that training and
serving can't disagree.
"""

from typing import TYPE_CHECKING

from noria.core.lazy import exports

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

__getattr__ = exports(__name__, _ORIGIN)
