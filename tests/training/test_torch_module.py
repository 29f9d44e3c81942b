from __future__ import annotations

import pickle
import sys
from typing import Any

import numpy as np
import pytest

import noria as nr
from noria.core import ConfigError, DataError, MissingExtraError
from noria.training.estimator import definition, fresh_copy
from noria.training.fast import predictor_of

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.usefixtures("one_thread")

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(300, 4))
Y = X[:, 0] + X[:, 1] > 0


def make(inputs: int, outputs: int) -> Any:
    return torch.nn.Sequential(torch.nn.Linear(inputs, 8), torch.nn.ReLU(), torch.nn.Linear(8, outputs))


def wrong(inputs: int, outputs: int) -> Any:
    return torch.nn.Linear(inputs, outputs + 1)


def test_a_function_of_the_users_makes_the_module_and_needn_t_be_served() -> None:
    def local(inputs: int, outputs: int) -> Any:
        return make(inputs, outputs)

    fitted = nr.TorchModule(local, epochs=20, learning_rate=0.02).fit(X, Y)
    assert (fitted.predict(X) == Y).mean() > 0.9
    again = pickle.loads(pickle.dumps(fitted))
    assert (again.predict_proba(X) == fitted.predict_proba(X)).all()


def test_the_definition_is_the_source_not_the_address() -> None:
    once, other = nr.TorchModule(make), nr.TorchModule(wrong)
    assert definition(once) == definition(nr.TorchModule(make))
    assert definition(once) != definition(other)
    assert " at 0x" not in str(definition(once))
    assert definition(fresh_copy(once)) == definition(once)


def test_training_leaves_others_their_random_numbers() -> None:
    torch.manual_seed(3)
    wanted = torch.rand(2)
    torch.manual_seed(3)
    first = nr.TorchModule(epochs=2, random_state=5).fit(X, Y)
    assert (torch.rand(2) == wanted).all()
    assert (nr.TorchModule(epochs=2, random_state=5).fit(X, Y).predict_proba(X) == first.predict_proba(X)).all()
    assert (nr.TorchModule(epochs=2, random_state=6).fit(X, Y).predict_proba(X) != first.predict_proba(X)).any()


def test_the_best_epoch_stays() -> None:
    fitted = nr.TorchModule(epochs=300, patience=3, learning_rate=0.05).fit(X, Y, validation=(X[:50], ~Y[:50], None))
    assert fitted.best_epoch_ < 10


def test_numbers_are_answered_without_scores() -> None:
    fitted = nr.TorchModule(epochs=2).fit(X, X[:, 0])
    predicted, scores = predictor_of(fitted).predict(X)
    assert (predicted == fitted.predict(X)).all()
    assert scores is None


def test_mistakes_are_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match=r"shape \(2, 2\), and \(2, 1\) is needed"):
        nr.TorchModule(wrong).fit(X, Y)
    with pytest.raises(DataError, match="the loss of the TorchModule became"):
        nr.TorchModule(epochs=2).fit(np.full((10, 1), np.nan), Y[:10])
    with pytest.raises(ConfigError, match="no parameter 'epoch'"):
        nr.TorchModule().set_params(epoch=3)
    with pytest.raises(ConfigError, match="at least 1"):
        nr.TorchModule(epochs=0)
    with pytest.raises(ConfigError, match="have no probabilities"):
        nr.TorchModule(epochs=1).fit(X, X[:, 0]).predict_proba(X)
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingExtraError, match="TorchModule needs torch"):
        nr.TorchModule().fit(X, Y)
