"""steps: transformations of columns, fitted once, applied everywhere.

A step is a frozen definition; `fit` looks at rows and returns a frozen state, whose `apply` is what batch and server
both call. State is plain data: it is saved with the table's or the model's version and can be read by people.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import polars as pl

from noria.core import DataError, allowed
from noria.pipelines.steps.drop_missing import DropMissing, FittedDropMissing
from noria.pipelines.steps.encode import Encode, FittedEncode
from noria.pipelines.steps.impute import FittedImpute, Impute
from noria.pipelines.steps.normalize import FittedNormalize, Normalize
from noria.pipelines.steps.step import FittedStep, Step

__all__ = [
    "DropMissing",
    "Encode",
    "FittedStep",
    "Impute",
    "Normalize",
    "Step",
    "apply_steps",
    "fit_steps",
    "steps_from_dict",
    "steps_to_dict",
]

_FITTED: dict[str, Callable[[dict[str, Any]], FittedStep]] = {
    "DropMissing": FittedDropMissing.from_dict,
    "Encode": FittedEncode.from_dict,
    "Impute": FittedImpute.from_dict,
    "Normalize": FittedNormalize.from_dict,
}


def fit_steps(steps: Sequence[Step], frame: pl.DataFrame) -> tuple[tuple[FittedStep, ...], pl.DataFrame]:
    """Fit each step to what the steps before it made of the frame; returns them and the transformed frame."""
    fitted = []
    for step in steps:
        fitted.append(step.fit(frame))
        frame = fitted[-1].apply(frame)
    return tuple(fitted), frame


def apply_steps(steps: Sequence[FittedStep], frame: pl.DataFrame) -> pl.DataFrame:
    """Transform rows by fitted steps."""
    for step in steps:
        frame = step.apply(frame)
    return frame


def steps_to_dict(steps: Sequence[FittedStep]) -> list[dict[str, Any]]:
    """The fitted state of all steps as plain JSON data."""
    return [step.to_dict() for step in steps]


def steps_from_dict(states: Sequence[dict[str, Any]]) -> tuple[FittedStep, ...]:
    """The reverse of `steps_to_dict`.

    Raises:
        DataError: a step is unknown to this version of noria.
    """
    for state in states:
        if state["step"] not in _FITTED:
            raise DataError(f"the saved step {state['step']!r} is unknown", hint=allowed(_FITTED, state["step"]))
    return tuple(_FITTED[state["step"]](state) for state in states)
