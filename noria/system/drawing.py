"""Drawings of the component graph: Mermaid text, and SVG that needs no other program."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

_WIDTH, _HEIGHT, _GAP_X, _GAP_Y, _MARGIN = 190, 54, 70, 26, 24
_COLOURS = {
    "source": "#dbeafe",
    "features": "#dcfce7",
    "training": "#fef3c7",
    "recommender": "#fef3c7",
    "server": "#fae8ff",
    "gateway": "#fae8ff",
}
_CSS = (
    "text{font:13px system-ui,sans-serif;fill:#111}.kind{font-size:11px;fill:#555}"
    "rect{stroke:#334155;stroke-width:1.2}path{fill:none;stroke:#64748b;stroke-width:1.4}"
)


def mermaid(graph: Mapping[str, Any]) -> str:
    """The graph as a Mermaid flowchart."""
    lines = ["flowchart LR"]
    lines += [f'  {_id(c["name"])}["{c["name"]}<br/><small>{c["kind"]}</small>"]' for c in graph["components"]]
    lines += [f"  {_id(d)} --> {_id(c['name'])}" for c in graph["components"] for d in c["dependencies"]]
    return "\n".join(lines) + "\n"


def svg(graph: Mapping[str, Any], order: list[list[str]]) -> str:
    """The graph as an SVG picture: a column for each level of `order`, data flowing to the right."""
    columns = _with_lanes(graph, order)
    places = {
        (name, column): (_MARGIN + column * (_WIDTH + _GAP_X), _MARGIN + 24 + row * (_HEIGHT + _GAP_Y))
        for column, level in enumerate(columns)
        for row, name in enumerate(level)
    }
    width = 2 * _MARGIN + len(columns) * (_WIDTH + _GAP_X) - _GAP_X
    height = 2 * _MARGIN + 24 + max(len(level) for level in columns) * (_HEIGHT + _GAP_Y) - _GAP_Y
    home = {name: column for column, level in enumerate(order) for name in level}
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}"><style>{_CSS}</style>'
        '<defs><marker id="tip" markerWidth="8" markerHeight="8" refX="7" refY="4" orient="auto">'
        '<path d="M0,0 L8,4 L0,8 z" style="fill:#64748b;stroke:none"/></marker></defs>'
        f'<rect width="{width}" height="{height}" style="fill:#fff;stroke:none"/>'
        f'<text x="{_MARGIN}" y="{_MARGIN + 4}" style="font-weight:600">{escape(graph["system"])}</text>'
    ]
    for component in graph["components"]:
        name = component["name"]
        for source in component["dependencies"]:
            stops = [places[source, column] for column in range(home[source], home[name])]
            parts.append(_arrow([*stops, places[name, home[name]]]))
    parts += [_box(component, places[component["name"], home[component["name"]]]) for component in graph["components"]]
    return "".join(parts) + "</svg>\n"


def _with_lanes(graph: Mapping[str, Any], order: list[list[str]]) -> list[list[str]]:
    """The columns with a free place in each one that an arrow passes, so that it doesn't run behind a box."""
    columns = [list(level) for level in order]
    home = {name: column for column, level in enumerate(order) for name in level}
    for component in graph["components"]:
        for source in component["dependencies"]:
            for column in range(home[source] + 1, home[component["name"]]):
                if source not in columns[column]:
                    columns[column].append(source)
    return columns


def _arrow(stops: list[tuple[int, int]]) -> str:
    """A line from the right side of the first place, through the places between, to the left side of the last one."""
    x, y = stops[0][0] + _WIDTH, stops[0][1] + _HEIGHT // 2
    path = [f"M{x},{y}"]
    for place_x, place_y in stops[1:]:
        middle, bend = place_y + _HEIGHT // 2, _GAP_X // 2
        path.append(f"C{x + bend},{y} {place_x - bend},{middle} {place_x},{middle}")
        x, y = place_x + _WIDTH, middle
        if (place_x, place_y) != stops[-1]:
            path.append(f"H{x}")
    return f'<path d="{" ".join(path)}" marker-end="url(#tip)"/>'


def _box(component: Mapping[str, Any], place: tuple[int, int]) -> str:
    x, y = place
    colour = _COLOURS.get(component["kind"], "#f1f5f9")
    return (
        f"<g><title>{escape(component['description'])}</title>"
        f'<rect x="{x}" y="{y}" width="{_WIDTH}" height="{_HEIGHT}" rx="8" style="fill:{colour}"/>'
        f'<text x="{x + 12}" y="{y + 23}">{escape(component["name"])}</text>'
        f'<text class="kind" x="{x + 12}" y="{y + 41}">{escape(component["kind"])}</text></g>'
    )


def _id(name: str) -> str:
    return "c_" + name.replace("-", "_d_")
