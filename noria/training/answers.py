"""What a model said of the rows that judge it, beside what is true."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from noria.core import DataError
from noria.training.fast.predictor import LibraryPredictor
from noria.training.learner import Learned

MANY_NUMBERS = 200_000
"""From so many on, finding and checking a model's formula (50 ms) takes less time than the formula saves."""


@dataclass(frozen=True)
class Answers:
    """What is true and what was said.

    Attributes:
        truth: [rows].
        predicted: [rows].
        known: the classes that the model knows, in the order of `given`; None where it doesn't say.
        given: [rows, known] their probabilities; None where it gives none.
    """

    truth: NDArray[Any]
    predicted: NDArray[Any]
    known: NDArray[Any] | None = None
    given: NDArray[np.float64] | None = None

    @staticmethod
    def of(
        truth: NDArray[Any],
        predicted: NDArray[Any],
        scores: NDArray[np.float64] | None = None,
        classes: NDArray[Any] | None = None,
    ) -> Answers:
        """Answers with the positive class's scores, [rows], or all classes', [rows, classes]."""
        if scores is None:
            return Answers(truth, predicted, classes)
        known = _labels(truth, predicted) if classes is None else np.asarray(classes)
        if scores.ndim == 1:
            scores = np.column_stack([1 - scores, scores])
        return Answers(truth, predicted, known, scores)

    def __len__(self) -> int:
        return len(self.truth)

    def take(self, rows: NDArray[Any]) -> Answers:
        """The same for some rows, by their numbers or by a mask; the classes stay."""
        known = self.classes if self.has_classes and self.known is None else self.known
        given = None if self.given is None else self.given[rows]
        return Answers(self.truth[rows], self.predicted[rows], known, given)

    @property
    def has_classes(self) -> bool:
        """Whether classes were predicted, and not numbers."""
        return self.known is not None or "f" not in (self.truth.dtype.kind, self.predicted.dtype.kind)

    @property
    def has_probabilities(self) -> bool:
        return self.given is not None

    @cached_property
    def classes(self) -> NDArray[Any]:
        """All that there are, in order: those that the model knows and those that are true."""
        found = _labels(self.truth, self.predicted)
        return found if self.known is None else np.unique(_joined(self.known, found))

    @property
    def is_binary(self) -> bool:
        return len(self.classes) == 2

    @cached_property
    def true_codes(self) -> NDArray[np.int64]:
        """[rows] the true classes as places in `classes`."""
        return self._codes(self.truth)

    @cached_property
    def predicted_codes(self) -> NDArray[np.int64]:
        """[rows] the predicted classes as places in `classes`."""
        return self._codes(self.predicted)

    def _codes(self, values: NDArray[Any]) -> NDArray[np.int64]:
        return np.searchsorted(self.classes, values).astype(np.int64)

    @cached_property
    def probabilities(self) -> NDArray[np.float64]:
        """[rows, classes]; a class that the model doesn't know has none."""
        assert self.given is not None
        assert self.known is not None
        if len(self.known) == len(self.classes) and (self.known == self.classes).all():
            return self.given
        made = np.zeros((len(self), len(self.classes)))
        made[:, self._codes(self.known)] = self.given
        return made

    @cached_property
    def numbers(self) -> NDArray[np.float64]:
        """[rows] the true values as numbers."""
        return np.asarray(self.truth, np.float64)

    @cached_property
    def errors(self) -> NDArray[np.float64]:
        """[rows] what was predicted too much."""
        return np.asarray(self.predicted, np.float64) - self.numbers


def answer(learned: Learned, inputs: pl.DataFrame, truth: NDArray[Any]) -> Answers:
    """What a model says of rows.

    Args:
        learned: the model.
        inputs: [rows, columns] as the model reads them, before its steps.
        truth: [rows] what is true.

    Raises:
        DataError: it doesn't say one value for each row, of the target's kind.
    """
    estimator, matrix = learned.estimator, learned.inputs.matrix(inputs)
    is_worth_it = matrix.size >= MANY_NUMBERS or "predictor" in vars(learned)  # then it is there already
    predictor = learned.predictor if is_worth_it else LibraryPredictor(estimator)
    predicted, scores = predictor.predict(matrix)
    predicted = _one_for_each(estimator, np.asarray(predicted), truth)
    classes = getattr(estimator, "classes_", None)
    if classes is None:
        return Answers(truth, predicted)
    if scores is not None:
        return Answers(truth, predicted, np.asarray(classes), np.column_stack([1 - scores, scores]))
    if not hasattr(estimator, "predict_proba"):
        return Answers(truth, predicted, np.asarray(classes))
    return Answers(truth, predicted, np.asarray(classes), np.asarray(estimator.predict_proba(matrix), np.float64))


def _one_for_each(estimator: Any, predicted: NDArray[Any], truth: NDArray[Any]) -> NDArray[Any]:
    if predicted.dtype.kind == "O" and truth.dtype.kind != "O":
        predicted = np.asarray(predicted.tolist())  # numbers in objects are numbers
    is_text, is_truth_text = (part.dtype.kind in "OUST" for part in (predicted, truth))
    if predicted.size != len(truth) or is_text != is_truth_text:
        kinds = (f"{part.dtype.name}{list(part.shape)}" for part in (predicted, truth))
        raise DataError(
            "{} predicts {}, and the target is {}".format(type(estimator).__name__, *kinds),
            hint="its predict has to give one value for each row, of the kind that fit was given",
        )
    return predicted.reshape(len(truth))


def _labels(*parts: NDArray[Any]) -> NDArray[Any]:
    if any(part.dtype.kind == "b" for part in parts):
        return np.array([False, True])
    return np.unique(_joined(*parts))


def _joined(*parts: NDArray[Any]) -> NDArray[Any]:
    """One array; text of any type as objects, since NumPy would cut or compare it by its own types."""
    if any(part.dtype.kind in "OUST" for part in parts):
        return np.concatenate([part.astype(object) for part in parts])
    return np.concatenate(parts)
