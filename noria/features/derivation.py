"""Features that are computed from other features, by the same expressions offline and online."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import polars as pl

from noria.core import ConfigError, Field, allowed
from noria.features.definitions import Feature
from noria.pipelines.dtypes import polars_type, type_name
from noria.pipelines.steps.derive import verify_expression
from noria.pipelines.steps.expression_rows import computed


def schema_of(types: Mapping[str, str]) -> pl.Schema:
    """The columns of features with these types, `list[…]` for lists."""
    return pl.Schema({name: _type(name, kind) for name, kind in types.items()})


def _type(name: str, kind: str) -> pl.DataType:
    if kind.startswith("list["):
        return pl.List(_type(name, kind[5:-1]))
    return polars_type(Field(name, kind))


def types_of(expressions: Mapping[str, pl.Expr], types: Mapping[str, str], group: str) -> dict[str, str]:
    """The types of features that are derived from features of these types.

    Raises:
        ConfigError: an expression can't be computed from them, or gives what no feature can be.
    """
    made = {}
    for name, expression in expressions.items():
        what = f"feature {group}.{name}"
        dtype = verify_expression(expression, schema_of(types), what)
        found = type_name(dtype)
        if found is None:
            raise ConfigError(
                f"{what}: {expression} is {dtype}, which no feature can be",
                hint=f"cast it: {allowed(['pl.Int64', 'pl.Float64', 'pl.String', 'pl.Boolean'])}",
                field=name,
            )
        made[name] = found
    return made


def derive(features: Mapping[str, Feature], made: list[pl.Series]) -> list[pl.Series]:
    """A group's features in their order, from those that aren't derived."""
    wanted = {name: f.expression for name, f in features.items() if f.expression is not None}
    columns = {column.name: column for column in made}
    if wanted:
        columns |= {column.name: column for column in computed(pl.DataFrame(made), wanted)}
    return [columns[name] for name in features]


def empty_of(features: Mapping[str, Feature], types: Mapping[str, str]) -> tuple[Any, ...]:
    """The features of an entity without events."""
    plain = {name: types[name] for name, feature in features.items() if feature.kind != "derived"}
    schema = schema_of(plain)
    made = [pl.Series(name, [features[name].empty], schema[name]) for name in plain]
    return tuple(_value(column) for column in derive(features, made))


def _value(column: pl.Series) -> Any:
    value = column[0]
    return value.to_list() if isinstance(value, pl.Series) else value
