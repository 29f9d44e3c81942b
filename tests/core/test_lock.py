from __future__ import annotations

from pathlib import Path

import pytest

from noria.core import BusyError, StorageError, exclusive


def test_one_at_a_time(tmp_path: Path) -> None:
    file = tmp_path / "deep" / "lock"
    with (
        exclusive(file, "a test"),
        pytest.raises(BusyError, match="a test is already going on in process"),
        exclusive(file, "a test"),
    ):
        pass
    with exclusive(file, "a test"):
        pass


def test_a_lock_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "lock").symlink_to("/dev/full")
    with pytest.raises(StorageError, match="can't write to the lock file"), exclusive(tmp_path / "lock", "it"):
        pass
    with pytest.raises(OSError, match="mine"), exclusive(tmp_path / "other", "it"):
        raise OSError("mine")
