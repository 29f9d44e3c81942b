"""`noria graph`."""

from __future__ import annotations

import sys
from argparse import Namespace

from noria.cli.project import load_system
from noria.cli.show import json_out, out
from noria.system import System, mermaid, svg


def graph(options: Namespace) -> int:
    """Draw the project's components."""
    system = load_system(options.project)
    drawing = system.to_dict()
    if options.format == "json":
        json_out(drawing)
    elif options.format == "mermaid":
        sys.stdout.write(mermaid(drawing))
    elif options.format == "svg":
        sys.stdout.write(svg(drawing, system.order))
    else:
        out(_text(system))
    return 0


def _text(system: System) -> str:
    parts = [system[name] for level in system.order for name in level]
    width = max(len(part.name) for part in parts)
    lines = [f"{system.name}: {len(parts)} components, in the order in which they run"]
    for part in parts:
        after = f"  <- {', '.join(part.dependencies)}" if part.dependencies else ""
        lines.append(f"  {part.name:<{width}}  {part.kind:<12}{after}")
    return "\n".join(lines)
