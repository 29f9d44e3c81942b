from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from noria.core import StorageError
from noria.pipelines.duplicates import KeyIndex, key_hashes


def test_a_full_disk_is_named(tmp_path: Path) -> None:
    (tmp_path / "0.npy").symlink_to("/dev/full")
    with pytest.raises(StorageError, match="No space left on device") as caught:
        KeyIndex(tmp_path).add(key_hashes(pl.DataFrame({"key": range(10_000)}), ["key"]))
    assert caught.value.hint is not None
    assert "disk full" in caught.value.hint


def test_of_equal_keys_the_first_row_is_the_one_that_stays(tmp_path: Path) -> None:
    index = KeyIndex(tmp_path)
    for keys in ([1, 2, 1, None], [3, None, 2], [4]):
        index.add(key_hashes(pl.DataFrame({"key": keys}), ["key"]))
    assert {piece: rows.tolist() for piece, rows in index.repeated().items()} == {0: [2], 1: [2]}
