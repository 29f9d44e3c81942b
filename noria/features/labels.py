"""Labels: rows with entities and an instant, for which features are asked."""

from __future__ import annotations

import numpy as np
import polars as pl
from numpy.typing import NDArray

from noria.core import ConfigError, DataError, allowed
from noria.features.events import check_ids
from noria.features.group import FeatureGroup


def instants(labels: pl.DataFrame, time: str) -> NDArray[np.int64]:
    """The labels' times in microseconds.

    Raises:
        ConfigError: there is no such column, or it has no instants.
        DataError: a label has no time.
    """
    if time not in labels.columns:
        raise ConfigError(f"the labels have no column {time!r}", hint=allowed(labels.columns, time), field=time)
    if not isinstance(labels.schema[time], pl.Datetime):
        raise ConfigError(
            f"the labels' time {time!r} is {labels.schema[time]}", hint="cast it to pl.Datetime", field=time
        )
    if labels[time].null_count():
        raise DataError(f"{labels[time].null_count()} labels have no {time!r}", hint="filter them out", field=time)
    return labels[time].dt.timestamp("us").to_numpy().astype(np.int64)


def check_labels(labels: pl.DataFrame, group: FeatureGroup) -> None:
    """Raise a `ConfigError` if a group's features can't be added to such labels."""
    for key in group.keys:
        if key not in labels.columns:
            raise ConfigError(f"the labels have no column {key!r}", hint=allowed(labels.columns, key), field=key)
    check_ids(labels, group)
    for name in group.features:
        if f"{group.name}.{name}" in labels.columns:
            raise ConfigError(
                f"there is already a column '{group.name}.{name}'",
                hint="give each group once, and each its own name; rename a column of the labels",
                field=f"{group.name}.{name}",
            )
