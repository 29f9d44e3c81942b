"""From questions to values: a group's features as columns, and as the packed values of the online store."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from noria.core import Field
from noria.features.derivation import derive
from noria.features.group import FeatureGroup
from noria.features.moving import moves
from noria.features.online import pack_columns
from noria.features.timeline import Timeline
from noria.features.windows import Calculator, Questions
from noria.pipelines.dtypes import polars_type

_AT_ONCE = 10_000
"""Entities at a time: values as Python's objects take four times their size."""


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
