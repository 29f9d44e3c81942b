"""`Vote` and `Stack`: a model for each partition, and all of them together."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression, Ridge

from noria.core import ConfigError, DataError, task
from noria.training.distributed.crew import Crew
from noria.training.distributed.parameters import turn_seed
from noria.training.distributed.partitions import Part, by_rows, check_classes
from noria.training.distributed.strategy import Job
from noria.training.estimator import Estimator, fresh_copy

FORESTS = ("ExtraTreesClassifier", "ExtraTreesRegressor", "RandomForestClassifier", "RandomForestRegressor")
_HELD_OUT = 2**30
"""The place of the draw of the held-out rows among the seeds."""


class Voted:
    """Models that vote: probabilities averaged by weight, or votes counted by weight; numbers averaged.

    Attributes:
        models: fitted.
        weights: [models] that sum to 1.
        classes_: sorted; absent when a number is predicted.
    """

    def __init__(self, models: Sequence[Estimator], weights: NDArray[np.float64], classes: NDArray[Any] | None) -> None:
        self.models = list(models)
        self.weights = weights
        if classes is not None:
            self.classes_ = classes

    def fit(self, X: Any, y: Any) -> Voted:  # noqa: N803
        """Fit each of them again, to the same rows."""
        self.models = [fresh_copy(model) for model in self.models]
        for model in self.models:
            model.fit(X, y)
        return self

    def predict(self, X: Any) -> NDArray[Any]:  # noqa: N803
        """One value for each row."""
        if hasattr(self, "classes_"):
            return np.asarray(self.classes_[self.predict_proba(X).argmax(axis=1)])
        return np.asarray(sum(w * model.predict(X) for w, model in zip(self.weights, self.models, strict=True)))

    def predict_proba(self, X: Any) -> NDArray[np.float64]:  # noqa: N803
        """[rows, classes] the mean of the models' probabilities, or their shares of the votes."""
        likely = np.zeros((len(X), len(self.classes_)))
        for weight, model in zip(self.weights, self.models, strict=True):
            likely += weight * class_shares(model, X, self.classes_)
        return likely


class Stacked:
    """Models whose outputs are the inputs of a last one.

    Attributes:
        models: fitted on partitions.
        last: fitted on what they say of rows that they haven't seen.
        classes_: sorted; absent when a number is predicted.
    """

    def __init__(self, models: Sequence[Estimator], last: Estimator, classes: NDArray[Any] | None) -> None:
        self.models = list(models)
        self.last = last
        if classes is not None:
            self.classes_ = classes

    def fit(self, X: Any, y: Any) -> Stacked:  # noqa: N803
        """Fit the last one again, to what the models say of these rows."""
        self.last = fresh_copy(self.last)
        self.last.fit(outputs(self.models, X, getattr(self, "classes_", None)), y)
        return self

    def predict(self, X: Any) -> NDArray[Any]:  # noqa: N803
        """One value for each row."""
        return np.asarray(self.last.predict(outputs(self.models, X, getattr(self, "classes_", None))))

    def predict_proba(self, X: Any) -> NDArray[np.float64]:  # noqa: N803
        """[rows, classes] by the last one."""
        last: Any = self.last
        return np.asarray(last.predict_proba(outputs(self.models, X, self.classes_)), np.float64)


def class_shares(model: Any, matrix: Any, classes: NDArray[Any]) -> NDArray[np.float64]:
    """[rows, classes] a model's probabilities, or 1 for the class that it says; a class that it doesn't know gets 0."""
    shares = np.zeros((len(matrix), len(classes)))
    if hasattr(model, "predict_proba"):
        shares[:, np.searchsorted(classes, model.classes_)] = model.predict_proba(matrix)
    else:
        shares[np.arange(len(matrix)), np.searchsorted(classes, model.predict(matrix))] = 1.0
    return shares


def outputs(models: Sequence[Any], matrix: Any, classes: NDArray[Any] | None) -> NDArray[np.float64]:
    """[rows, outputs] what the models say; of the classes' shares, which sum to 1, all but the first."""
    if classes is None:
        return np.column_stack([model.predict(matrix) for model in models])
    return np.column_stack([class_shares(model, matrix, classes)[:, 1:] for model in models])


@dataclass(frozen=True)
class Vote:
    """A model for each partition; they vote, each with the weight of its rows.

    Forests of scikit-learn become one forest: each partition grows its share of the trees, and the trees are put
    together. That is bagging, of samples from partitions instead of from all rows.
    """

    name: ClassVar[str] = "vote"

    def to_dict(self) -> dict[str, Any]:
        """The definition as plain JSON data."""
        return {"name": self.name}

    def check(self, estimator: Estimator) -> None:
        """Every estimator can vote."""

    def train(self, job: Job, crew: Crew) -> tuple[Estimator, dict[str, Any]]:
        """The model; there is nothing to note."""
        if job.shape.classes is not None:
            check_classes(job.partition, job.target, job.shape.classes, all_of_them=is_forest(job.estimator))
        models = fit_parts(job, crew)
        if is_forest(job.estimator):
            return joined(job.estimator, models), {}
        weights = np.array([job.part(number).weight for number in range(job.count)])
        voted: Estimator = Voted(models, weights / weights.sum(), job.shape.classes)
        return voted, {}


@dataclass(frozen=True)
class Stack:
    """A model for each partition, and a last one that learns how far to trust each, on rows that none of them saw.

    Attributes:
        held_out: the share of the rows for the last one: the newest where rows have times, else drawn by the seed.
        last: the last model; by default a logistic regression, or a ridge regression for numbers.
    """

    held_out: float = 0.2
    last: Estimator | None = None
    name: ClassVar[str] = "stack"

    def __post_init__(self) -> None:
        if not 0 < self.held_out < 1:
            raise ConfigError(f"Stack: held_out={self.held_out!r}", hint="allowed: above 0, below 1", field="held_out")

    def to_dict(self) -> dict[str, Any]:
        """The definition as plain JSON data."""
        from noria.training.estimator import definition

        return {
            "name": self.name,
            "held_out": self.held_out,
            "last": None if self.last is None else definition(self.last),
        }

    def check(self, estimator: Estimator) -> None:
        """Every estimator can be stacked."""

    def train(self, job: Job, crew: Crew) -> tuple[Estimator, dict[str, Any]]:
        """The model, and how many rows the last one has learned from."""
        held = held_out(job, self.held_out)
        classes = job.shape.classes
        if held.all() or not held.any():
            raise DataError(
                f"{len(held)} rows are too few to hold {self.held_out:.0%} of them out",
                hint="give more rows, or another share: Stack(held_out=0.2)",
            )
        partition = np.where(held, -1, job.partition).astype(np.int32)
        if classes is not None:
            check_classes(partition, job.target, classes, all_of_them=False)
            if len(np.unique(job.target[held])) < 2:
                raise DataError("the rows that are held out for the last model are of one class", hint="hold more out")
        job.partition = partition
        models = fit_parts(job, crew)
        last: Any = fresh_copy(self.last or (Ridge() if classes is None else LogisticRegression()))
        weights = {} if job.weights is None else {"sample_weight": job.weights[held]}
        last.fit(outputs(models, job.matrix[held], classes), job.target[held], **weights)
        stacked: Estimator = Stacked(models, last, classes)
        return stacked, {"held_out": int(held.sum())}


def held_out(job: Job, share: float) -> NDArray[np.bool_]:
    """[rows] which are held out."""
    rows = len(job.target)
    count = round(rows * share)
    if job.times is None:
        pieces = max(2, round(1 / share))
        return np.asarray(by_rows(job.target, min(pieces, rows), turn_seed(job.seed, 0, _HELD_OUT)) == 0)
    held = np.zeros(rows, np.bool_)
    held[np.argsort(job.times, kind="stable")[rows - count :]] = True
    return held


def is_forest(estimator: Estimator) -> bool:
    """Whether it is a forest of scikit-learn whose trees can be put together."""
    kind = type(estimator)
    return kind.__module__.startswith("sklearn.") and kind.__name__ in FORESTS


def fit_parts(job: Job, crew: Crew) -> list[Estimator]:
    """A model for each partition, from the checkpoints or trained now."""
    found: dict[int, Any] = {}
    for number in range(job.count):
        if (kept := job.checkpoints.read(f"part-{number}")) is not None:
            found[number] = pickle.loads(kept)  # written by us, in the run's own folder
    left = [number for number in range(job.count) if number not in found]
    parts = job.parts(crew)
    calls = [(share_of(job, number), parts[number], turn_seed(job.seed, 0, number)) for number in left]
    name = f"train {job.count} parts"
    with task(job.progress, name, job.count):
        job.progress.advance(name, len(found))
        for place, made in crew.each(fit_part, calls):
            found[left[place]] = pickle.loads(made)
            job.checkpoints.write(f"part-{left[place]}", made)
            job.progress.advance(name)
    return [found[number] for number in range(job.count)]


def share_of(job: Job, number: int) -> Estimator:
    """What is fitted to a partition: the estimator, or a forest with its share of the trees."""
    model: Any = fresh_copy(job.estimator)
    if is_forest(model):
        trees, left = divmod(model.n_estimators, job.count)
        if trees == 0:
            raise ConfigError(
                f"{model.n_estimators} trees can't be shared out over {job.count} partitions",
                hint=f"n_estimators={job.count} or more, or fewer partitions",
                field="n_estimators",
            )
        model.set_params(n_estimators=trees + (number < left))
    return model  # type: ignore[no-any-return]


def fit_part(model: Any, part: Part, seed: int) -> bytes:
    """A fitted model, pickled; where it is random, with the seed."""
    if "random_state" in getattr(model, "get_params", dict)():
        model.set_params(random_state=seed % 2**31)
    weights = {} if part.weights is None else {"sample_weight": part.weights}
    try:
        model.fit(part.matrix, part.target, **weights)
    except (ValueError, TypeError) as error:
        raise DataError(f"partition {part.number} ({len(part)} rows) can't be trained on: {error}") from error
    return pickle.dumps(model, protocol=5)


def joined(estimator: Estimator, forests: Sequence[Any]) -> Estimator:
    """One forest of all trees."""
    forest: Any = forests[0]
    forest.estimators_ = [tree for one in forests for tree in one.estimators_]
    parameters = estimator.get_params()  # type: ignore[attr-defined]
    forest.set_params(n_estimators=parameters["n_estimators"], random_state=parameters["random_state"])
    return forest  # type: ignore[no-any-return]
