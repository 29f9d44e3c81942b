"""Work in threads: in order, not too far ahead, and nothing left behind by an error."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import polars as pl
import pytest

from noria.pipelines import compute
from noria.pipelines.compute import LocalCompute, in_order

FRAME = pl.DataFrame({"n": range(100)})


def test_results_come_in_order_however_long_each_takes() -> None:
    def slow(number: int) -> int:
        time.sleep(0.02 if number % 3 == 0 else 0)
        return number

    with ThreadPoolExecutor(4) as pool:
        assert list(in_order(pool, (partial(slow, n) for n in range(30)), 3)) == list(range(30))


def test_no_more_is_begun_than_is_asked_for() -> None:
    begun = []
    with ThreadPoolExecutor(4) as pool:
        results = in_order(pool, (partial(begun.append, n) for n in range(100)), 2)
        next(results)
        next(results)
        assert len(begun) <= 5


def test_the_first_error_in_order_is_raised_and_the_rest_is_given_up(tmp_path: Path) -> None:
    done, gate = [], threading.Event()

    def items() -> Iterator[int]:
        yield from range(1000)

    def work(number: int) -> tuple[int, None]:
        if number == 5:
            gate.set()
            raise ValueError("five")
        if number == 4:
            gate.wait(10)  # the later error comes first
            raise ValueError("four")
        done.append(number)
        return number, None

    with pytest.raises(ValueError, match="four"), LocalCompute(tmp_path / "rows") as local:
        list(local.each(work, items()))
    assert len(done) < 20
    assert not (tmp_path / "rows").exists()


@pytest.mark.parametrize("fits", [0, 3_000, 1 << 30])
def test_blocks_keep_their_order_in_memory_and_in_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fits: int
) -> None:
    monkeypatch.setattr(compute, "IN_MEMORY", fits)

    def work(number: int) -> tuple[int, pl.DataFrame]:
        time.sleep(0.01 if number % 2 else 0)
        return number, FRAME.with_columns(block=pl.lit(number))

    with LocalCompute(tmp_path / "rows") as local:
        assert list(local.each(work, range(20))) == list(range(20))
        blocks = local.blocks(work(0)[1].schema)
        assert blocks.map(lambda frame, number: (int(frame["block"][0]), number)) == [(n, n) for n in range(20)]
        files = len(list((tmp_path / "rows").iterdir()))
        assert files == {0: 20, 1 << 30: 0}.get(fits, files)
        assert fits != 3_000 or 0 < files < 20
