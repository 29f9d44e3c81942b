"""What every table has to do."""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime

import polars as pl
import pytest

from noria.core import ConflictError, NotFoundError, SchemaError
from noria.storage.tables import Table, TableMark

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
    """Subclass it and return a table that was never written from `table`; calls with one name give one table.

    Attributes:
        tick: seconds that the disk's or the object store's clock takes to move on.
    """

    tick = 0.02

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

    def test_a_version_is_found_by_the_time_at_which_it_was_the_newest(self) -> None:
        table, times = self.table("t"), list[int]()
        assert table.version_at(time.time_ns() // 1_000) is None
        for name in "abc":
            table.write(FRAME, run_id=name)
            time.sleep(self.tick)
            times.append(time.time_ns() // 1_000)
            time.sleep(self.tick)
        assert [table.version_at(at) for at in times] == [0, 1, 2]
        assert (table.version_at(0), table.version()) == (0, 2)

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

    def test_staged_parts_are_unseen_until_they_are_committed_together(self) -> None:
        table = self.table("t")
        parts = [table.stage(FRAME.tail(1), "000-b"), table.stage(FRAME.head(2), "000-a")]
        assert table.version() is None
        version = table.commit(parts, FRAME.schema, mode="append", marks=[TableMark("m", -1, 5)])
        assert (table.version(), table.mark("m"), table.mark("other")) == (version, 5, -1)
        assert table.read().equals(FRAME)  # in the order of the parts' names
        table.stage(FRAME, "001-never")
        assert self.table("t").read().equals(FRAME)
        part = table.stage(FRAME, "001-a")
        assert table.commit([part], FRAME.schema, mode="append", marks=[TableMark("m", 5, 6)]) > version
        assert table.read().equals(pl.concat([FRAME, FRAME]))
        table.commit([], FRAME.schema, mode="overwrite", marks=[TableMark("m", 6, 7), TableMark("n", -1, 0)])
        assert (len(table.read()), table.read().schema, table.mark("n")) == (0, FRAME.schema, 0)

    def test_a_mark_that_another_has_moved_stops_the_commit(self) -> None:
        table = self.table("t")
        table.commit([table.stage(FRAME, "0")], FRAME.schema, mode="append", marks=[TableMark("m", -1, 1)])
        part = self.table("t").stage(FRAME, "1")
        with pytest.raises(ConflictError, match="'m' is 1, expected -1"):
            self.table("t").commit([part], FRAME.schema, mode="append", marks=[TableMark("m", -1, 1)])
        assert len(table.read()) == len(FRAME)

    def test_of_commits_that_move_one_mark_at_once_one_wins_and_others_append_freely(self) -> None:
        self.table("t").write(FRAME.clear(), run_id="before")
        together, won = threading.Barrier(4), []

        def work(number: int) -> None:
            table = self.table("t")
            part = table.stage(FRAME, f"9-{number}")
            together.wait()
            name = "shared" if number < 2 else f"own-{number}"
            try:
                table.commit([part], FRAME.schema, mode="append", marks=[TableMark(name, -1, 1)])
            except ConflictError:
                return
            won.append(number)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(won) == 3
        assert {2, 3} < set(won)
        assert len(self.table("t").read()) == 3 * len(FRAME)

    def test_a_commit_may_demand_the_version_that_its_rows_were_read_from(self) -> None:
        table = self.table("t")
        read = table.write(FRAME, run_id="a")
        self.table("t").write(FRAME, run_id="b")
        marks = [TableMark("m", -1, 1)]
        with pytest.raises(ConflictError, match="'t'"):
            table.commit([], FRAME.schema, mode="overwrite", marks=marks, version=read)
        assert (len(table.read()), table.mark("m")) == (2 * len(FRAME), -1)
        made = table.commit([table.stage(FRAME, "9")], FRAME.schema, mode="overwrite", marks=marks, version=read + 1)
        assert (made, len(table.read()), table.mark("m")) == (read + 2, len(FRAME), 1)

    def test_of_commits_that_demand_one_version_at_once_one_wins(self) -> None:
        version = self.table("t").write(FRAME, run_id="a")
        together, won = threading.Barrier(4), []

        def work(number: int) -> None:
            table = self.table("t")
            parts = [table.stage(FRAME, f"9-{number}")]
            together.wait()
            try:
                won.append(table.commit(parts, FRAME.schema, mode="overwrite", version=version))
            except ConflictError:
                return

        threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert won == [version + 1]
        assert len(self.table("t").read()) == len(FRAME)

    def test_new_columns_may_be_appended(self) -> None:
        table = self.table("t")
        table.write(FRAME, run_id="a")
        wider = FRAME.head(1).with_columns(more=pl.lit(1.5))
        table.commit([table.stage(wider, "9")], wider.schema, mode="append")
        assert table.read().columns == [*FRAME.columns, "more"]
        assert table.read()["more"].to_list() == [None, None, None, 1.5]
        assert table.read(columns=["id"])["id"].to_list() == [1, 2, 3, 1]
        retyped = FRAME.with_columns(id=pl.lit("x"))
        with pytest.raises(SchemaError, match="'id'"):
            table.commit([table.stage(retyped, "99")], retyped.schema, mode="append")
        assert len(table.read()) == 4

    def test_compacting_keeps_rows_order_and_marks(self) -> None:
        table = self.table("t")
        for number in range(10):
            part = table.stage(FRAME.with_columns(id=pl.lit(number, pl.Int64)), f"{number:03d}")
            table.commit([part], FRAME.schema, mode="append", marks=[TableMark("m", number - 1, number)])
        before = table.read()
        version = table.version()
        assert table.compact() == 9
        assert table.compact() == 0
        assert table.read().equals(before)
        assert table.read(version).equals(before)
        assert table.mark("m") == 9
        table.commit([table.stage(FRAME, "010")], FRAME.schema, mode="append", marks=[TableMark("m", 9, 10)])
        assert table.read().equals(pl.concat([before, FRAME]))

    def test_what_was_added_since_a_version(self) -> None:
        table = self.table("t")
        first = table.write(FRAME, run_id="a")
        same = table.added(first)
        assert same is not None
        assert same.collect().equals(FRAME.clear())
        second = table.write(FRAME.reverse(), run_id="b")
        third = table.write(FRAME.head(1), run_id="c")
        added = table.added(first)
        assert added is not None
        assert added.collect().equals(pl.concat([FRAME.reverse(), FRAME.head(1)]))
        between = table.added(first, second)
        assert between is not None
        assert between.collect().equals(FRAME.reverse())
        table.write(FRAME, run_id="d", mode="overwrite")
        assert table.added(third) is None
