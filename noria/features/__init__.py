"""features: what is known about an entity at a time.

A `FeatureGroup` says it once: attributes (the latest value) and aggregates over windows of an entity's events. The
`FeatureStore` gives training sets in which each label sees only events strictly before it, puts the newest values into
the online store, and reads them back for one or many entities. Both paths are the same code, so that training and
serving can't disagree.
"""

from typing import TYPE_CHECKING

from noria.core.lazy import exports

if TYPE_CHECKING:
    from noria.features.backfill import Backfilled
    from noria.features.definitions import (
        Feature,
        count,
        decayed_sum,
        derived,
        distinct,
        first,
        last,
        latest,
        max,  # noqa: A004
        mean,
        min,  # noqa: A004
        std,
        sum,  # noqa: A004
        top_k,
    )
    from noria.features.group import FeatureGroup
    from noria.features.online import OnlineFeatures, OnlineReader, OnlineSpec
    from noria.features.store import FeatureStore, Materialized

_ORIGIN = {
    "Backfilled": "backfill",
    **dict.fromkeys(
        (
            "Feature",
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
        "definitions",
    ),
    "FeatureGroup": "group",
    "FeatureStore": "store",
    "Materialized": "store",
    **dict.fromkeys(("OnlineFeatures", "OnlineReader", "OnlineSpec"), "online"),
}

__all__ = [
    "Backfilled",
    "Feature",
    "FeatureGroup",
    "FeatureStore",
    "Materialized",
    "OnlineFeatures",
    "OnlineReader",
    "OnlineSpec",
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
]

__getattr__ = exports(__name__, _ORIGIN)
