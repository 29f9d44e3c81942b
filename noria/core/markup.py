"""HTML that is safe by its making: whatever isn't markup already is escaped when it becomes part of some."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from html import escape
from importlib import resources
from typing import Any, TypeAlias

_VOID = frozenset({"br", "hr", "input", "meta", "link"})


class Markup(str):
    """Text that is HTML; only `tag` and constants in code make it."""

    __slots__ = ()


Child: TypeAlias = "str | int | float | Iterable[Any] | None"


def text(child: Child) -> Markup:
    """Any child as markup: text is escaped, None is nothing, an iterable is its parts.

    >>> text(["<script>", Markup("<br>"), None, 7])
    '&lt;script&gt;<br>7'
    """
    if isinstance(child, Markup):
        return child
    if child is None:
        return Markup("")
    if isinstance(child, (str, int, float)):
        return Markup(escape(str(child)))
    return Markup("".join(text(one) for one in child))


def tag(name: str, /, *children: Child, **attributes: Any) -> Markup:
    """An element. `class_` is `class`, `data_post` is `data-post`; True has no value; None and False aren't there.

    >>> tag("a", "R&D", href='/x"', class_="plain", hidden=False)
    '<a href="/x&quot;" class="plain">R&amp;D</a>'
    """
    parts = [name]
    for key, value in attributes.items():
        word = key.rstrip("_").replace("_", "-")
        if value is True:
            parts.append(word)
        elif value is not None and value is not False:
            parts.append(f'{word}="{escape(str(value))}"')
    start = f"<{' '.join(parts)}>"
    return Markup(start if name in _VOID else f"{start}{text(children)}</{name}>")


@cache
def style(package: str) -> Markup:
    """The contents of a page's `style`: what all pages of noria share, and the package's own `style.css`."""
    sheets = (resources.files(one).joinpath("style.css").read_text("utf-8") for one in ("noria.core", package))
    return Markup("".join(sheets))
