"""Duplicates over all pieces of an input, in memory that doesn't grow with it.

Of each key only a 128-bit hash is kept (two rows with different keys would share one in fewer than one of 10^20 tables
of a billion rows), on disk, sorted within its piece; then the hashes are compared range by range.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from noria.core import StorageError

_SEEDS = (0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F)
_RANGE_ROWS = 4_000_000
"""Hashes that are compared at a time: 20 bytes each."""

Hashes = NDArray[np.void]
HASH = np.dtype([("high", np.uint64), ("low", np.uint64), ("row", np.uint32)])


def key_hashes(frame: pl.DataFrame, columns: Sequence[str]) -> Hashes:
    """The hashes of the rows in which no key column is missing, sorted, with the rows' numbers from 0."""
    keys = frame.select(columns)
    present = pl.select(pl.all_horizontal(column.is_not_null() for column in keys.iter_columns())).to_series()
    rows = present.arg_true().to_numpy()
    found = keys.filter(present)
    made = np.empty(len(rows), HASH)
    for name, seed in zip(("high", "low"), _SEEDS, strict=True):
        made[name] = found.hash_rows(seed=seed).to_numpy()
    made["row"] = rows
    order: Hashes = made[np.argsort(made["high"], kind="stable")]
    return order


class KeyIndex:
    """The hashes of all pieces, in the order of the pieces; files in `folder`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._counts: list[int] = []

    def add(self, hashes: Hashes) -> None:
        """The next piece's.

        Raises:
            StorageError: they can't be written.
        """
        file = self._folder / f"{len(self._counts)}.npy"
        try:
            np.save(file, hashes)
        except OSError as error:
            raise StorageError(
                f"the keys of the rows can't be kept in {file}: {error}",
                hint="is the disk full? 20 bytes are needed for each row; nothing was loaded",
            ) from error
        self._counts.append(len(hashes))

    def repeated(self) -> dict[int, NDArray[np.uint32]]:
        """By piece, the rows whose key stands in an earlier row already."""
        files = [np.load(self._folder / f"{n}.npy", mmap_mode="r") for n in range(len(self._counts))]
        ranges = max(1, -(-sum(self._counts) // _RANGE_ROWS))
        bounds = [min(2**64 * n // ranges, 2**64 - 1) for n in range(1, ranges)]
        cuts = [[0, *np.searchsorted(f["high"], np.array(bounds, np.uint64)).tolist(), len(f)] for f in files]
        found: dict[int, list[NDArray[np.uint32]]] = {}
        for number in range(ranges):
            for piece, rows in self._in_range(files, cuts, number):
                found.setdefault(piece, []).append(rows)
        return {piece: np.sort(np.concatenate(rows)) for piece, rows in found.items()}

    def _in_range(
        self, files: list[Hashes], cuts: list[list[int]], number: int
    ) -> list[tuple[int, NDArray[np.uint32]]]:
        parts = [np.asarray(file[cut[number] : cut[number + 1]]) for file, cut in zip(files, cuts, strict=True)]
        whole = np.concatenate(parts) if parts else np.empty(0, HASH)
        pieces = np.repeat(np.arange(len(parts), dtype=np.uint32), [len(part) for part in parts])
        order = np.lexsort((whole["row"], pieces, whole["low"], whole["high"]))
        whole, pieces = whole[order], pieces[order]
        same = (whole["high"][1:] == whole["high"][:-1]) & (whole["low"][1:] == whole["low"][:-1])
        repeated = np.flatnonzero(same) + 1
        where = pieces[repeated]
        return [(int(piece), whole["row"][repeated[where == piece]]) for piece in np.unique(where)]
