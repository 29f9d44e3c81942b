"""From questions to values: a group's features as columns, and as the packed values of the online store."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl
from numpy.typing import NDArray

from noria.core import Field, duration
from noria.features.derivation import derive
from noria.features.group import FeatureGroup
from noria.features.moving import moves
from noria.features.online import pack_columns
from noria.features.timeline import Timeline
from noria.features.windows import Calculator, Questions
from noria.pipelines.dtypes import polars_type

_AT_ONCE = 10_000
"""Entities at a time: values as Python's objects take four times their size."""


def when(group: FeatureGroup, at: NDArray[np.int64]) -> NDArray[np.int64]:
    """The instants; without event times every row has happened already."""
    return at if group.source.time is not None else np.full(len(at), np.iinfo(np.int64).max)


def features(
    group: FeatureGroup, calculator: Calculator, questions: Questions, names: Sequence[str] | None = None
) -> list[pl.Series]:
    """The group's features, or some of them, by their own names."""
    names = list(group.features) if names is None else names
    wanted = dict.fromkeys(names)
    for name in names:
        wanted |= dict.fromkeys(group.features[name].inputs)
    made = [
        calculator.compute(feature, questions, type_of(group, name)).alias(name)
        for name, feature in group.features.items()
        if name in wanted and feature.expression is None
    ]
    columns = {column.name: column for column in derive({n: group.features[n] for n in wanted}, made)}
    return [columns[name] for name in names]


def type_of(group: FeatureGroup, name: str) -> pl.DataType:
    """The type of a feature's values; of a list's elements."""
    return polars_type(Field(name, group.types()[name].removeprefix("list[").removesuffix("]")))


def as_of(
    groups: Sequence[FeatureGroup], line: Timeline, ids: pl.DataFrame, at: NDArray[np.int64]
) -> list[list[pl.Series]]:
    """Each group's features of these entities as of these instants, by their full names; expired ones are missing.

    Args:
        groups: of the timeline's source and entity, which share what is worked out for it.
        ids: [rows] in the columns of the entity.
        at: [rows] microseconds.
    """
    calculator = Calculator(line)
    questions = calculator.ask(line.numbers(ids), when(groups[0], at))
    made = []
    for group in groups:
        columns = features(group, calculator, questions)
        if group.ttl is not None:
            newest, exists = calculator.newest(questions)
            expired = pl.Series(exists & (newest < at - duration(group.ttl)))
            columns = [column.set(expired, None) for column in columns]
        made.append([column.alias(f"{group.name}.{column.name}") for column in columns])
    return made


def packed(
    group: FeatureGroup,
    calculator: Calculator,
    line: Timeline,
    questions: Questions,
    times: Sequence[int | None],
    columns: Sequence[pl.Series],
) -> list[bytes]:
    """What the online store keeps of each question's entity.

    Args:
        group: whose features they are.
        calculator: over the events.
        line: the events.
        questions: one for each entity.
        times: of the newest events.
        columns: the features, in the order of the group.
    """
    columns, faded = list(columns), []
    names, segments = list(group.features), group.segments()
    for place, _ in group.fading():  # as of the newest value; the reader lets it fade from there on
        columns[place], when = calculator.fading(group.features[names[place]], questions)
        faded.append(when)
    values: list[bytes] = []
    for start in range(0, len(times), _AT_ONCE):
        part = slice(start, start + _AT_ONCE)
        plain = [column[part].to_list() for column in columns]
        if segments:
            mine = Questions(questions.numbers[part], questions.at[part], questions.ends[part])
            plain += moves(
                line,
                mine,
                segments,
                lambda later, places: features(group, calculator, later, [names[place] for place in places]),
            )
        values += pack_columns(times[part], [*plain, *(when[part].to_list() for when in faded)])
    return values
