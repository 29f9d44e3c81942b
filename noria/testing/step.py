"""What every step has to do."""

from __future__ import annotations

import msgspec
import polars as pl

from noria.pipelines import Step, apply_steps, fit_steps, steps_from_dict, steps_to_dict

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


class StepConformance:
    """Subclass it and return a definition from `step` that works on the frames `FIT` and `NEW` of this module."""

    drops_rows = False
    """Whether the step may drop rows."""

    def step(self) -> Step:
        """The step to check."""
        raise NotImplementedError

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

    def test_columns_and_types_do_not_depend_on_the_rows(self) -> None:
        fitted, made = fit_steps([self.step()], FIT)
        missing = pl.DataFrame({name: [None] for name in NEW.columns}, schema=NEW.schema)
        for frame in (NEW, NEW.clear(), NEW.head(1), missing):
            assert apply_steps(fitted, frame).schema == made.schema

    def test_no_row_is_lost(self) -> None:
        fitted, made = fit_steps([self.step()], FIT)
        assert self.drops_rows or (len(made) == len(FIT) and len(apply_steps(fitted, NEW)) == len(NEW))
