"""Expressions as text that is equal for equal expressions only, so that a changed one is seen to be changed."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import polars as pl


def definition(expression: pl.Expr) -> str:
    """The expression as people read it, and a hash of the whole (what is shown leaves out long lists).

    An expression with a Python function is known by its text alone.
    """
    import polars as pl

    try:
        whole = expression.meta.serialize()
    except pl.exceptions.PolarsError:
        return str(expression)
    return f"{expression} #{hashlib.sha256(whole).hexdigest()[:12]}"
