"""A confidence interval as a small picture: a line from end to end, the estimate, no difference, what is tolerated."""

from __future__ import annotations

import math

from noria.monitoring.console.html import Markup, tag
from noria.monitoring.judge import Comparison

_WIDTH, _HEIGHT, _EDGE = 320, 34, 34


def drawn(one: Comparison) -> Markup | None:
    """The picture; None while nothing is known."""
    low, high = one.difference.lower, one.difference.upper
    if not (math.isfinite(low) and math.isfinite(high)) or one.tried is None or one.control is None:
        return None
    same = 1.0 if one.question == "latency" else 0.0
    estimate = one.tried / one.control if one.question == "latency" and one.control else one.tried - one.control
    marks = [value for value in (low, high, same, one.tolerated, estimate) if math.isfinite(value)]
    first, last = min(marks), max(marks)
    room = (last - first or 1.0) * 0.08

    def x(value: float) -> float:
        part = (min(max(value, first - room), last + room) - first + room) / (last - first + 2 * room)
        return round(_EDGE + part * (_WIDTH - 2 * _EDGE), 1)

    def upright(value: float, kind: str) -> Markup:
        return tag("line", x1=x(value), x2=x(value), y1=3, y2=23, class_=kind)

    near, after = abs(x(one.tolerated) - x(same)) < 40, one.tolerated >= same
    anchors = ("end", "start") if near and after else ("start", "end") if near else ("middle", "middle")
    gap = 3 if near else 0
    gap = gap if after else -gap
    words = f"{one.question}: {low:.3g} to {high:.3g}, tolerated {one.tolerated:.3g}: {one.finding}"
    return tag(
        "svg",
        tag("title", words),
        tag("line", x1=0, x2=_WIDTH, y1=23, y2=23, class_="axis"),
        upright(same, "same"),
        upright(one.tolerated, "limit"),
        tag("line", x1=x(low), x2=x(high), y1=13, y2=13, class_=f"span {one.finding}"),
        tag("circle", cx=x(estimate), cy=13, r=4, class_=one.finding),
        tag("text", "same", x=x(same) - gap, y=33, text_anchor=anchors[0]),
        tag("text", "limit", x=x(one.tolerated) + gap, y=33, text_anchor=anchors[1]),
        viewBox=f"0 0 {_WIDTH} {_HEIGHT}",
        width=_WIDTH,
        height=_HEIGHT,
        role="img",
    )
