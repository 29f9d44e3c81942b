"""How values look on the pages: instants, numbers, metrics, JSON."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import msgspec

from noria.core import to_iso
from noria.monitoring.console.html import Markup, tag
from noria.monitoring.console.layout import badge
from noria.registry import CHAMPION, Deployment

_MOST = 20_000


def instant(at: int | str) -> Markup:
    """An instant in UTC, to the second."""
    text = (to_iso(at) if isinstance(at, int) else at)[:19]
    return tag("time", text.replace("T", " "), datetime=f"{text}Z")


def number(value: Any) -> str:
    """`1,234`, `0.9312`."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return str(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:,.4g}"


def rate(value: float) -> str:
    """A rate a second."""
    return f"{value:,.0f}" if value >= 100.0 else f"{value:.1f}" if value else "0"


def percent(share: float) -> str:
    """`12.5%`."""
    return f"{share * 100:.4g}%"


def metric(value: Any) -> str:
    """A metric as it was judged: a value, or a value with its interval."""
    if isinstance(value, (list, tuple)) and len(value) == 3:
        return f"{number(value[0])} [{number(value[1])}, {number(value[2])}]"
    return number(value)


def metrics(found: dict[str, Any], most: int = 4) -> Markup:
    """The first few metrics in a line."""
    shown = [tag("span", f"{name} ", tag("b", metric(value))) for name, value in list(found.items())[:most]]
    more = [f" and {len(found) - most} more"] if len(found) > most else []
    return tag("span", [part for one in shown for part in (one, ", ")][:-1], more)


def json(value: Any) -> Markup:
    """Any value as indented JSON, cut where it is very long."""
    text = msgspec.json.format(msgspec.json.encode(value, enc_hook=repr), indent=2).decode()
    return tag("pre", text if len(text) <= _MOST else f"{text[:_MOST]}\n… and {len(text) - _MOST:,} more characters")


def short(value: Any, most: int = 60) -> Markup:
    """Any value as JSON in one line, cut where it is long."""
    text = "" if value is None else msgspec.json.encode(value, enc_hook=repr).decode()
    return tag("code", text if len(text) <= most else f"{text[:most]}…")


def model(name: str) -> Markup:
    """A link to a model's page."""
    return tag("a", name, href=f"/models/{quote(name, safe='')}")


def deployment(one: Deployment) -> Markup:
    """A link to a model's deployment."""
    return tag("a", one.label, href=f"/deployments/{quote(one.model, safe='')}")


def state(one: Deployment) -> Markup:
    """Whether it runs."""
    kinds = {"running": "busy", "paused": "busy", "finished": "good", "aborted": "bad"}
    return badge(one.state, kinds[one.state])


def answering(one: Deployment) -> str:
    """Who answers, and for how many."""
    parts = [f"{variant.name} {variant.version}: {percent(variant.share)}" for variant in one.variants]
    return ", ".join([*parts, *([f"shadow {one.shadow} is asked on the side"] if one.shadow is not None else [])])


def aliases(version: int, known: dict[str, int]) -> list[Markup]:
    """The names that a version has."""
    return [badge(name, "good" if name == CHAMPION else "") for name, number in known.items() if number == version]
