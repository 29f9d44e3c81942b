"""The tree of an expression, and whether what it gives for a row depends on that row only."""

from __future__ import annotations

from typing import Any

import msgspec
import polars as pl

from noria.core import ConfigError

_KINDS = ("Alias", "BinaryExpr", "Cast", "Column", "Function", "Literal", "Ternary")


def tree(expression: pl.Expr) -> Any:
    """The expression as plain data: `{"BinaryExpr": {"left": {"Column": "a"}, "op": "Plus", "right": …}}`."""
    return msgspec.msgpack.decode(expression.meta.serialize())


def subexpression(node: Any) -> pl.Expr:
    """The expression of a part of a tree."""
    return pl.Expr.deserialize(msgspec.msgpack.encode(node))


def children(node: Any) -> list[Any]:
    """The parts that a node is computed from."""
    ((kind, body),) = node.items()
    match kind:
        case "Alias":
            return [body[0]]
        case "BinaryExpr":
            return [body["left"], body["right"]]
        case "Cast":
            return [body["expr"]]
        case "Ternary":
            return [body["predicate"], body["truthy"], body["falsy"]]
        case "Function":
            return list(body["input"])
    return []


def verify(node: Any, what: str) -> None:
    """Make sure that an expression looks at one row at a time, and runs no Python code.

    Raises:
        ConfigError: it adds up, sorts, shifts or counts rows, or calls a Python function.
    """
    kind = next(iter(node)) if isinstance(node, dict) and len(node) == 1 else str(node)
    if kind == "AnonymousFunction":
        raise ConfigError(
            f"{what}: a Python function can't be saved with a step", hint="use Polars' own operations, or write a step"
        )
    if kind not in _KINDS or (kind == "Function" and not _by_row(node)) or _is_series(node):
        raise ConfigError(
            f"{what}: {_shown(node, kind)} looks at several rows",
            hint="what a step does to a row may depend on that row only",
        )
    within = children(node)
    if kind == "Function" and is_listing(node):
        within = within[:1]
    for part in within:
        verify(part, what)


def is_listing(node: Any) -> bool:
    """Whether it is a function that looks values up in lists that are written out."""
    function, inputs = node["Function"]["function"], node["Function"]["input"]
    name = str(next(iter(function.get("Boolean", function))) if isinstance(function, dict) else function)
    return name in ("IsIn", "Replace", "ReplaceStrict") and all("Literal" in part for part in inputs[1:])


def _is_series(node: Any) -> bool:
    return isinstance(node, dict) and "Literal" in node and "Series" in node["Literal"]


def _by_row(node: Any) -> bool:
    function = node["Function"]["function"]
    if isinstance(function, dict) and "IsIn" in str(function.get("Boolean")) and not is_listing(node):
        return False
    try:
        meta = subexpression(node).meta
        return bool(meta.is_row_separable()) and str(function) not in ("DropNulls", "DropNans")
    except pl.exceptions.PolarsError:
        return False


def _shown(node: Any, kind: str) -> str:
    try:
        return f"{subexpression(node)}"
    except pl.exceptions.PolarsError:
        return kind
