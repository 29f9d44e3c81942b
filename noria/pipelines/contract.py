"""Contract: which rows hold what their source promises, and every reason of those that don't. Columns, not rows."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import polars as pl

from noria.core import Field, Schema, SchemaError
from noria.pipelines.checks import Check
from noria.pipelines.convert import as_text, can_convert, convert, is_missing
from noria.pipelines.rows import Rows

POSITION = "__position__"
"""A row's number, from 1, the header not counted."""
REASONS = "__reasons__"
TEXT = "__text__"

BAD: dict[str, pl.DataType] = {POSITION: pl.Int64(), REASONS: pl.List(pl.String), TEXT: pl.String()}
"""The columns of rows that break the contract; the text is the row as JSON, or as it stands in its file."""


@dataclass(frozen=True)
class Judged:
    """Rows that hold the contract with their positions, those that don't (`BAD`), and how many for each rule."""

    good: pl.DataFrame
    positions: pl.Series
    bad: pl.DataFrame
    by_rule: Counter[str]


def judge(rows: Rows, schema: Schema, checks: tuple[Check, ...]) -> Judged:
    """Convert every column to its type and try every rule that looks at one row.

    A row's reasons are texts such as `rating: 'abc' is not float32` or a check's name.

    Raises:
        SchemaError: a column has a type that can't become the schema's.
    """
    frame = rows.frame
    verify_types(frame.schema, schema)
    typed = pl.DataFrame([convert(field, frame[field.name]) for field in schema])
    rules: dict[str, pl.Series] = {}
    for field in schema:
        rules |= _type_rules(field, frame[field.name], typed[field.name])
    if checks:
        broken = typed.select(c.bad().fill_null(value=False).alias(str(n)) for n, c in enumerate(checks))
        rules |= {check.name: broken[str(n)] for n, check in enumerate(checks)}
    rules = {name: mask for name, mask in rules.items() if mask.any()}
    numbers = _numbers(rows)
    by_rule = Counter({name: int(mask.sum()) for name, mask in rules.items()})
    by_rule.update(broken.rule for broken in rows.broken)
    if not rules:
        return Judged(typed, numbers, _broken(rows), by_rule)
    is_bad = pl.select(pl.any_horizontal(list(rules.values()))).to_series()
    bad = _explained(rows, numbers, {name: mask.filter(is_bad) for name, mask in rules.items()}, is_bad, schema)
    return Judged(typed.filter(~is_bad), numbers.filter(~is_bad), pl.concat([bad, _broken(rows)]), by_rule)


def verify_types(types: pl.Schema, schema: Schema) -> None:
    """Raise a `SchemaError` if a column's type can't be meant for its field."""
    for field in schema:
        if not can_convert(field, types[field.name]):
            raise SchemaError(
                f"has {field.name!r} as {types[field.name]}, which can't become {field.spec()}",
                hint="change the schema, or the file",
                field=field.name,
            )


def _numbers(rows: Rows) -> pl.Series:
    if rows.positions is not None:
        return pl.Series(POSITION, rows.positions, pl.Int64)
    return pl.int_range(1, len(rows.frame) + 1, dtype=pl.Int64, eager=True).alias(POSITION)


def _type_rules(field: Field, raw: pl.Series, typed: pl.Series) -> dict[str, pl.Series]:
    if not typed.null_count():
        return {}
    missing = is_missing(field, raw)
    rules = {f"{field.name}: not {field.spec().removesuffix('?')}": typed.is_null() & ~missing}
    return rules if field.nullable else {**rules, f"{field.name}: missing": missing}


def _explained(
    rows: Rows, numbers: pl.Series, rules: dict[str, pl.Series], is_bad: pl.Series, schema: Schema
) -> pl.DataFrame:
    """The bad rows with every reason and their text."""
    raw = (rows.text() if rows.text is not None else rows.frame).filter(is_bad)
    text = raw.select(as_text(pl.col(name), raw.schema[name]).alias(name) for name in schema.names)
    unfit = {f"{field.name}: not {field.spec().removesuffix('?')}": field for field in schema}
    reasons = []
    for rule, mask in rules.items():
        said = pl.Series([rule], dtype=pl.String).new_from_index(0, len(mask))
        if rule in unfit:
            field = unfit[rule]
            shown = text[field.name].fill_null("").str.slice(0, 50)
            said = f"{field.name}: '" + shown + f"' is not {field.spec().removesuffix('?')}"
        reasons.append(said.set(~mask, None).alias(rule))
    return pl.DataFrame(
        {
            POSITION: numbers.filter(is_bad),
            REASONS: pl.DataFrame(reasons).select(pl.concat_list(pl.all()).list.drop_nulls()).to_series(),
            TEXT: text.select(pl.struct(pl.all()).struct.json_encode()).to_series(),
        },
        schema=BAD,
    )


def _broken(rows: Rows) -> pl.DataFrame:
    lines = rows.broken
    return pl.DataFrame(
        {
            POSITION: [line.position for line in lines],
            REASONS: [[line.reason] for line in lines],
            TEXT: [line.text for line in lines],
        },
        schema=BAD,
    )
