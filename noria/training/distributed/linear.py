"""scikit-learn's models whose parameters can be averaged: linear ones, and its networks."""

from __future__ import annotations

import copy
import inspect
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn import config_context

from noria.core import ConfigError, DataError, allowed
from noria.training.distributed.parameters import Parameters, Shape, Turn, Update
from noria.training.distributed.partitions import Part
from noria.training.estimator import Estimator, fresh_copy

CHUNK = 32
"""At most so many rows between two pulls of a proximal term."""
GENTLE = 0.1
"""The share of the way back that a pull should not exceed."""
_SCHEDULES = ("constant", "invscaling", "optimal")
INCREMENTAL = (
    "PassiveAggressiveClassifier",
    "PassiveAggressiveRegressor",
    "Perceptron",
    "SGDClassifier",
    "SGDRegressor",
)
ONCE = (
    "ElasticNet",
    "HuberRegressor",
    "Lasso",
    "LinearRegression",
    "LinearSVC",
    "LinearSVR",
    "LogisticRegression",
    "Ridge",
)
NETWORKS = ("MLPClassifier", "MLPRegressor")


@dataclass(frozen=True)
class Stepwise:
    """A linear model that learns by steps (`partial_fit`): each turn goes on from the parameters of all."""

    estimator: Estimator

    def start(self, shape: Shape, seed: int) -> Parameters:
        return _zeros(shape)

    def improve(self, parameters: Parameters, part: Part, shape: Shape, turn: Turn) -> Update:
        model = self._model(parameters, shape, turn.seed)
        loss = loss_of(model, part, shape)
        # The step size goes on where the rounds before have left it.
        model.t_ = 1.0 + turn.round * turn.epochs * len(part)
        if turn.proximal:
            self._held(model, parameters, part, turn)
        else:
            for _ in range(turn.epochs):
                _partial_fit(model, part)
        return Update(_taken(model, parameters), part.weight, loss)

    def finish(self, parameters: Parameters, shape: Shape) -> Estimator:
        return self._model(parameters, shape, 0, keep_seed=True)  # type: ignore[no-any-return]

    def _model(self, parameters: Parameters, shape: Shape, seed: int, *, keep_seed: bool = False) -> Any:
        model: Any = fresh_copy(self.estimator)
        if not keep_seed and "random_state" in model.get_params():
            model.set_params(random_state=seed % 2**31)
        model.coef_, model.intercept_ = parameters["coef"].copy(), parameters["intercept"].copy()
        model.t_, model.n_features_in_ = 1.0, shape.features
        if shape.classes is not None:
            model.classes_ = shape.classes
        return model

    def _held(self, model: Any, parameters: Parameters, part: Part, turn: Turn) -> None:
        """Steps that a proximal term holds back.

        After a few rows the parameters flow towards those of the beginning, for as long as the steps of these rows
        have moved them: the term's own gradient flow, solved exactly (Lie splitting), so that no strength of it makes
        the steps unstable. There are as few rows between as keep the pull gentle, and `CHUNK` at most.
        """
        random = np.random.default_rng(turn.seed)
        for _ in range(turn.epochs):
            order, begin = random.permutation(len(part)), 0
            while begin < len(order):
                gentle = GENTLE / (turn.proximal * step_sizes(model, model.t_, 1))
                rows = order[begin : begin + int(np.clip(gentle, 1, CHUNK))]
                begin += len(rows)
                moved = step_sizes(model, model.t_, len(rows))
                weights = None if part.weights is None else part.weights[rows]
                # All rows have been checked, by the loss.
                with config_context(assume_finite=True, skip_parameter_validation=True):
                    _partial_fit(model, Part(part.number, part.matrix[rows], part.target[rows], weights))
                pull = -np.expm1(-turn.proximal * moved)
                model.coef_ -= pull * (model.coef_ - parameters["coef"])
                model.intercept_ = model.intercept_ - pull * (model.intercept_ - parameters["intercept"])


def step_sizes(model: Any, first: float, count: int) -> float:
    """The sum of the next steps' sizes, by the model's schedule.

    Raises:
        ConfigError: they depend on the data.
    """
    schedule = getattr(model, "learning_rate", "constant")
    if schedule not in _SCHEDULES:
        raise ConfigError(
            f"a proximal term needs step sizes that are known, and learning_rate={schedule!r} has none",
            hint=allowed(_SCHEDULES),
        )
    t = first + np.arange(count)
    if schedule == "constant":
        return count * float(model.eta0)
    if schedule == "invscaling":
        return float((model.eta0 / t**model.power_t).sum())
    largest = np.sqrt(1.0 / np.sqrt(model.alpha))  # Bottou's, as scikit-learn has it
    return float((1.0 / (model.alpha * (1.0 / (largest * model.alpha) + t - 1.0))).sum())


@dataclass(frozen=True)
class Once:
    """A linear model that is solved: one turn, whose optima are averaged."""

    estimator: Estimator

    def start(self, shape: Shape, seed: int) -> Parameters:
        arrays = _zeros(shape)
        return arrays if shape.classes is not None else {**arrays, "intercept": np.zeros(())}

    def improve(self, parameters: Parameters, part: Part, shape: Shape, turn: Turn) -> Update:
        model: Any = fresh_copy(self.estimator)
        if "random_state" in model.get_params():
            model.set_params(random_state=turn.seed % 2**31)
        weights = {} if part.weights is None else {"sample_weight": part.weights}
        model.fit(part.matrix, part.target, **weights)
        arrays = {
            name: np.asarray(getattr(model, f"{name}_"), np.float64).reshape(-1)[: array.size].reshape(array.shape)
            if np.size(getattr(model, f"{name}_")) == array.size
            else np.zeros(array.shape)  # no intercept
            for name, array in parameters.items()
        }
        return Update(arrays, part.weight, loss_of(model, part, shape))

    def finish(self, parameters: Parameters, shape: Shape) -> Estimator:
        model: Any = fresh_copy(self.estimator)
        model.coef_, model.n_features_in_ = parameters["coef"].copy(), shape.features
        intercept = parameters["intercept"].copy()
        model.intercept_ = intercept if intercept.shape else float(intercept)
        if shape.classes is not None:
            model.classes_ = shape.classes
        return model  # type: ignore[no-any-return]


@dataclass(frozen=True)
class SmallNetwork:
    """scikit-learn's multi-layer perceptron. Its optimizer begins afresh in each turn."""

    estimator: Estimator

    def start(self, shape: Shape, seed: int) -> Parameters:
        model = self._untrained(shape, seed)
        layers = zip(model.coefs_, model.intercepts_, strict=True)
        return {
            name: np.asarray(array, np.float64)
            for number, (weights, bias) in enumerate(layers)
            for name, array in ((f"weights{number}", weights), (f"bias{number}", bias))
        }

    def improve(self, parameters: Parameters, part: Part, shape: Shape, turn: Turn) -> Update:
        if turn.proximal:
            raise ConfigError(
                f"{type(self.estimator).__name__} can't be held by a proximal term",
                hint="proximal=0, or a network of PyTorch, or a linear model (SGDClassifier)",
            )
        model = self._untrained(shape, turn.seed)
        _put_layers(model, parameters)
        loss = loss_of(model, part, shape)
        for _ in range(turn.epochs):
            _partial_fit(model, part)
        arrays: Parameters = {}
        for number, (weights, bias) in enumerate(zip(model.coefs_, model.intercepts_, strict=True)):
            arrays |= {f"weights{number}": np.asarray(weights), f"bias{number}": np.asarray(bias)}
        return Update(arrays, part.weight, loss)

    def finish(self, parameters: Parameters, shape: Shape) -> Estimator:
        model = self._untrained(shape, 0)
        _put_layers(model, parameters)
        return model  # type: ignore[no-any-return]

    def _untrained(self, shape: Shape, seed: int) -> Any:
        """All that a first step makes, without its effect: the step is too small to change a number."""
        model: Any = fresh_copy(self.estimator)
        rate, state = model.learning_rate_init, model.random_state
        model.set_params(learning_rate_init=1e-300, random_state=seed % 2**31)
        target = np.zeros(1) if shape.classes is None else shape.classes[:1]
        more = {} if shape.classes is None else {"classes": shape.classes}
        model.partial_fit(np.zeros((1, shape.features)), target, **more)
        model.set_params(learning_rate_init=rate, random_state=state)
        del model._optimizer
        return model


def trainee_of(estimator: Estimator) -> Stepwise | Once | SmallNetwork | None:
    """How scikit-learn's estimator gives and takes its parameters; None when that isn't known.

    Raises:
        ConfigError: with its arguments, it doesn't.
    """
    kind = type(estimator)
    if not kind.__module__.startswith("sklearn."):
        return None
    if kind.__name__ in ONCE:
        return Once(estimator)
    if kind.__name__ in NETWORKS:
        return SmallNetwork(estimator)
    if kind.__name__ not in INCREMENTAL:
        return None
    parameters = estimator.get_params()  # type: ignore[attr-defined]
    for name, value, reason in (
        ("average", parameters.get("average"), "it averages over its own steps already"),
        ("early_stopping", parameters.get("early_stopping"), "rounds decide when it ends"),
        (
            "class_weight",
            parameters.get("class_weight") == "balanced",
            "a partition doesn't know how frequent they are",
        ),
    ):
        if value:
            raise ConfigError(
                f"{kind.__name__}({name}={parameters[name]!r}) can't be averaged: {reason}",
                hint=f"leave {name} out",
                field=name,
            )
    return Stepwise(estimator)


def loss_of(model: Any, part: Part, shape: Shape) -> float:
    """The log loss of classes, by probabilities or else by squashed decisions; the mean squared error of numbers.

    Rows of a class that the model doesn't know count as impossible.
    """
    if shape.classes is None:
        return float(np.average(np.square(model.predict(part.matrix) - part.target), weights=part.weights))
    column = np.searchsorted(shape.classes, part.target)
    with np.errstate(over="ignore"):
        likely = _probabilities(model, part.matrix)[np.arange(len(part)), np.minimum(column, len(shape.classes) - 1)]
    return float(np.average(-np.log(np.clip(likely, 1e-15, 1.0)), weights=part.weights))


def _probabilities(model: Any, matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    if hasattr(model, "predict_proba"):
        return np.asarray(model.predict_proba(matrix), np.float64)
    decision = np.asarray(model.decision_function(matrix), np.float64)
    if decision.ndim == 1:
        positive = 1.0 / (1.0 + np.exp(-decision))
        return np.column_stack([1.0 - positive, positive])
    odds = np.exp(decision - decision.max(axis=1, keepdims=True))
    return np.asarray(odds / odds.sum(axis=1, keepdims=True))


def _zeros(shape: Shape) -> Parameters:
    if shape.classes is None:
        return {"coef": np.zeros(shape.features), "intercept": np.zeros(1)}
    rows = 1 if len(shape.classes) == 2 else len(shape.classes)
    return {"coef": np.zeros((rows, shape.features)), "intercept": np.zeros(rows)}


def _taken(model: Any, parameters: Parameters) -> Parameters:
    arrays = {"coef": np.array(model.coef_, np.float64), "intercept": np.array(model.intercept_, np.float64)}
    return {name: array.reshape(parameters[name].shape) for name, array in arrays.items()}


def _put_layers(model: Any, parameters: Parameters) -> None:
    for number in range(len(model.coefs_)):
        model.coefs_[number] = copy.copy(parameters[f"weights{number}"])
        model.intercepts_[number] = copy.copy(parameters[f"bias{number}"])


def _partial_fit(model: Any, part: Part) -> None:
    weights = {}
    if part.weights is not None:
        if "sample_weight" not in inspect.signature(model.partial_fit).parameters:
            raise DataError(
                f"{type(model).__name__} takes no weights", hint="leave the weights out, or use SGDClassifier"
            )
        weights["sample_weight"] = part.weights
    model.partial_fit(part.matrix, part.target, **weights)
