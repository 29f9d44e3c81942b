"""What every step has to do."""

from __future__ import annotations

import math
import struct
from typing import Any

import msgspec
import polars as pl

from noria.core import ConfigError
from noria.pipelines import Step, apply_steps, fit_blocks, fit_steps, row_function, steps_from_dict, steps_to_dict
from noria.pipelines.blocks import Applied, FrameBlocks

FIT = pl.DataFrame(
    {
        "number": [1.0, 2.5, None, -4.0, 1e6],
        "whole": pl.Series([1, None, 3, 3, 127], dtype=pl.Int8),
        "text": ["a", "b", "b", None, ""],
        "constant": [7.0] * 5,
        "on": [True, False, None, True, True],
    }
)
NEW = pl.DataFrame(
    {
        "number": [0.1, None, 1e-9, 3.0],
        "whole": pl.Series([None, -128, 0, 5], dtype=pl.Int8),
        "text": ["b", "unseen", None, "a"],
        "constant": [7.0, 8.0, None, 7.0],
        "on": [None, True, False, True],
    }
)


def rows_of(frame: pl.DataFrame) -> list[dict[str, Any]]:
    """A frame's rows as the row path has them."""
    return frame.rows(named=True)


def same(left: Any, right: Any) -> bool:
    """Whether two values are the same to the bit and in their type."""
    if isinstance(left, float) and isinstance(right, float):
        return struct.pack("<d", left) == struct.pack("<d", right) or (math.isnan(left) and math.isnan(right))
    return type(left) is type(right) and left == right


def assert_rows_equal_the_batch(fitted: Any, frame: pl.DataFrame) -> None:
    """The row path gives for each row what the batch gives, to the bit."""
    transform = row_function(fitted, frame.schema)
    made = [row for row in map(transform, rows_of(frame)) if row is not None]
    expected = apply_steps(fitted, frame)
    assert len(made) == len(expected)
    for mine, batch in zip(made, rows_of(expected), strict=True):
        assert list(mine) == list(batch)
        wrong = {name: (mine[name], batch[name]) for name in batch if not same(mine[name], batch[name])}
        assert not wrong, f"row path and batch differ: {wrong}"


def assert_close(left: pl.DataFrame, right: pl.DataFrame) -> None:
    """Values differ by no more than sums of floats in another order do."""
    for name in right.columns:
        for a, b in zip(left[name].to_list(), right[name].to_list(), strict=True):
            assert a == b or math.isclose(a, b, rel_tol=1e-12, abs_tol=1e-12), (name, a, b)


class StepConformance:
    """Subclass it and return a definition from `step` that works on the frames `FIT` and `NEW` of this module."""

    drops_rows = False
    """Whether the step may drop rows."""
    sums = False
    """Whether it adds up floats when fitting: how blocks are cut may then change the last bits."""

    def step(self) -> Step:
        """The step to check."""
        raise NotImplementedError

    def test_unknown_columns_are_named(self) -> None:
        said = ""
        try:
            fit_steps([self.step()], pl.DataFrame({"unheard_of": [1.5, None]}))
        except ConfigError as error:
            said = str(error)
        assert not said or ("unheard_of" in said and any(f"{name!r}" in said for name in FIT.columns)), said
        assert said or not self.step().to_dict().get("columns")

    def test_the_definition_is_plain_data(self) -> None:
        assert msgspec.json.decode(msgspec.json.encode(self.step().to_dict())) == self.step().to_dict()

    def test_fitting_twice_gives_the_same_state(self) -> None:
        (first,), _ = fit_steps([self.step()], FIT)
        (second,), _ = fit_steps([self.step()], FIT)
        assert first.to_dict() == second.to_dict()

    def test_the_state_survives_json_to_the_bit(self) -> None:
        fitted, _ = fit_steps([self.step()], FIT)
        again = steps_from_dict(msgspec.json.decode(msgspec.json.encode(steps_to_dict(fitted))))
        assert apply_steps(again, NEW).equals(apply_steps(fitted, NEW), null_equal=True)

    def test_row_by_row_is_the_same_as_together_to_the_bit(self) -> None:
        fitted, _ = fit_steps([self.step()], FIT)
        for frame in (FIT, NEW):
            alone = pl.concat([apply_steps(fitted, frame.slice(i, 1)) for i in range(len(frame))])
            assert alone.equals(apply_steps(fitted, frame), null_equal=True)
            if fitted[0].by_row:
                assert_rows_equal_the_batch(fitted, frame)

    def test_fitted_to_blocks_it_is_as_fitted_to_the_whole(self) -> None:
        whole, made = fit_steps([self.step()], FIT)
        for cuts in ((1, 4), (2, 2, 1), (0, 5), (1, 1, 1, 1, 1)):
            starts = [sum(cuts[:n]) for n in range(len(cuts))]
            blocks = FrameBlocks([FIT.slice(start, size) for start, size in zip(starts, cuts, strict=True)])
            fitted = fit_blocks([self.step()], blocks)
            parts = pl.concat(Applied(blocks, fitted).map(_itself))
            assert parts.schema == made.schema
            if self.sums:
                assert_close(apply_steps(fitted, FIT), apply_steps(whole, FIT))
            else:
                assert fitted[0].to_dict() == whole[0].to_dict()
                assert parts.equals(made)

    def test_columns_and_types_do_not_depend_on_the_rows(self) -> None:
        fitted, made = fit_steps([self.step()], FIT)
        missing = pl.DataFrame({name: [None] for name in NEW.columns}, schema=NEW.schema)
        for frame in (NEW, NEW.clear(), NEW.head(1), missing):
            assert apply_steps(fitted, frame).schema == made.schema
        assert fitted[0].apply_to_fit(FIT, 0).equals(made)

    def test_no_row_is_lost(self) -> None:
        fitted, made = fit_steps([self.step()], FIT)
        assert self.drops_rows or (len(made) == len(FIT) and len(apply_steps(fitted, NEW)) == len(NEW))


def _itself(frame: pl.DataFrame, block: int) -> pl.DataFrame:
    return frame
