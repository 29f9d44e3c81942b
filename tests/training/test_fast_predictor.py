"""Which predictor is chosen, and that a formula which differs anywhere is not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import RandomForestRegressor
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.tree import DecisionTreeRegressor

from noria.training.fast import FastPredictor, LibraryPredictor, fast_predictor, predictor_of
from noria.training.fast.check import agrees, same_bits


class Doubled(LinearRegression):
    """A subclass that computes something else."""

    def predict(self, X: Any) -> Any:  # noqa: N803
        return 2 * super().predict(X)


class Bare:
    """No more than `fit` and `predict`."""

    def fit(self, X: Any, y: Any) -> Bare:  # noqa: N803
        return self

    def predict(self, X: Any) -> Any:  # noqa: N803
        return [1] * len(X)


def test_others_are_the_librarys(plain: Any, target: Any) -> None:
    for model in (DummyClassifier(), KNeighborsClassifier(), Doubled(), Bare()):
        made = predictor_of(model.fit(plain, (target > 1).astype(int)))
        assert isinstance(made, LibraryPredictor)
        predictions, scores = made.predict(plain[:3])
        assert predictions.tolist() == list(model.predict(plain[:3]))
        assert (scores is None) == (not hasattr(model, "predict_proba"))


def test_not_fitted_is_the_librarys() -> None:
    assert fast_predictor(LogisticRegression()) is None
    assert fast_predictor(RandomForestRegressor()) is None


def test_a_model_whose_insides_were_changed_is_the_librarys(plain: Any, target: Any) -> None:
    model = DecisionTreeRegressor().fit(plain, target)
    model.predict = lambda X: np.zeros(len(X))  # noqa: N803
    assert fast_predictor(model) is None


@pytest.mark.parametrize("wrong", ["value", "type", "missing", "edge", "batch", "scores"])
def test_a_formula_that_differs_is_found(wrong: str, plain: Any, target: Any) -> None:
    model = DecisionTreeRegressor(max_depth=3, random_state=0).fit(plain, target)
    fast = fast_predictor(model)
    assert fast is not None
    edge = fast.formula.landmarks[1][0]  # type: ignore[index]
    column = int(fast.formula.landmarks[0][0])  # type: ignore[index]

    def compute(rows: Any) -> Any:
        predicted, scores = fast.formula.compute(rows) or (None, None)
        if predicted is None:
            return None
        if wrong == "value":
            predicted = np.nextafter(predicted, np.inf)
        if wrong == "type":
            predicted = predicted.astype(np.float32)
        if wrong == "missing":
            predicted = np.where(np.isnan(rows).any(axis=1), 0.0, predicted)
        if wrong == "edge":
            predicted = np.where(rows[:, column].astype(np.float32) == np.float32(edge), 0.0, predicted)
        if wrong == "batch":
            predicted = predicted + (len(rows) == 24)
        return predicted, predicted if wrong == "scores" else scores

    library = LibraryPredictor(model).predict
    assert agrees(fast.predict, library, fast.formula)
    other = FastPredictor(replace(fast.formula, compute=compute), fast.library)
    assert not agrees(other.predict, library, other.formula)


def test_known_rows_are_compared_too(plain: Any, target: Any) -> None:
    model = LinearRegression().fit(plain, target)
    fast = fast_predictor(model, plain)
    assert fast is not None
    known = np.full((1, 8), 1234.5)

    def compute(rows: Any) -> Any:
        return (np.zeros(len(rows)), None) if (rows == known).all() else fast.formula.compute(rows)

    other = FastPredictor(replace(fast.formula, compute=compute), fast.library)
    assert agrees(other.predict, fast.library.predict, other.formula)
    assert not agrees(other.predict, fast.library.predict, other.formula, known)


def test_any_layout_of_rows(plain: Any, target: Any) -> None:
    model = RandomForestRegressor(5).fit(plain, target)
    fast, wanted = predictor_of(model), model.predict(plain)
    read_only = plain.copy()
    read_only.flags.writeable = False
    for rows in (np.asfortranarray(plain), read_only, plain[::-1][::-1], plain.astype(">f8")):
        assert fast.predict(rows)[0].tobytes() == wanted.tobytes()
    with pytest.raises(ValueError, match="features"):
        fast.predict(plain[:, :4])
    with pytest.raises(ValueError, match="sample"):
        fast.predict(plain[:0])


def test_bits() -> None:
    one = np.array([0.0, np.nan])
    assert same_bits(one, one.copy())
    assert same_bits(None, None)
    assert not same_bits(one, None)
    assert not same_bits(one, np.array([-0.0, np.nan]))
    assert not same_bits(one, np.array([np.nan, 0.0]))
    assert not same_bits(one, one.astype(np.float32))
    assert same_bits(np.array(["a"], dtype=object), np.array(["a"], dtype=object))
