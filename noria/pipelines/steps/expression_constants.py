"""Constants as columns, so that no value depends on how many different ones are beside it.

Polars divides a column by a number as a product with the number's reciprocal, and properly where both sides are
columns or both are numbers; and `when(…).then(1).otherwise(2)` is a number wherever all rows agree. With columns in the
place of those numbers there is one way only: the proper one.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import msgspec
import polars as pl

from noria.pipelines.steps.expression_tree import children, is_listing, subexpression

_DIVISIONS = ("TrueDivide", "FloorDivide", "Modulus")


@dataclass(frozen=True)
class Prepared:
    """An expression and the columns of one repeated value that it needs, by name."""

    expression: pl.Expr
    constants: dict[str, pl.Series] = field(default_factory=dict)


@lru_cache(1024)
def prepared(serialized: bytes, schema: tuple[tuple[str, pl.DataType], ...]) -> Prepared:
    """The expression for frames of a schema."""
    rewriting = _Rewriting(pl.DataFrame(schema=list(schema)))
    node = rewriting.rewritten(msgspec.msgpack.decode(serialized))
    return Prepared(subexpression(node), rewriting.constants) if rewriting.constants else Prepared(subexpression(node))


@dataclass(frozen=True)
class _Rewriting:
    empty: pl.DataFrame
    constants: dict[str, pl.Series] = field(default_factory=dict)

    def rewritten(self, node: Any) -> Any:
        ((kind, body),) = node.items()
        match kind:
            case "Alias":
                return {kind: [self.rewritten(body[0]), body[1]]}
            case "Cast":
                return {kind: {**body, "expr": self.rewritten(body["expr"])}}
            case "BinaryExpr":
                left, right = self.rewritten(body["left"]), self.rewritten(body["right"])
                if body["op"] in _DIVISIONS:
                    right = self._column(body["right"], node) or right
                return {kind: {**body, "left": left, "right": right}}
            case "Ternary":
                parts = {
                    name: self._column(body[name], node) or self.rewritten(body[name]) for name in ("truthy", "falsy")
                }
                return {kind: {**body, "predicate": self.rewritten(body["predicate"]), **parts}}
            case "Function":
                return {kind: {**body, "input": self._inputs(node)}}
        return node

    def _inputs(self, node: Any) -> list[Any]:
        inputs = children(node)
        if is_listing(node):
            return [self.rewritten(inputs[0]), *inputs[1:]]
        if node["Function"]["function"] not in ("FillNull", "Coalesce"):
            return [self.rewritten(part) for part in inputs]
        return [self._column(part, node) or self.rewritten(part) for part in inputs]

    def _column(self, part: Any, node: Any) -> Any:
        """A column for a part without columns, of the type of the whole; None for any other part."""
        if subexpression(part).meta.root_names() or not subexpression(node).meta.root_names():
            return None
        dtype = self.empty.select(subexpression(node)).dtypes[0]
        value = pl.select(subexpression(part)).to_series()
        if not dtype.is_numeric() or value.dtype == pl.Null:
            return None
        name = f"__constant_{len(self.constants)}__"
        self.constants[name] = value.cast(dtype)
        return {"Column": name}
