"""Tabular: what foreign protocols ask of a servable that answers rows; each protocol is a way to write columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

from noria.core import Field, RequestError, Schema
from noria.serving.servable import Servable

if TYPE_CHECKING:
    import polars as pl

MAX_CELLS = 5_000_000
"""The most values that rows with names may become, those that they don't have included."""

Column: TypeAlias = "Sequence[Any] | NDArray[Any] | pl.Series"
"""Values [n] of one input: a list of plain values (None where one is missing), an array, or a series."""


class Tabular(Servable, Protocol):
    """A servable whose operation `predict` reads rows of a table.

    Rows that arrive as columns mean the same as rows that arrive as JSON, whatever the protocol: `table` makes of them
    the request that `decode` would have made. In a float column NaN is a missing value.
    """

    @property
    def inputs(self) -> Schema:
        """The columns of a row, in order."""
        ...

    @property
    def lookup(self) -> Schema | None:
        """The columns of a row whose other inputs are looked up; None where nothing is."""
        ...

    @property
    def outputs(self) -> Mapping[str, str]:
        """What `columns` gives: name to type, as in a schema."""
        ...

    def table(self, columns: Mapping[str, Column]) -> Any:
        """The request of operation `predict` for rows that are given as columns, [n] each.

        All inputs are instances; the keys of entities with the rows' own columns are looked up.

        Raises:
            RequestError: a column is missing, unknown, too long or short, or holds a wrong value; `field` names it,
                as in `hour[3]`.
        """
        ...

    def columns(self, answer: Any) -> dict[str, Sequence[Any]]:
        """An answer's columns, [n] each: `predictions`, `scores` where there are, `versions` where several answered."""
        ...


def is_tabular(servable: Servable) -> bool:
    """Whether it reads tables."""
    return hasattr(servable, "table") and "predict" in servable.operations


def check_tabular(servable: Servable) -> Tabular:
    """The servable, if it reads tables.

    Raises:
        RequestError: it doesn't.
    """
    if is_tabular(servable):
        return cast(Tabular, servable)
    raise RequestError(
        f"model {servable.model!r} doesn't predict from rows of a table",
        hint=" or ".join(f"POST /models/{servable.model}/{operation}" for operation in servable.operations),
    )


def fields_of(servable: Tabular) -> dict[str, Field]:
    """All columns that a row may have."""
    return {field.name: field for field in (*(servable.lookup or ()), *servable.inputs)}


def matrix_columns(matrix: Sequence[Sequence[Any]] | NDArray[Any], names: Sequence[str]) -> dict[str, Column]:
    """The columns of rows that have no names: a row's values stand in the order of the model's inputs.

    >>> matrix_columns([[1, "a"], [2, "b"]], ["hour", "shop"])
    {'hour': [1, 2], 'shop': ['a', 'b']}

    Raises:
        RequestError: a row has more or fewer values than the model has inputs.
    """
    if isinstance(matrix, np.ndarray):
        widths = {matrix.shape[1]}
    else:
        widths = {len(row) if isinstance(row, (list, tuple)) else -1 for row in matrix}
    for width in widths - {len(names)}:
        told = "a row is no list" if width < 0 else f"a row has {width} values"
        raise RequestError(
            f"{told}; the model reads {len(names)}", status=422, hint=f"in this order: {', '.join(names)}"
        )
    if isinstance(matrix, np.ndarray):
        return {name: matrix[:, place] for place, name in enumerate(names)}
    return {name: list(column) for name, column in zip(names, zip(*matrix, strict=True), strict=False)}


def record_columns(records: Sequence[Mapping[str, Any]]) -> dict[str, Column]:
    """The columns of rows that have names; a value that a row doesn't have is missing.

    >>> record_columns([{"hour": 1, "shop": "a"}, {"hour": 2}])
    {'hour': [1, 2], 'shop': ['a', None]}

    Raises:
        RequestError: the rows have so many different names that their table would be huge.
    """
    names = dict.fromkeys(name for record in records for name in record)
    if len(names) * len(records) > MAX_CELLS:
        raise RequestError(
            f"{len(records)} rows with {len(names)} different names", status=422, hint="send fewer rows at a time"
        )
    return {name: [record.get(name) for record in records] for name in names}
