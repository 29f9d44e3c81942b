"""Charts as SVG: a plot with two axes, the few marks that reports need, and intervals that fit into a table's row.

Colours are classes that the page's style gives, so that one drawing serves light, dark and paper.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from noria.core.markup import Child, Markup, tag

WIDTH, HEIGHT = 360, 250
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 10, 8, 38


def ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Round numbers between two values, a few of them.

    >>> ticks(0, 1)
    [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    >>> ticks(3, 190)
    [50.0, 100.0, 150.0]
    """
    rough = (high - low) / most
    if not (math.isfinite(rough) and rough > 0):
        return [low]
    size = 10.0 ** math.floor(math.log10(rough))
    step = next(size * one for one in (1, 2, 5, 10) if size * one >= rough * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(at * step, 12) for at in range(first, last + 1)]


def number(value: float | None) -> str:
    """A number for people: four digits, no more than it needs.

    >>> number(0.73124), number(1234567), number(0.00001234), number(2.0)
    ('0.7312', '1,234,567', '1.234e-05', '2')
    """
    if value is None:
        return "–"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


@dataclass(frozen=True)
class Plot:
    """A plot's axes.

    Attributes:
        x: its first and last value.
        y: its first and last value.
    """

    x: tuple[float, float]
    y: tuple[float, float]

    def at_x(self, value: float) -> float:
        """Where a value lies, in pixels."""
        return _scaled(value, self.x, _LEFT, WIDTH - _RIGHT)

    def at_y(self, value: float) -> float:
        """Where a value lies, in pixels from the top."""
        return _scaled(value, self.y, HEIGHT - _BOTTOM, _TOP)

    def line(self, points: Sequence[Sequence[float]], kind: str) -> Markup:
        """A line through points."""
        return tag("polyline", points=self._path(points), class_=f"line {kind}")

    def area(self, points: Sequence[Sequence[float]], kind: str) -> Markup:
        """What is under a line."""
        floor = self.y[0]
        around_it = [(points[0][0], floor), *points, (points[-1][0], floor)]
        return tag("polygon", class_=f"area {kind}", points=self._path(around_it))

    def _path(self, points: Sequence[Sequence[float]]) -> str:
        return " ".join(f"{self.at_x(x)},{self.at_y(y)}" for x, y in points)

    def dot(self, x: float, y: float, kind: str, title: str) -> Markup:
        """A point, with words for who points at it."""
        return tag("circle", tag("title", title), cx=self.at_x(x), cy=self.at_y(y), r=3.5, class_=f"dot {kind}")

    def whisker(self, x: float, low: float, high: float, kind: str) -> Markup:
        """An upright interval."""
        at = self.at_x(x)
        return tag("line", x1=at, x2=at, y1=self.at_y(low), y2=self.at_y(high), class_=f"whisker {kind}")

    def bars(self, edges: Sequence[float], heights: Sequence[float], kind: str) -> list[Markup]:
        """Bars between edges."""
        return [
            self.box(left, right, 0.0, height, kind)
            for (left, right), height in zip(pairwise(edges), heights, strict=True)
            if height
        ]

    def box(
        self, left: float, right: float, low: float, high: float, kind: str, opacity: float | None = None
    ) -> Markup:
        """A filled rectangle."""
        x, y = self.at_x(left), self.at_y(high)
        width, height = round(self.at_x(right) - x, 1), round(self.at_y(low) - y, 1)
        return tag(
            "rect", x=x, y=y, width=max(0.5, width), height=max(0.5, height), class_=f"box {kind}", opacity=opacity
        )

    def drawn(self, *marks: Child, title: str, x: str, y: str, percent: bool = False) -> Markup:
        """The whole drawing.

        Args:
            marks: what is in it.
            title: what it says, for those who can't see it.
            x: what the axis shows.
            y: what the axis shows.
            percent: whether the upright axis shows shares of 1 as percentages.
        """
        bottom, right = HEIGHT - _BOTTOM, WIDTH - _RIGHT
        grid: list[Child] = []
        for value in ticks(*self.y):
            at = self.at_y(value)
            shown = f"{value * 100:g} %" if percent else short(value)
            grid.append(tag("line", x1=_LEFT, x2=right, y1=at, y2=at, class_="grid"))
            grid.append(tag("text", shown, x=_LEFT - 6, y=at + 3.5, text_anchor="end"))
        for value in ticks(*self.x):
            at = self.at_x(value)
            anchor = "end" if at > right - 8 else "middle"
            grid.append(tag("text", short(value), x=at, y=bottom + 15, text_anchor=anchor))
        axis = tag("line", x1=_LEFT, x2=right, y1=bottom, y2=bottom, class_="axis")
        names = [
            tag("text", x, x=(_LEFT + right) / 2, y=HEIGHT - 6, text_anchor="middle", class_="name"),
            tag(
                "text",
                y,
                x=-(_TOP + bottom) / 2,
                y=11,
                text_anchor="middle",
                transform="rotate(-90)",
                class_="name",
            ),
        ]
        return _svg(tag("title", title), grid, marks, axis, names, viewBox=f"0 0 {WIDTH} {HEIGHT}", class_="plot")


def short(value: float) -> str:
    """A tick's label.

    >>> short(25_000.0), short(0.2), short(3_000_000.0)
    ('25k', '0.2', '3M')
    """
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= size:
            unit = 1e3 if letter == "k" else size
            return f"{value / unit:g}{letter}"
    return f"{value:g}"


def row(
    value: float,
    low: float | None,
    high: float | None,
    within: tuple[float, float],
    kind: str,
    reference: float | None = None,
) -> Markup:
    """An interval across a table's cell: a line from end to end, the value, and an upright line for a reference."""

    def at(one: float) -> str:
        return f"{min(98.5, max(1.5, _scaled(one, within, 2.0, 98.0))):.1f}%"

    marks: list[Child] = [tag("line", x1="0%", x2="100%", y1=9, y2=9, class_="grid")]
    if reference is not None:
        marks.append(tag("line", x1=at(reference), x2=at(reference), y1=1, y2=17, class_="reference"))
    if low is not None and high is not None:
        marks.append(tag("line", x1=at(low), x2=at(high), y1=9, y2=9, class_=f"span {kind}"))
    marks.append(tag("circle", cx=at(value), cy=9, r=4, class_=f"dot {kind}"))
    words = f"{number(value)}, from {number(low)} to {number(high)}"
    return _svg(tag("title", words), marks, height=18, width="100%", class_="row")


def bar(value: float, low: float, high: float, within: tuple[float, float]) -> Markup:
    """A bar from zero with its interval, across a table's cell."""

    def at(one: float) -> float:
        return _scaled(min(max(one, within[0]), within[1]), within, 1.0, 99.0)

    left, right = sorted((at(0.0), at(value)))
    marks = [
        tag("rect", x=f"{left}%", width=f"{max(0.4, right - left):.1f}%", y=3, height=12, rx=2, class_="box model"),
        tag("line", x1=f"{at(low)}%", x2=f"{at(high)}%", y1=9, y2=9, class_="whisker ink"),
        tag("line", x1=f"{at(0.0)}%", x2=f"{at(0.0)}%", y1=0, y2=18, class_="axis"),
    ]
    words = f"{number(value)}, from {number(low)} to {number(high)}"
    return _svg(tag("title", words), marks, height=18, width="100%", class_="row")


def around(values: Sequence[float | None], room: float = 0.06) -> tuple[float, float]:
    """The first and last of some values with a little room."""
    known = [value for value in values if value is not None and math.isfinite(value)]
    low, high = min(known, default=0.0), max(known, default=1.0)
    gap = (high - low) * room or abs(high) * 0.05 or 0.05
    return low - gap, high + gap


def _scaled(value: float, within: tuple[float, float], first: float, last: float) -> float:
    span = within[1] - within[0] or 1.0
    return round(first + (value - within[0]) / span * (last - first), 1)


def _svg(*parts: Child, **attributes: object) -> Markup:
    return tag("svg", parts, role="img", **attributes)
