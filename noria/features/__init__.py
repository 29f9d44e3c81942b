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
    from noria.features.entity import Entity, check_entities
    from noria.features.group import FeatureGroup
    from noria.features.materializer import Materialized
    from noria.features.on_demand import BoundOnDemand, OnDemand, bound
    from noria.features.online import OnlineFeatures, OnlineReader, OnlineSpec
    from noria.features.online_groups import OnlineGroups
    from noria.features.store import FeatureStore

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
    **dict.fromkeys(("Entity", "check_entities"), "entity"),
    "FeatureGroup": "group",
    **dict.fromkeys(("BoundOnDemand", "OnDemand", "bound"), "on_demand"),
    "FeatureStore": "store",
    "Materialized": "materializer",
    "OnlineGroups": "online_groups",
    **dict.fromkeys(("OnlineFeatures", "OnlineReader", "OnlineSpec"), "online"),
}

__all__ = [
    "Backfilled",
    "BoundOnDemand",
    "Entity",
    "Feature",
    "FeatureGroup",
    "FeatureStore",
    "Materialized",
    "OnDemand",
    "OnlineFeatures",
    "OnlineGroups",
    "OnlineReader",
    "OnlineSpec",
    "bound",
    "check_entities",
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
