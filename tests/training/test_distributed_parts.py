"""What needs no cluster: cutting rows, averaging, checkpoints, and what is refused when it is defined."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge, SGDClassifier, SGDRegressor
from sklearn.neural_network import MLPClassifier, MLPRegressor

import noria as nr
from noria.core import ConfigError, DataError, NoriaError
from noria.training.distributed.checkpoints import Checkpoints, data_key, pack, unpack
from noria.training.distributed.linear import Once, SmallNetwork, Stepwise, step_sizes
from noria.training.distributed.parameters import Shape, Turn, Update, checked, combine, turn_seed
from noria.training.distributed.partitions import Part, by_entity, by_rows, check_classes, cut


@given(st.integers(1, 12), st.lists(st.integers(0, 3), min_size=12, max_size=200), st.integers(0, 5))
def test_rows_are_dealt_evenly_and_so_is_each_class(count: int, target: list[int], seed: int) -> None:
    wanted = np.array(target)
    partition = by_rows(wanted, count, seed)
    sizes = np.bincount(partition, minlength=count)
    assert sizes.max() - sizes.min() <= 1
    for value in set(target):
        each = np.bincount(partition[wanted == value], minlength=count)
        assert each.max() - each.min() <= 1
    assert np.array_equal(partition, by_rows(wanted, count, seed))


@given(st.integers(1, 6), st.lists(st.integers(0, 30), min_size=60, max_size=200))
def test_an_entity_stays_whole_and_no_partition_is_empty(count: int, entities: list[int]) -> None:
    owners = np.array(entities)
    found, sizes = np.unique(owners, return_counts=True)
    if len(found) < count:
        with pytest.raises(DataError, match="can't fill"):
            by_entity(owners, count)
        return
    partition = by_entity(owners, count)
    assert all(len(set(partition[owners == owner])) == 1 for owner in found)
    rows = np.bincount(partition, minlength=count)
    assert rows.min() > 0
    assert rows.max() - rows.min() <= sizes.max()


def test_what_can_not_be_cut_is_explained() -> None:
    with pytest.raises(DataError, match="3 rows can't fill 4 partitions"):
        by_rows(np.arange(3), 4, 0)
    with pytest.raises(DataError, match="belong to no entities"):
        by_entity(None, 2)
    partition, target = np.array([0, 0, 1, 1], np.int32), np.array(["a", "b", "a", "a"])
    with pytest.raises(DataError, match=r"partition 1 .2 rows. has only the class a"):
        check_classes(partition, target, np.unique(target), all_of_them=False)
    three = np.array(["a", "b", "a", "c"])
    check_classes(partition, three, np.unique(three), all_of_them=False)
    with pytest.raises(DataError, match=r"partition 0 .2 rows. has no rows of the class c"):
        check_classes(partition, three, np.unique(three), all_of_them=True)


def test_parts_keep_their_order_and_their_weights() -> None:
    matrix, weights = np.arange(8.0).reshape(4, 2), np.array([1.0, 2.0, 3.0, 4.0])
    parts = [cut(matrix, np.arange(4), weights, np.array([1, 0, 1, 0], np.int32), number) for number in (0, 1)]
    assert parts[0].target.tolist() == [1, 3]
    assert [part.weight for part in parts] == [6.0, 4.0]
    assert (parts[0] + parts[1]).target.tolist() == [1, 3, 0, 2]


@given(st.lists(st.tuples(st.floats(-1e6, 1e6), st.integers(1, 1000)), min_size=1, max_size=8))
def test_the_mean_is_by_rows(values: list[tuple[float, int]]) -> None:
    start = {"coef": np.zeros(2), "seen": np.zeros((), np.int64)}
    updates = {
        number: Update({"coef": np.full(2, value), "seen": np.array(rows)}, float(rows), 0.0)
        for number, (value, rows) in enumerate(values)
    }
    made = combine(start, updates, None)
    rows = np.array([row for _, row in values], np.float64)
    assert np.allclose(made["coef"], np.average([value for value, _ in values], weights=rows), atol=1e-6)
    assert made["seen"].dtype == np.int64


def test_a_clipped_update_goes_no_further() -> None:
    start = {"a": np.ones(3), "b": np.ones(1)}
    far = Update({"a": np.array([31.0, 1.0, 1.0]), "b": np.array([41.0])}, 1.0, 0.0)
    made = combine(start, {0: far}, 5.0)
    assert np.allclose(made["a"], [4.0, 1.0, 1.0])
    assert np.allclose(made["b"], [5.0])
    assert np.array_equal(combine(start, {0: far}, 50.0)["a"], far.arrays["a"])


class Sneaky(np.ndarray):
    """A kind of array that isn't one."""


@pytest.mark.parametrize(
    ("update", "message"),
    [
        ({"coef": np.zeros(2)}, "sent dict, not an update"),
        (Update({"coefs": np.zeros(2)}, 1.0, 0.0), "the parameters coefs, not coef"),
        (Update({"coef": [0.0, 0.0]}, 1.0, 0.0), "list as 'coef', not an array"),  # type: ignore[dict-item]
        (Update({"coef": np.zeros(2).view(Sneaky)}, 1.0, 0.0), "Sneaky as 'coef'"),
        (Update({"coef": np.zeros(3)}, 1.0, 0.0), r"float64\[3\], not float64\[2\]"),
        (Update({"coef": np.array([None, {"row": 1}])}, 1.0, 0.0), r"object\[2\]"),
        (Update({"coef": np.array([0.0, np.nan])}, 1.0, 0.0), "not finite"),
        (Update({"coef": np.array([0.0, -np.inf])}, 1.0, 0.0), "not finite"),
        (Update({"coef": np.zeros(2)}, 0.0, 0.0), "0.0 as its weight"),
        (Update({"coef": np.zeros(2)}, 1.7e308, 0.0), "e.308 as its weight"),
        (Update({"coef": np.zeros(2)}, 1.0, float("nan")), "nan as its loss"),
        (Update({"coef": np.zeros(2)}, 1.0, [1.0]), "as its loss"),  # type: ignore[arg-type]
    ],
)
def test_only_parameters_are_accepted(update: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        checked(update, {"coef": np.zeros(2)}, "oslo")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model": RandomForestClassifier(), "strategy": "average"}, 'strategy="vote"'),
        ({"model": lightgbm.LGBMClassifier(), "strategy": "average"}, 'strategy="histograms"'),
        ({"model": SGDClassifier(), "strategy": "all_reduce"}, 'strategy="average"'),
        ({"model": SGDClassifier(), "strategy": "histograms"}, 'strategy="average"'),
        ({"model": lightgbm.LGBMClassifier(early_stopping_rounds=5), "strategy": "histograms"}, "early stopping"),
        ({"model": LogisticRegression(), "strategy": "average"}, r"nr.Average\(rounds=1\)"),
        ({"model": SGDClassifier(average=True), "strategy": "average"}, "leave average out"),
        ({"model": SGDClassifier(class_weight="balanced"), "strategy": "average"}, "class_weight"),
        ({"model": SGDClassifier(), "strategy": "avrage"}, "did you mean 'average'"),
        ({"model": SGDClassifier(), "by": "user"}, "allowed: entity, rows"),
        ({"model": SGDClassifier(), "partitions": 0}, "1 or more"),
        ({"model": SGDClassifier(), "workers": 0}, "1 or more"),
        ({"model": SGDClassifier(), "checkpoint": "soon"}, "not a duration"),
        ({"model": SGDClassifier(), "checkpoint": 0}, "is no interval"),
        ({"model": SGDClassifier(), "compute": "dask"}, "ray://HOST:PORT"),
    ],
)
def test_a_definition_that_makes_no_sense_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        nr.DistributedTraining(**options)


@pytest.mark.parametrize(
    "field",
    [
        {"rounds": 0},
        {"rounds": 1.5},
        {"epochs": 0},
        {"epochs": True},
        {"sample": 0.0},
        {"proximal": -1.0},
        {"proximal": float("inf")},
        {"clip": 0.0},
    ],
)
def test_rounds_out_of_range_are_refused(field: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(field))):
        nr.Average(**field)


def test_the_right_strategy_is_found() -> None:
    cases = [(SGDClassifier(), "average"), (RandomForestClassifier(), "vote"), (LogisticRegression(), "vote")]
    for model, name in [*cases, (lightgbm.LGBMRegressor(), "histograms")]:
        assert nr.DistributedTraining(model).to_dict()["strategy"]["name"] == name


def test_a_checkpoint_is_found_by_its_own_work_alone(tmp_path: Path) -> None:
    key = data_key({"model": "x"}, 3, np.arange(4), np.array(["a", None], object))
    assert key == data_key({"model": "x"}, 3, np.arange(4), np.array(["a", None], object))
    assert key != data_key({"model": "x"}, 4, np.arange(4), np.array(["a", None], object))
    kept = Checkpoints(tmp_path / "kept", key)
    assert kept.read("round") is None
    kept.write("round", pack({"coef": np.arange(3.0)}, {"history": [1]}))
    arrays, facts = unpack(kept.read("round") or b"")
    assert arrays["coef"].tolist() == [0.0, 1.0, 2.0]
    assert facts == {"history": [1]}
    assert Checkpoints(tmp_path / "kept", data_key({"model": "y"}, 3)).read("round") is None
    file = tmp_path / "kept" / "round"
    file.write_bytes(file.read_bytes()[:-1] + b"!")
    assert kept.read("round") is None
    assert [one.name for one in file.parent.iterdir()] == ["round"]


def test_checkpoints_come_at_their_interval(tmp_path: Path) -> None:
    assert [done for done in range(1, 8) if Checkpoints(tmp_path, "k", 3).is_due(done)] == [3, 6]
    slow = Checkpoints(tmp_path, "k", "1h")
    assert not slow.is_due(1)
    assert not Checkpoints(None, "k", 1).is_due(1)


def rows(classes: int = 2) -> Part:
    random = np.random.default_rng(0)
    matrix = random.normal(size=(300, 4))
    return Part(0, matrix, np.digitize(matrix[:, 0], [0.0, 0.7][: classes - 1]))


@pytest.mark.parametrize("classes", [2, 3])
def test_a_turn_goes_on_where_the_parameters_are(classes: int) -> None:
    part, shape = rows(classes), Shape(4, np.arange(classes))
    for found in (Stepwise(SGDClassifier(loss="log_loss")), SmallNetwork(MLPClassifier((5,)))):
        parameters = found.start(shape, 1)
        losses = []
        for number in range(8):
            update = checked(found.improve(parameters, part, shape, Turn(number, 1, number)), parameters, "x")
            parameters = update.arrays
            losses.append(update.loss)
        assert losses[-1] < losses[0]
        model: Any = found.finish(parameters, shape)
        assert set(model.predict(part.matrix)) <= set(range(classes))
        assert model.predict_proba(part.matrix).shape == (300, classes)


def test_numbers_are_learned_too() -> None:
    part = Part(0, rows().matrix, rows().matrix[:, 1] * 3)
    shape = Shape(4, None)
    for found in (Stepwise(SGDRegressor()), SmallNetwork(MLPRegressor(hidden_layer_sizes=(8,))), Once(Ridge())):
        parameters = found.start(shape, 1)
        for number in range(10):
            parameters = found.improve(parameters, part, shape, Turn(number, 2, number)).arrays
        assert found.finish(parameters, shape).predict(part.matrix).shape == (300,)


def test_the_mean_of_lines_is_the_line() -> None:
    part, shape, found = rows(), Shape(4, None), Once(LinearRegression())
    wanted = part.matrix @ np.arange(4.0) + 2
    halves = [Part(n, part.matrix[n::2], wanted[n::2]) for n in range(2)]
    start = found.start(shape, 0)
    updates = {half.number: checked(found.improve(start, half, shape, Turn(0, 1, 0)), start, "x") for half in halves}
    assert np.allclose(found.finish(combine(start, updates, None), shape).predict(part.matrix), wanted)


def test_one_full_pass_is_scikit_learns_own() -> None:
    part, shape = rows(), Shape(4, np.arange(2))
    found = Stepwise(SGDClassifier(loss="log_loss"))
    first = found.improve(found.start(shape, 0), part, shape, Turn(0, 3, 7)).arrays
    own = SGDClassifier(loss="log_loss", random_state=7)
    for _ in range(3):
        own.partial_fit(part.matrix, part.target, classes=[0, 1])
    assert np.array_equal(first["coef"], own.coef_)
    assert np.array_equal(first["intercept"], own.intercept_)


@pytest.mark.parametrize("schedule", [{"learning_rate": "constant", "eta0": 0.05}, {"learning_rate": "optimal"}])
def test_a_proximal_term_holds_the_parameters(schedule: dict[str, Any]) -> None:
    whole, shape = rows(), Shape(4, np.arange(2))
    part = Part(0, whole.matrix[:100], whole.target[:100])
    found = Stepwise(SGDClassifier(loss="log_loss", **schedule))
    moved = [
        float(np.abs(found.improve(found.start(shape, 0), part, shape, Turn(0, 2, 7, strength)).arrays["coef"]).sum())
        for strength in (0.0, 0.3, 1.0, 1e3)
    ]
    assert moved[0] > moved[1] > moved[2] > moved[3]
    assert moved[3] < 0.2 * moved[0]


def test_the_sizes_of_steps_are_scikit_learns() -> None:
    """A step on a row with a gradient of 1 moves by its size."""
    for options in ({"learning_rate": "optimal"}, {"learning_rate": "invscaling", "eta0": 0.3, "power_t": 0.4}):
        model = SGDClassifier(loss="perceptron", penalty=None, alpha=0.01, **options)
        model.partial_fit([[0.0]], [1], classes=[0, 1])
        model.t_ = 5.0
        model.coef_[:], model.intercept_[:] = 0.0, -1.0  # a wrong decision: the gradient is that of the perceptron
        model.partial_fit([[1.0]], [1])
        assert np.isclose(model.coef_[0, 0], step_sizes(model, 5.0, 1))
    with pytest.raises(ConfigError, match="allowed: constant, invscaling, optimal"):
        step_sizes(SGDClassifier(learning_rate="adaptive", eta0=0.1), 1.0, 1)


def test_seeds_belong_to_a_round_and_a_partition() -> None:
    seeds = {turn_seed(1, number, part) for number in range(30) for part in range(30)}
    assert len(seeds) == 900


def test_ray_is_an_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    from noria.training.distributed.crew import Crew

    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(NoriaError, match=r"pip install 'noria\[ray\]'"), Crew("ray"):
        pass


def test_no_cluster_at_the_address_is_told_at_once() -> None:
    pytest.importorskip("ray")
    from noria.training.distributed.crew import Crew

    with (
        pytest.raises(ConfigError, match=r"Ray can't be reached: .* refused"),
        Crew("ray://127.0.0.1:1"),
    ):
        pass
