"""First look: what a fit asks first of all rows is answered while they are read, instead of by reading them again.

A fit is a function of `Blocks`, and learns of the rows only through `map`. So it is begun before there are any rows, to
hear what it asks; the answers are collected piece by piece as the rows come in; and when it is fitted for good, `map`
gives them, if it is asked the same. A step needs to know nothing of this. Steps that ask nothing are fitted at once,
and transform the rows as they come in.

The rows that a step is fitted to have gone through the steps before it. As long as those aren't fitted, only a step
that has to do with other columns can be answered: `touched` says which they are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import polars as pl

from noria.core import ConfigError
from noria.pipelines.blocks import Blocks, FittedBlockStep
from noria.pipelines.steps import FittedStep, Step

T = TypeVar("T")
Question = Callable[[pl.DataFrame, int], Any]


@dataclass(frozen=True)
class Look:
    """What the step with this number asks, and of which columns."""

    step: int
    question: Question
    columns: tuple[str, ...]

    def __call__(self, frame: pl.DataFrame, block: int) -> Any:
        return self.question(frame.select(self.columns), block)


def first_look(steps: Sequence[Step], schema: pl.Schema) -> tuple[tuple[FittedStep, ...], tuple[Look, ...]]:
    """The leading steps that ask nothing, fitted, and what can be asked of the rows that come out of them.

    Raises:
        ConfigError: a step doesn't suit the columns.
    """
    ready: list[FittedStep] = []
    looks: list[Look] = []
    unsettled: set[str] = set()  # columns that steps which aren't fitted yet will change
    for number, step in enumerate(steps):
        settled = pl.Schema({name: dtype for name, dtype in schema.items() if name not in unsettled})
        begun = len(ready) < number
        if begun and getattr(step, "columns", None) is None:
            break  # which columns suit it isn't known yet
        try:
            touched = _touched(step, settled)
            asked = _asked(step, settled)
        except ConfigError:
            if begun:  # it may be about what the steps before it make
                break
            raise
        if asked is None:
            break  # nor what it makes of the rows; it is fitted when all are there, as are those after it
        if not isinstance(asked, _QuestionError):
            if not begun and asked.by_row:
                ready.append(asked)
                schema = asked.apply(pl.DataFrame(schema=schema)).schema
                continue
        elif touched is not None or not begun:
            looks.append(Look(number, asked.question, tuple(settled) if touched is None else touched))
        if touched is None:
            break
        unsettled |= set(touched)
    return tuple(ready), tuple(looks)


def _touched(step: Step, schema: pl.Schema) -> tuple[str, ...] | None:
    touched = getattr(step, "touched", None)
    return None if touched is None else tuple(touched(schema))


def _asked(step: Step, schema: pl.Schema) -> FittedStep | _QuestionError | None:
    """The step, if it asks nothing; what it asks; None if that can't be known ahead."""
    unread = _Unread(schema)
    try:
        fitted = step.fit(unread)
    except _QuestionError as question:
        return question
    except _UnknownError:
        return None
    except Exception:
        if unread.asked:  # it has caught the question, and made an error of its own of it
            return None
        raise
    return None if unread.asked else fitted  # if it has caught the question, it is fitted to no rows


class _QuestionError(BaseException):
    """Carries what a fit asks out of it. No `Exception`: a fit may catch those, to go on without what it asked for."""

    def __init__(self, question: Question) -> None:
        super().__init__()
        self.question = question


class _UnknownError(BaseException):
    """A fit asks what can't be known ahead."""


class _Unread:
    """Blocks whose rows are not there yet."""

    def __init__(self, schema: pl.Schema) -> None:
        self._schema = schema
        self.asked = False

    @property
    def schema(self) -> pl.Schema:
        return self._schema

    def map(self, work: Callable[[pl.DataFrame, int], T]) -> list[T]:
        self.asked = True
        raise _QuestionError(work)

    def then(self, step: FittedBlockStep) -> Blocks:
        """What a fit asks of rows that it has transformed isn't a question about these rows."""
        self.asked = True
        raise _UnknownError


@dataclass(frozen=True)
class Answered:
    """Blocks that have been asked one question already; everything else they answer by being read."""

    blocks: Blocks
    question: Question
    answers: Sequence[Any]

    @property
    def schema(self) -> pl.Schema:
        return self.blocks.schema

    def map(self, work: Callable[[pl.DataFrame, int], T]) -> list[T]:
        return list(self.answers) if _is_same(work, self.question) else self.blocks.map(work)

    def then(self, step: FittedBlockStep) -> Blocks:
        return self.blocks.then(step)


def _is_same(one: Question, other: Question) -> bool:
    if not isinstance(one, partial) or not isinstance(other, partial):
        return one is other
    try:
        return one.func is other.func and bool(one.args == other.args) and bool(one.keywords == other.keywords)
    except (TypeError, ValueError):  # of expressions and arrays it isn't known
        return False
