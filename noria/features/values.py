"""The values of groups: what a group's features are for questions, and as of instants."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl
from numpy.typing import NDArray

from noria.core import Field, duration
from noria.features.derivation import derive
from noria.features.group import FeatureGroup
from noria.features.timeline import Timeline
from noria.features.windows import Calculator, Questions
from noria.pipelines.dtypes import polars_type


def when(group: FeatureGroup, at: NDArray[np.int64]) -> NDArray[np.int64]:
    """The instants; without event times every row has happened already."""
    return at if group.source.time is not None else np.full(len(at), np.iinfo(np.int64).max)


def values(group: FeatureGroup, calculator: Calculator, questions: Questions) -> list[pl.Series]:
    """The group's features as columns named `group.feature`."""
    types, made = group.types(), []
    for name, feature in group.features.items():
        if feature.expression is None:
            dtype = polars_type(Field(name, types[name].removeprefix("list[").removesuffix("]")))
            made.append(calculator.compute(feature, questions, dtype).alias(name))
    return [column.alias(f"{group.name}.{column.name}") for column in derive(group.features, made)]


def as_of(
    groups: Sequence[FeatureGroup], line: Timeline, ids: pl.DataFrame, at: NDArray[np.int64]
) -> list[list[pl.Series]]:
    """Each group's features of these entities as of these instants; expired ones are missing.

    Args:
        groups: of the timeline's source and entity, which share what is worked out for it.
        ids: [rows] in the columns of the entity.
        at: [rows] microseconds.
    """
    calculator = Calculator(line)
    questions = calculator.ask(line.numbers(ids), when(groups[0], at))
    made = []
    for group in groups:
        columns = values(group, calculator, questions)
        if group.ttl is not None:
            newest, exists = calculator.newest(questions)
            expired = pl.Series(exists & (newest < at - duration(group.ttl)))
            columns = [column.set(expired, None) for column in columns]
        made.append(columns)
    return made
