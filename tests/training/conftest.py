"""How a predictor is held against its library: by bits, for batches of many sizes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from noria.training.fast import LibraryPredictor, fast_predictor

collect_ignore = ["damaged_files.py", "saved_by_mlflow.py"]  # programs, not modules
SIZES = (1, 2, 7, 64, 500)
Agree = Callable[..., None]


def bits(array: NDArray[Any] | None) -> list[Any] | None:
    """Something that is equal only for the same type and bits; every NaN is the same."""
    if array is None:
        return None
    if array.dtype.kind != "f":
        return [array.dtype.kind, *array.tolist()]
    cleared = np.where(np.isnan(array), np.array(np.nan, array.dtype), array)
    return [array.dtype.name, *cleared.view(f"i{array.dtype.itemsize}").tolist()]


@pytest.fixture
def agree() -> Agree:
    """Check that an estimator has a formula and that it has the library's bits on rows.

    With `alone`, a row's bits must be those that the library gives for it alone; else those of the batch.
    """

    def check(estimator: Any, rows: NDArray[np.float64], alone: bool = False) -> None:
        fast, library = fast_predictor(estimator), LibraryPredictor(estimator)
        assert fast is not None, f"{estimator} has no formula"
        for size in SIZES:
            batch = rows[-size:]
            answer = fast.formula.compute(np.ascontiguousarray(batch))
            assert answer is not None, "the formula left the rows to the library"
            if not alone:
                wanted, scores = library.predict(batch)
            else:
                singles = [library.predict(batch[i : i + 1]) for i in range(size)]
                wanted = np.concatenate([part[0] for part in singles])
                scores = None if singles[0][1] is None else np.concatenate([part[1] for part in singles])  # type: ignore[misc]
            assert bits(answer[0]) == bits(wanted)
            assert bits(answer[1]) == bits(scores)

    return check


@pytest.fixture(scope="session")
def plain() -> NDArray[np.float64]:
    """[600, 8] finite numbers; column 3 has 40 levels, column 4 has three with a frequent zero."""
    random = np.random.default_rng(5)
    rows = random.normal(size=(600, 8))
    rows[:, 3] = random.integers(0, 40, 600)
    rows[:, 4] = random.choice([0.0, 0.0, 1.0, -2.5], 600)
    return rows


@pytest.fixture(scope="session")
def gaps(plain: NDArray[np.float64]) -> NDArray[np.float64]:
    """The same with missing values."""
    return np.where(np.random.default_rng(6).random(plain.shape) < 0.15, np.nan, plain)


@pytest.fixture(scope="session")
def target(plain: NDArray[np.float64]) -> NDArray[np.float64]:
    """A value for each row."""
    noise = np.random.default_rng(7).normal(size=len(plain))
    return plain[:, 0] + plain[:, 1] ** 2 + plain[:, 3] % 3 + plain[:, 4] + noise


@pytest.fixture(scope="session")
def odd(plain: NDArray[np.float64]) -> NDArray[np.float64]:
    """The same rows with zeros of both signs, denormals and huge values, all of which float32 can hold or round."""
    random = np.random.default_rng(8)
    values = np.array([0.0, -0.0, 5e-324, -1e-310, 1e-40, 1e-36, 1e-35, 1.1e-35, -0.5, -1.0, 33.0, 1e9, 2.0**31, 3e38])
    return np.where(random.random(plain.shape) < 0.3, random.choice(values, plain.shape), plain)


@pytest.fixture(scope="session")
def wild(odd: NDArray[np.float64]) -> NDArray[np.float64]:
    """The same with missing and infinite values, and with some that are beyond float32."""
    random = np.random.default_rng(9)
    values = np.array([np.nan, np.inf, -np.inf, 1e300, -1e300])
    return np.where(random.random(odd.shape) < 0.2, random.choice(values, odd.shape), odd)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Small models on a busy machine: threads would mostly wait for each other."""
    with threadpool_limits(1):
        yield
