"""What every table has to do."""

from __future__ import annotations

import threading
from datetime import UTC, datetime

import polars as pl
import pytest

from noria.core import NotFoundError
from noria.storage.tables import Table

FRAME = pl.DataFrame(
    {
        "id": [1, 2, 3],
        "small": pl.Series([1, -2, None], dtype=pl.Int8),
        "share": pl.Series([0.5, None, 1e30], dtype=pl.Float32),
        "text": ["a", None, "ä\n"],
        "on": [True, None, False],
        "at": pl.Series([datetime(2020, 1, 1, 0, 0, 0, 7, UTC), None, datetime(1950, 1, 1, tzinfo=UTC)]),
        "many": [["x"], [], None],
    }
)


class TableConformance:
    """Subclass it and return a table that was never written from `table`; calls with one name give one table."""

    def table(self, name: str) -> Table:
        """The table of that name."""
        raise NotImplementedError

    def test_what_was_written_is_read(self) -> None:
        table = self.table("t")
        assert table.version() is None
        with pytest.raises(NotFoundError, match="never been written"):
            table.read()
        version = table.write(FRAME, run_id="a")
        assert table.version() == version
        assert table.read().equals(FRAME)
        assert table.read().schema == FRAME.schema
        assert table.read(columns=["text", "id"]).columns == ["text", "id"]
        assert table.scan().select(pl.col("id").sum()).collect().item() == 6

    def test_a_version_stays_what_it_was(self) -> None:
        table = self.table("t")
        first = table.write(FRAME, run_id="a", mode="overwrite")
        second = table.write(FRAME.head(1).with_columns(more=pl.lit(1)), run_id="b", mode="overwrite")
        assert first != second
        assert table.read(first).equals(FRAME)
        assert table.read().columns == [*FRAME.columns, "more"]
        with pytest.raises(NotFoundError, match="no version"):
            table.read(99)

    def test_written_twice_under_one_run_id_it_is_written_once(self) -> None:
        table = self.table("t")
        version = table.write(FRAME, run_id="a")
        assert table.write(FRAME, run_id="a") == version
        table.write(FRAME, run_id="b")
        assert table.write(FRAME, run_id="a") == version
        assert len(table.read()) == 6

    @pytest.mark.parametrize("made", [False, True])
    def test_one_run_done_twice_at_once_is_done_once(self, made: bool) -> None:
        if made:
            self.table("t").write(FRAME.clear(), run_id="before")
        together, versions = threading.Barrier(4), []

        def work() -> None:
            table = self.table("t")
            together.wait()
            versions.append(table.write(FRAME, run_id="a"))

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert versions == [self.table("t").version()] * 4
        assert len(self.table("t").read()) == len(FRAME)

    def test_an_empty_frame_is_a_version_too(self) -> None:
        table = self.table("t")
        table.write(FRAME, run_id="a")
        table.write(FRAME.clear(), run_id="b", mode="overwrite")
        assert table.read().schema == FRAME.schema
        assert len(table.read()) == 0

    def test_two_handles_see_the_same(self) -> None:
        self.table("t").write(FRAME, run_id="a")
        assert self.table("t").write(FRAME, run_id="b") == self.table("t").version()
        assert len(self.table("t").read()) == 6
        assert self.table("other").version() is None
