"""Layout: what all pages have in common, and the buttons and forms by which they act."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

from noria.core import NoriaError
from noria.core.markup import style
from noria.monitoring.console.html import Child, Markup, tag

_PLACES = (
    ("/", "Overview"),
    ("/servers", "Servers"),
    ("/predictions", "Predictions"),
    ("/keys", "Keys"),
    ("/audit", "Audit"),
    ("/docs", "API"),
)


@dataclass(frozen=True)
class Page:
    """A page.

    Attributes:
        title: what it is of.
        parts: its contents.
        place: the address in the navigation to which it belongs.
        live: whether it is brought up to date every few seconds.
    """

    title: str
    parts: tuple[Child, ...]
    place: str = ""
    live: bool = False
    status: int = 200


def page(title: str, *parts: Child, place: str = "", live: bool = False) -> Page:
    """A page of these parts under its title."""
    return Page(title, (tag("h1", title), *parts), place, live)


def render(page: Page, nonce: str) -> str:
    """The whole document; `nonce` lets its own style and script through the content security policy."""
    links = [
        tag("a", name, href=place, aria_current="page" if place == page.place else None) for place, name in _PLACES
    ]
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("title", f"{page.title} · noria"),
        tag("link", rel="icon", href="data:,"),
        tag("style", style("noria.monitoring.console"), nonce=nonce),
    )
    body = tag(
        "body",
        tag("header", tag("a", "noria", href="/", class_="name"), tag("nav", links)),
        tag("main", page.parts, data_live=page.live),
        tag("noscript", tag("p", "Without JavaScript this page can be read; to act, use the command line.")),
        tag("dialog", id="dialog"),
        tag("script", _script(), nonce=nonce),
    )
    return "<!doctype html>" + tag("html", head, body, lang="en")


def failed(error: NoriaError, status: int) -> Page:
    """A page that says what is wrong."""
    parts = (
        tag("h1", _TITLES.get(status, "That didn't work")),
        tag("p", error.message),
        tag("p", error.hint, class_="quiet"),
    )
    return Page(f"{status}", parts, status=status)


_TITLES = {401: "An API key is needed", 403: "Not allowed", 404: "Not found", 421: "Another name", 503: "Not now"}


def button(
    label: str, post: str, *, ask: str, body: dict[str, Any] | None = None, why: bool = True, danger: bool = False
) -> Markup:
    """A button that asks back, with room for a reason if `why`, and then sends JSON to an address of the API."""
    return tag(
        "button",
        label,
        type="button",
        data_post=post,
        data_ask=ask,
        data_body=json.dumps(body or {}),
        data_why=why,
        class_="danger" if danger else None,
    )


def form(post: str, *fields: Child, submit: str, ask: str, why: bool = True) -> Markup:
    """A form that sends its fields as JSON: an empty one is left out, those with `data-kind` are more than text."""
    return tag("form", fields, tag("button", submit), data_post=post, data_ask=ask, data_why=why, autocomplete="off")


def labelled(label: str, name: str, **attributes: Any) -> Markup:
    """A field with its label."""
    return tag("label", tag("span", label), tag("input", name=name, **attributes))


def choice(label: str, name: str, options: dict[str, str], kind: str = "text") -> Markup:
    """A choice of values, by what they are called."""
    chosen = [tag("option", shown, value=value) for value, shown in options.items()]
    return tag("label", tag("span", label), tag("select", chosen, name=name, data_kind=kind))


def badge(word: str, kind: str = "") -> Markup:
    """A word that stands out: `good`, `bad`, `busy`, or quietly."""
    return tag("span", word, class_=f"badge {kind}".strip())


@cache
def _script() -> Markup:
    return Markup(resources.files(__package__ or "").joinpath("actions.js").read_text("utf-8"))
