"""From an expression's tree to a Python function of one row, for the operations that are common."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any

import polars as pl

from noria.pipelines.steps.expression_operators import binary, compared
from noria.pipelines.steps.expression_tree import children, is_listing, subexpression
from noria.pipelines.steps.expression_values import (
    BOOL,
    FLOAT,
    INT,
    TEXT,
    Function,
    Typed,
    UnsureError,
    applied,
    cast,
    converted,
)
from noria.pipelines.steps.step import Row, limits


def compile_tree(node: Any, schema: pl.Schema) -> Typed:
    """The function.

    Raises:
        UnsureError: for an operation or a type that Python wouldn't treat as Polars does.
    """
    ((kind, body),) = node.items()
    if kind == "Alias":
        return compile_tree(body[0], schema)
    if kind == "Literal":
        return _literal(body)
    dtype = _dtype(node, schema)
    if kind == "Column":
        return Typed(operator.itemgetter(body), dtype)
    if kind == "BinaryExpr":
        left, right = (compile_tree(part, schema) for part in children(node))
        return binary(body["op"], left, right, dtype, _common(body["left"], body["right"], schema))
    if kind == "Ternary":
        predicate, truthy, falsy = (compile_tree(part, schema) for part in children(node))
        return _ternary(predicate, truthy, falsy, dtype)
    if kind == "Cast":
        return _cast(compile_tree(body["expr"], schema), dtype, body["options"])
    if kind == "Function":
        return _function(node, schema, dtype)
    raise UnsureError


def _dtype(node: Any, schema: pl.Schema) -> pl.DataType:
    return pl.DataFrame(schema=schema).select(subexpression(node)).dtypes[0]


def _common(left: Any, right: Any, schema: pl.Schema) -> pl.DataType | None:
    """The type in which two numbers are compared: that of their sum."""
    try:
        return _dtype({"BinaryExpr": {"left": left, "op": "Plus", "right": right}}, schema)
    except pl.exceptions.PolarsError:
        return None


def _literal(body: Any) -> Typed:
    ((form, inner),) = body.items()
    ((name, value),) = inner.items()
    if form == "Scalar" and name == "Null":
        return Typed(lambda row: None, pl.Null())
    if form == "Dyn" and name in ("Int", "Float"):
        value = int.from_bytes(value, "big", signed=True) if isinstance(value, bytes) else value
        return Typed(lambda row: value, INT if name == "Int" else FLOAT, written=value)
    if form == "Scalar" and name in ("Boolean", "String") and value is not None:
        return Typed(lambda row: value, BOOL if name == "Boolean" else TEXT, written=value)
    raise UnsureError


def _branch(typed: Typed, dtype: pl.DataType) -> Callable[[Row], Any]:
    return typed.value if typed.dtype == pl.Null() else converted(typed, dtype)


def _ternary(predicate: Typed, truthy: Typed, falsy: Typed, dtype: pl.DataType) -> Typed:
    if predicate.dtype != BOOL or predicate.is_written:
        raise UnsureError
    test, a, b = predicate.value, _branch(truthy, dtype), _branch(falsy, dtype)
    return Typed(lambda row: a(row) if test(row) else b(row), dtype)


def _cast(typed: Typed, dtype: pl.DataType, options: str) -> Typed:
    if options not in ("Strict", "NonStrict") or typed.is_written:
        raise UnsureError
    change = cast(typed.dtype, dtype, options == "Strict")
    return Typed(typed.value if change is None else applied(change, typed.value), dtype)


def _function(node: Any, schema: pl.Schema, dtype: pl.DataType) -> Typed:
    function, inputs = node["Function"]["function"], children(node)
    (name, option), *rest = _names(function)
    if rest:
        raise UnsureError
    if name == "IsIn" and is_listing(node):
        return _is_in(compile_tree(inputs[0], schema), inputs[1], option)
    typed = [compile_tree(part, schema) for part in inputs]
    if typed[0].is_written or typed[0].dtype == pl.Null():
        raise UnsureError
    if name in ("FillNull", "Coalesce"):
        return _first_known(typed, dtype)
    if name == "IsBetween":
        ends = [_common(inputs[0], end, schema) for end in inputs[1:]]
        return _is_between(typed, ends, option["closed"])
    if name in _TEXT and typed[0].dtype == TEXT and all(isinstance(t.written, str) for t in typed[1:]):
        return Typed(applied(_TEXT[name](*(t.written for t in typed[1:])), typed[0].value), dtype)
    if len(typed) == 1:
        return _of_one(name, typed[0], dtype)
    raise UnsureError


def _names(function: Any) -> list[tuple[str, Any]]:
    """`{"Boolean": {"IsIn": {…}}}` and `"Abs"` as names with options."""
    if isinstance(function, str):
        return [(function, None)]
    ((outer, inner),) = function.items()
    if outer not in ("Boolean", "StringExpr", "Pow"):
        return [(outer, inner)]
    if isinstance(inner, str):
        return [(inner, None)]
    return list(inner.items())


def _of_one(name: str, typed: Typed, dtype: pl.DataType) -> Typed:
    x = typed.value
    if name == "IsNull":
        return Typed(lambda row: x(row) is None, BOOL)
    if name == "IsNotNull":
        return Typed(lambda row: x(row) is not None, BOOL)
    if name == "Not" and typed.dtype == BOOL:
        return Typed(applied(operator.not_, x), BOOL)
    if name in ("Abs", "Negate") and typed.dtype == dtype and (dtype.is_float() or dtype.is_signed_integer()):
        return Typed(applied(_signed(abs if name == "Abs" else operator.neg, dtype), x), dtype)
    if name == "Log1p" and typed.dtype == FLOAT:
        return Typed(applied(_log1p, x), dtype)
    if name == "Sqrt" and typed.dtype == FLOAT:
        return Typed(applied(_sqrt, x), dtype)
    raise UnsureError


def _signed(change: Function, dtype: pl.DataType) -> Function:
    if dtype.is_float():
        return change
    least, _ = limits(dtype)

    def signed(value: int) -> Any:
        if value == least:
            raise UnsureError  # its negative is too large for the type
        return change(value)

    return signed


def _log1p(value: float) -> float:
    if not value > -1.0:
        raise UnsureError
    return math.log1p(value)


def _sqrt(value: float) -> float:
    if not value >= 0.0:
        raise UnsureError
    return math.sqrt(value)


def _first_known(typed: list[Typed], dtype: pl.DataType) -> Typed:
    values = [_branch(part, dtype) for part in typed]

    def first(row: Row) -> Any:
        for value in values:
            found = value(row)
            if found is not None:
                return found
        return None

    return Typed(first, dtype)


def _is_in(typed: Typed, listed: Any, options: Any) -> Typed:
    values = pl.select(subexpression(listed)).to_series()
    if isinstance(values.dtype, pl.List):
        values = values.explode()
    exact = typed.dtype.is_integer() and values.dtype.is_integer()
    if not exact and not typed.dtype == TEXT == values.dtype:
        raise UnsureError
    if typed.is_written or options["nulls_equal"] or values.null_count():
        raise UnsureError
    known = frozenset(values.to_list())
    return Typed(applied(known.__contains__, typed.value), BOOL)


def _is_between(typed: list[Typed], common: list[pl.DataType | None], closed: str) -> Typed:
    value, low, high = typed
    above = operator.ge if closed in ("Both", "Left") else operator.gt
    below = operator.le if closed in ("Both", "Right") else operator.lt
    return binary("And", compared(above, value, low, common[0]), compared(below, value, high, common[1]), BOOL, None)


def _ascii(change: Callable[[str], str]) -> Callable[[], Function]:
    def changed(value: str) -> str:
        if not value.isascii():
            raise UnsureError  # Python and Rust may know different versions of Unicode
        return change(value)

    return lambda: changed


_TEXT: dict[str, Callable[..., Function]] = {
    "Lowercase": _ascii(str.lower),
    "Uppercase": _ascii(str.upper),
    "LenChars": lambda: len,
    "LenBytes": lambda: lambda value: len(value.encode()),
    "StartsWith": lambda start: lambda value: value.startswith(start),
    "EndsWith": lambda end: lambda value: value.endswith(end),
}
