"""HTML of the console's pages: what `noria.core.markup` makes, and tables."""

from __future__ import annotations

from collections.abc import Iterable

from noria.core.markup import Child, Markup, tag, text

__all__ = ["Child", "Markup", "table", "tag", "text"]


def table(
    header: Iterable[Child], rows: Iterable[Iterable[Child]], *, right: Iterable[int] = (), empty: str = ""
) -> Markup:
    """A table; the columns whose positions are in `right` hold numbers."""
    numbers, body = set(right), [list(row) for row in rows]
    if not body:
        return tag("p", empty or "Nothing yet.", class_="quiet")

    def cells(kind: str, row: Iterable[Child]) -> list[Markup]:
        return [tag(kind, cell, class_="number" if at in numbers else None) for at, cell in enumerate(row)]

    head = tag("thead", tag("tr", cells("th", header)))
    made = tag("table", head, tag("tbody", (tag("tr", cells("td", row)) for row in body)))
    return tag("div", made, class_="wide")
