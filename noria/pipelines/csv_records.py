"""CSV record by record, for files in which something is broken: what is broken costs its own line, not the rest."""

from __future__ import annotations

import csv
from collections.abc import Iterator

UNCLOSED = "a quote that is never closed"


def csv_records(data: bytes) -> Iterator[tuple[list[str], str]]:
    """Each record's fields, the header's first, and why it is none, if it is none. Empty lines are no records.

    A quote that is opened and never closed would take all lines after it into its field: only its own line is reported,
    and reading goes on at the next one. Bytes that are not UTF-8 become lone surrogates.
    """
    lines = _Lines(data)
    reader = csv.reader(lines, strict=False)
    while True:
        start = lines.at
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            # A field past the reader's limit (128 KiB) is a quote left open as well, or as good as one.
            unclosed = lines.at - start > 1
            lines.at = start + 1
            yield [lines.text(start)], UNCLOSED if unclosed else str(error)
            continue
        if lines.ended:  # inside a record: the end between two stops the iteration
            lines.at, lines.ended = start + 1, False
            reader = csv.reader(lines, strict=False)
            yield [lines.text(start)], UNCLOSED
        elif row:
            yield row, ""


class _Lines:
    """The lines of a file, with the place that is read next."""

    def __init__(self, data: bytes) -> None:
        self._lines = data.split(b"\n")
        if not self._lines[-1]:
            del self._lines[-1]
        self.at = 0
        self.ended = False

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        if self.at >= len(self._lines):
            self.ended = True
            raise StopIteration
        self.at += 1
        return self._decoded(self.at - 1) + "\n"

    def text(self, number: int) -> str:
        """A line without its end."""
        return self._decoded(number).removesuffix("\r")

    def _decoded(self, number: int) -> str:
        return self._lines[number].decode("utf-8", errors="surrogateescape")
