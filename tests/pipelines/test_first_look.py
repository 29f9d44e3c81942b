"""What is learnt of rows while they are read makes the same state as reading them again."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import noria as nr
from noria.core import ConfigError
from noria.pipelines import Step, apply_steps, fit_blocks
from noria.pipelines.blocks import Applied, Blocks, FrameBlocks
from noria.pipelines.first_look import Answered, first_look
from noria.pipelines.steps import FittedStep
from noria.pipelines.steps.impute import FittedImpute

ROWS = pl.DataFrame(
    {
        "x": [0.5, None, -3.0, 7.25, 7.25, 1e6, None, 0.0],
        "y": [1.0, 2.0, 3.0, None, 5.0, 6.0, 7.0, 8.0],
        "n": [3, 1, 2, None, 5, 8, 13, 21],
        "s": ["a", "b", None, "b", "c", "a", "a", ""],
        "t": ["k", "k", "l", "m", None, "n", "n", "n"],
    }
)
STEPS: list[Step] = [
    nr.DropMissing(["y"]), nr.Filter(nr.col("x").is_null() | (nr.col("x") < 1e5)), nr.Derive({"z": nr.col("y") * 2}),
    nr.Rename({"t": "u"}), nr.Cast({"n": "float64?"}), nr.Drop(["t"]), nr.Clip(["x"], low=-1),
    nr.Impute(), nr.Impute(["x"], strategy="mean"), nr.Impute(["s"], strategy="most_frequent"),
    nr.Normalize(), nr.Normalize(["x"]), nr.Normalize(["y"], method="robust"), nr.Normalize(["n"], method="minmax"),
    nr.Encode(), nr.Encode(["s"], method="onehot"), nr.Encode(["s"], method="target", target="y"),
    nr.Encode(["t"], method="frequency"), nr.Encode(["t"], method="hash"), nr.Bucket(["y"], quantiles=3),
    nr.Clip(["n"], quantiles=(0.1, 0.9)), nr.Deduplicate(["s"]), nr.ForwardFill(["x"], by="s"),
]  # fmt: skip


def fit_while_reading(steps: list[Step], frames: list[pl.DataFrame]) -> tuple[tuple[FittedStep, ...], FrameBlocks]:
    """As a load does it: blocks come by once, then what has to be read again is."""
    fitted, looks = first_look(steps, frames[0].schema)
    seen = [apply_steps(fitted, frame) for frame in frames]
    answers = {look.step: (look, [look(frame, n) for n, frame in enumerate(seen)]) for look in looks}
    blocks: Blocks = FrameBlocks(seen)
    for number in range(len(fitted), len(steps)):
        if number in answers:
            look, said = answers[number]
            fitted = (*fitted, steps[number].fit(Answered(blocks, look.question, said)))
        else:
            fitted = (*fitted, steps[number].fit(blocks))
        blocks = blocks.then(fitted[-1])
    assert isinstance(blocks, FrameBlocks)
    return fitted, blocks


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from(STEPS), max_size=5), st.lists(st.integers(0, len(ROWS)), max_size=3))
def test_the_state_is_the_same_as_by_reading_again(steps: list[Step], cuts: list[int]) -> None:
    frames = [ROWS[a:b] for a, b in pairwise([0, *sorted(cuts), len(ROWS)])]
    wrong = ""
    try:
        expected = fit_blocks(steps, FrameBlocks(frames))
    except ConfigError as error:
        wrong = str(error)
    if wrong:
        with pytest.raises(ConfigError) as caught:
            fit_while_reading(steps, frames)
        assert str(caught.value) == wrong
        return
    fitted, blocks = fit_while_reading(steps, frames)
    assert [step.to_dict() for step in fitted] == [step.to_dict() for step in expected]
    assert pl.concat(blocks.frames).equals(pl.concat(Applied(FrameBlocks(frames), expected).map(lambda rows, _: rows)))


class Counted:
    """Blocks that count how often they are read."""

    def __init__(self, frames: list[pl.DataFrame]) -> None:
        self.inner, self.reads = FrameBlocks(frames), 0

    @property
    def schema(self) -> pl.Schema:
        return self.inner.schema

    def map(self, work: Any) -> list[Any]:
        self.reads += 1
        return self.inner.map(work)

    def then(self, step: Any) -> Blocks:
        return self.inner.then(step)


def test_steps_on_different_columns_are_all_answered_while_reading() -> None:
    steps: list[Step] = [nr.DropMissing(), nr.Encode(), nr.Normalize(["x", "y"]), nr.Impute(["n"], strategy="mean")]
    fitted, looks = first_look(steps, ROWS.schema)
    assert [type(step).__name__ for step in fitted] == ["FittedDropMissing"]
    assert [(look.step, look.columns) for look in looks] == [(1, ("s", "t")), (2, ("x", "y")), (3, ("n",))]
    blocks = Counted([apply_steps(fitted, ROWS)])
    for look in looks:
        steps[look.step].fit(Answered(blocks, look.question, [look(blocks.inner.frames[0], 0)]))
    assert blocks.reads == 0


def test_what_depends_on_a_step_before_it_waits() -> None:
    assert [look.step for look in first_look([nr.Encode(), nr.Normalize()], ROWS.schema)[1]] == [0]
    assert [look.step for look in first_look([nr.Impute(["x"]), nr.Normalize(["x"])], ROWS.schema)[1]] == [0]
    onehot = [nr.Encode(["s"], method="onehot"), nr.Normalize(["s=a"]), nr.Normalize(["x"])]
    assert [look.step for look in first_look(onehot, ROWS.schema)[1]] == [0]
    assert [look.step for look in first_look([nr.Deduplicate(["s"]), nr.Normalize(["x"])], ROWS.schema)[1]] == [0]


def test_a_column_that_is_not_there_is_named_before_anything_is_read() -> None:
    with pytest.raises(ConfigError, match="there is no column 'nope'"):
        first_look([nr.DropMissing(), nr.Normalize(["nope"])], ROWS.schema)


@dataclass(frozen=True)
class Middle:
    """A step of a user's that knows nothing of first looks, and asks two questions, by functions without names."""

    columns: tuple[str, ...] = ("x",)

    def fit(self, blocks: Blocks) -> FittedImpute:
        low = min(blocks.map(lambda frame, _: frame["x"].min() or 0.0))
        high = max(blocks.map(lambda frame, _: frame["x"].max() or 0.0))
        return FittedImpute({"x": (low + high) / 2})

    def to_dict(self) -> dict[str, Any]:
        return {"step": "Middle"}


def test_a_step_of_a_users_is_fitted_as_ever() -> None:
    steps: list[Step] = [nr.DropMissing(["y"]), Middle(), nr.Encode()]
    expected = fit_blocks(steps, FrameBlocks([ROWS[:3], ROWS[3:]]))
    assert fit_while_reading(steps, [ROWS[:3], ROWS[3:]])[0] == expected


@dataclass(frozen=True)
class Cautious(Middle):
    """One that goes on without what it asked for."""

    catch: type[BaseException] = Exception

    def fit(self, blocks: Blocks) -> FittedImpute:
        try:
            return super().fit(blocks)
        except self.catch:
            return FittedImpute({"x": 0.0})


@dataclass(frozen=True)
class Angry(Middle):
    """One that makes an error of its own of what it caught."""

    def fit(self, blocks: Blocks) -> FittedImpute:
        try:
            return super().fit(blocks)
        except BaseException as error:
            raise ConfigError("no rows") from error


@dataclass(frozen=True)
class Ahead(Middle):
    """One that looks at rows which it has transformed."""

    def fit(self, blocks: Blocks) -> FittedImpute:
        return super().fit(blocks.then(FittedImpute({"x": -10.0})))


@pytest.mark.parametrize("step", [Cautious(), Cautious(catch=BaseException), Angry(), Ahead()])
@pytest.mark.parametrize("touched", [False, True])
def test_a_step_that_does_not_let_itself_be_asked_is_fitted_to_the_rows(
    step: Middle, touched: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if touched:
        monkeypatch.setattr(Middle, "touched", lambda self, schema: self.columns, raising=False)
    for steps in ([step, nr.Encode()], [nr.Normalize(["y"]), step, nr.Encode()], [nr.DropMissing(["y"]), step]):
        expected = fit_blocks(steps, FrameBlocks([ROWS[:3], ROWS[3:]]))
        assert fit_while_reading(steps, [ROWS[:3], ROWS[3:]])[0] == expected
    with pytest.raises(ZeroDivisionError):
        first_look([Broken()], ROWS.schema)


@dataclass(frozen=True)
class Broken(Middle):
    def fit(self, blocks: Blocks) -> FittedImpute:
        raise ZeroDivisionError
