"""Printing: plain aligned columns on standard output, messages on standard error."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from itertools import zip_longest
from shutil import get_terminal_size
from textwrap import wrap
from typing import Any

import msgspec

VERDICTS = {True: "passed", False: "failed", None: "not judged"}
"""What is said of gates."""
_NARROWEST = 12
"""Letters of a column below which its words would be torn."""


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
    """Aligned columns under a header; the columns named in `right` are set to the right.

    In a terminal that is too narrow the widest columns' words go on below; through a pipe a row is always one line.
    """
    cells = [[*header], *([_text(cell) for cell in row] for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
    if sys.stdout.isatty():
        _narrow(widths, [i for i, name in enumerate(header) if name not in right])
    lines = []
    for row in cells:
        folded = [wrap(text, width) if len(text) > width else [text] for text, width in zip(row, widths, strict=True)]
        for texts in zip_longest(*folded, fillvalue=""):
            parts = [
                text.rjust(width) if name in right else text.ljust(width)
                for name, text, width in zip(header, texts, widths, strict=True)
            ]
            lines.append(("  " + "  ".join(parts)).rstrip())
    return "\n".join(lines)


def _narrow(widths: list[int], texts: Sequence[int]) -> None:
    """Take from the widest columns of text, a letter at a time, until the terminal has room or they are too narrow."""
    room = get_terminal_size().columns - 2 * len(widths)
    while sum(widths) > room:
        widest = max(texts, key=widths.__getitem__, default=None)
        if widest is None or widths[widest] <= _NARROWEST:
            return
        widths[widest] -= 1


def _text(cell: Any) -> str:
    if isinstance(cell, bool) or cell is None:
        return {True: "yes", False: "no", None: "-"}[cell]
    if isinstance(cell, int):
        return f"{cell:,}"
    return f"{cell:.4f}" if isinstance(cell, float) else str(cell)
