"""Expressions as text that is equal for equal expressions only, and as data from which they can be made again."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import polars as pl

_PYTHON = b"PLPYFN"
"""What Polars begins a pickled function with."""


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


def saved(expression: pl.Expr) -> dict[str, str]:
    """The expression as JSON data."""
    return {"text": str(expression), "polars": base64.b64encode(expression.meta.serialize()).decode()}


def saved_or_text(expression: pl.Expr) -> dict[str, str]:
    """The expression as JSON data; of one that calls a Python function its text alone."""
    import polars as pl

    try:
        whole = expression.meta.serialize()
    except pl.exceptions.PolarsError:
        return {"text": str(expression)}
    return {"text": str(expression)} if _PYTHON in whole else saved(expression)


def loaded(state: Mapping[str, str], *, by_row: bool = True) -> pl.Expr:
    """The reverse of `saved`.

    Args:
        by_row: whether it has to be an expression over one row at a time; one with a Python function is never loaded.

    Raises:
        DataError: another version of Polars wrote it.
        ConfigError: it isn't an expression over one row at a time, or calls a Python function.
    """
    import msgspec
    import polars as pl

    from noria.core import ConfigError, DataError
    from noria.pipelines.steps.expression_tree import verify

    whole = base64.b64decode(state["polars"])
    try:
        if _PYTHON in whole:  # before Polars unpickles a function from it
            raise ConfigError(f"the saved expression {state['text']} calls a Python function, which isn't run")
        if by_row:
            verify(msgspec.msgpack.decode(whole), "a saved expression")
        return pl.Expr.deserialize(whole)
    except (pl.exceptions.PolarsError, msgspec.DecodeError) as error:
        raise DataError(
            f"the saved expression {state['text']} can't be read by this version of Polars: {error}",
            hint="fit it again: noria run --full",
        ) from error
