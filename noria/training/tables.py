"""Rows that arrive as columns, as foreign protocols and Arrow bring them, checked against a model's inputs.

Few rows become the request that their JSON would have been. Many rows of numbers and text stay columns from the wire
to the model's matrix: no Python object is made for a cell.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
import numpy as np
import polars as pl

from noria.core import Field, RequestError, Schema, allowed
from noria.core.schema import INTEGERS
from noria.pipelines.dtypes import polars_type
from noria.training.inputs import FEW, Matrix, ModelInputs

if TYPE_CHECKING:
    from noria.serving.tabular import Column

MAX_TABLE_ROWS = 100_000
"""The most rows that one request may hold as columns."""


T = TypeVar("T")


class Table:
    """A request of many rows: `frame` has the model's inputs, all of them, in order; checked.

    No dataclass: logs would write all its rows down, and get what `repr` says.
    """

    def __init__(self, frame: pl.DataFrame) -> None:
        self.frame = frame

    def __len__(self) -> int:
        return len(self.frame)

    def __repr__(self) -> str:
        return f"{len(self)} rows of {', '.join(self.frame.columns)}"

    def matrix(self, inputs: ModelInputs) -> Matrix:
        """What the estimator gets."""
        return inputs.matrix(self.frame)


class Numbers(Table):
    """Rows that have been read as the estimator gets them, without a frame."""

    def __init__(self, numbers: Matrix, schema: Schema) -> None:
        self._numbers, self._schema = numbers, schema

    def __len__(self) -> int:
        return len(self._numbers)

    def __repr__(self) -> str:
        return f"{len(self)} rows of {', '.join(self._schema.names)}"

    def matrix(self, inputs: ModelInputs) -> Matrix:
        return self._numbers

    def to_builtins(self) -> dict[str, Any]:
        """The request as it came, for logs; missing values are NaN, which JSON writes as null."""
        columns = [
            [int(value) if value == value else value for value in column]
            if field.dtype in INTEGERS
            else column.tolist()
            for field, column in zip(self._schema, self._numbers.T, strict=True)
        ]
        return {"instances": [dict(zip(self._schema.names, row, strict=True)) for row in zip(*columns, strict=True)]}


def check_names(given: Collection[str], inputs: Mapping[str, Field], lookup: Mapping[str, Field]) -> bool:
    """Whether these columns are instances (or else entities, to be looked up).

    Args:
        given: the columns' names.
        inputs: of the model, by name.
        lookup: the columns by which features are looked up, by name; none if nothing is.

    Raises:
        RequestError: they are neither.
    """
    for name in given:
        if name not in inputs and name not in lookup:
            known = allowed({*inputs, *lookup}, name)
            raise RequestError(f"the model has no input {name!r}", status=422, field=name, hint=known)
    missing = [name for name in inputs if name not in given]
    is_instance = all(name in inputs for name in given)
    if is_instance and not missing:
        return True
    lacking = [field.name for field in lookup.values() if field.name not in given and not field.nullable]
    if lookup and not lacking and all(name in lookup for name in given):
        return False
    needed = [name for name in missing if not inputs[name].nullable]
    if is_instance and not needed:
        return True
    lists = [needed if is_instance else missing, *([lacking] if lookup else [])]
    shortest = min((names for names in lists if names), key=len)
    also = f"; or the keys to look them up: {', '.join(lookup)}" if lookup else ""
    raise RequestError(
        f"the input {shortest[0]!r} is missing",
        status=422,
        field=shortest[0],
        hint=f"the model reads {', '.join(inputs)}{also}",
    )


def length_of(columns: Mapping[str, Column]) -> int:
    """How many rows there are.

    Raises:
        RequestError: the columns differ in length, or there are no rows, or too many.
    """
    lengths = {name: len(column) for name, column in columns.items()}
    rows = max(lengths.values(), default=0)
    for name, length in lengths.items():
        if length != rows:
            raise RequestError(
                f"{name} has {length} values, another column has {rows}",
                status=422,
                field=name,
                hint="give as many in each",
            )
    if not 1 <= rows <= MAX_TABLE_ROWS:
        raise RequestError(
            f"there are {rows} rows; allowed: 1 to {MAX_TABLE_ROWS}", status=422, hint="send fewer rows at a time"
        )
    return rows


def stays_columns(columns: Mapping[str, Column], rows: int, inputs: Schema) -> bool:
    """Whether rows are better kept as columns: they are many, and arrays or text already."""
    return rows > FEW and all(
        (field.is_number or field.dtype in ("bool", "str"))
        and (field.dtype == "str" or not isinstance(columns.get(field.name, ()), list))
        for field in inputs
    )


# --- few rows: plain values, which msgspec checks like those of JSON


def plain_rows(columns: Mapping[str, Column], inputs: Mapping[str, Field]) -> list[dict[str, Any]]:
    """Rows as JSON would have brought them; a float that is whole may stand for an integer, NaN for a missing value.

    Raises:
        RequestError: a number is infinite, or missing where it must not be.
    """
    lists = [_plain_values(inputs[name], values) for name, values in columns.items()]
    return [dict(zip(columns, row, strict=True)) for row in zip(*lists, strict=True)]


def _plain_values(field: Field, column: Column) -> list[Any]:
    values: list[Any]
    if isinstance(column, np.ndarray):
        values = column.tolist()
    else:
        values = column.to_list() if isinstance(column, pl.Series) else list(column)
    if field.is_number or field.dtype == "bool":
        return [_plain_number(field, place, v) if type(v) in (int, float) else v for place, v in enumerate(values)]
    return values


def _plain_number(field: Field, place: int, value: float) -> Any:
    if value != value and field.nullable:
        return None
    if value - value != 0:  # NaN, Infinity
        raise _wrong(field, place, "is not finite" if value == value else "is missing (NaN)")
    if field.dtype == "bool":
        return bool(value) if value in (0, 1) else value
    return int(value) if field.dtype.startswith("int") and value == int(value) else value


def convert_rows(rows: Sequence[Mapping[str, Any]], request: type[T], part: str) -> T:
    """The request with these rows as its `part`, checked by the same types as a JSON body.

    Raises:
        RequestError: a value has the wrong type or range.
    """
    try:
        return msgspec.convert({part: rows}, request)
    except msgspec.ValidationError as error:
        message, _, path = str(error).partition(" - at `$")
        found = re.search(r"\[(\d+)\](?:\.(.+))?`", path)
        field = f"{found[2]}[{found[1]}]" if found and found[2] else None
        raise RequestError(f"{field}: {message}" if field else message, status=422, field=field) from None


# --- many rows: columns


def checked_frame(columns: Mapping[str, Column], inputs: Schema, rows: int) -> pl.DataFrame:
    """The inputs as a frame of the types of their schema; those that aren't given are missing.

    Raises:
        RequestError: a value doesn't fit; the field is its place, as in `hour[3]`.
    """
    made = []
    for field in inputs:
        if field.name in columns:
            made.append(_checked(field, columns[field.name]).alias(field.name))
        else:
            made.append(pl.Series(field.name, [None], dtype=polars_type(field)).new_from_index(0, rows))
    return pl.DataFrame(made)


def _checked(field: Field, column: Column) -> pl.Series:
    given = _series(field, column)
    wanted = polars_type(field)
    if given.dtype.is_float() and (field.is_number or field.dtype == "bool"):
        if field.nullable:
            given = given.fill_nan(None)
        odd = ~given.is_finite()
        if odd.any():
            place = odd.fill_null(False).arg_max() or 0
            raise _wrong(field, place, "is missing (NaN)" if given.is_nan()[place] else "is not finite")
    if field.dtype == "str":
        fits = given.dtype in (pl.String, pl.Categorical, pl.Enum, pl.Null)
    elif field.dtype == "bool":
        fits = given.dtype in (pl.Boolean, pl.Null) or given.dtype.is_integer() or given.dtype.is_float()
    else:
        fits = given.dtype.is_integer() or given.dtype.is_float() or given.dtype == pl.Null
    if not fits:
        raise RequestError(
            f"{field.name} is {given.dtype}; the model reads {field.dtype}", status=422, field=field.name
        )
    made = given.cast(wanted, strict=False)
    _check_kept(field, given, made)
    if not field.nullable and made.null_count():
        raise _wrong(field, made.is_null().arg_max() or 0, "is missing")
    return made


def _series(field: Field, column: Column) -> pl.Series:
    if isinstance(column, pl.Series):
        is_empty = column.null_count() == len(column)
        return pl.Series([None]).new_from_index(0, len(column)) if is_empty else column  # a null has no type
    if isinstance(column, np.ndarray):
        return pl.Series(np.ascontiguousarray(column, dtype=np.float32 if column.dtype == np.float16 else None))
    try:
        return pl.Series(column, dtype=pl.String, strict=True)
    except TypeError:
        wrong = next(place for place, v in enumerate(column) if not isinstance(v, (str, type(None))))
        raise _wrong(field, wrong, f"is {type(column[wrong]).__name__}, not text") from None


def _check_kept(field: Field, given: pl.Series, made: pl.Series) -> None:
    """Refuse what a cast to integers or Booleans would change."""
    if field.dtype == "float32" and given.dtype.is_float():
        large = given.is_finite() & ~made.is_finite()
        if large.any():
            place = large.fill_null(False).arg_max() or 0
            raise _wrong(field, place, f"is {given[place]}, too large for float32")
    if field.dtype.startswith("float") or not (given.dtype.is_integer() or given.dtype.is_float()):
        return
    changed = (made.cast(given.dtype, strict=False) != given).fill_null(False) | (made.is_null() & given.is_not_null())
    if changed.any():
        place = changed.arg_max() or 0
        raise _wrong(field, place, f"is {given[place]}, which is no {field.dtype}")


def _wrong(field: Field, place: int, told: str) -> RequestError:
    where = f"{field.name}[{place}]"
    return RequestError(f"{where} {told}", status=422, field=where, hint=f"the model reads {field.spec()}")
