"""Printing: plain aligned columns on standard output, messages on standard error."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from typing import Any

import msgspec

VERDICTS = {True: "passed", False: "failed", None: "not judged"}
"""What is said of gates."""


def out(text: str = "") -> None:
    """A line of results."""
    sys.stdout.write(text + "\n")


def say(text: str = "") -> None:
    """A line for the person who watches."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


@contextmanager
def result_apart() -> Iterator[None]:
    """What libraries print meanwhile, also from C, goes to standard error: standard output has the result alone."""
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        ctypes.CDLL(None).fflush(None)  # what C has kept for a pipe
        os.dup2(kept, 1)
        os.close(kept)


def json_out(value: Any) -> None:
    """A result as indented JSON."""
    out(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())


def table(header: Sequence[str], rows: Iterable[Sequence[Any]], right: Sequence[str] = ()) -> str:
    """Aligned columns under a header; the columns named in `right` are set to the right."""
    cells = [[*header], *([_text(cell) for cell in row] for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
    lines = []
    for row in cells:
        parts = [
            text.rjust(width) if name in right else text.ljust(width)
            for name, text, width in zip(header, row, widths, strict=True)
        ]
        lines.append(("  " + "  ".join(parts)).rstrip())
    return "\n".join(lines)


def _text(cell: Any) -> str:
    if isinstance(cell, bool) or cell is None:
        return {True: "yes", False: "no", None: "-"}[cell]
    if isinstance(cell, int):
        return f"{cell:,}"
    return f"{cell:.4f}" if isinstance(cell, float) else str(cell)
