"""PyTorch modules as estimators: mini-batches, early stopping, the same bits for the same seed."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from noria.core import ConfigError, DataError, MissingExtraError, fingerprint

if TYPE_CHECKING:
    import torch

Make = Callable[[int, int], Any]


class _Made:
    """A user's function with a name that stays the same as long as its source does."""

    def __init__(self, make: Make) -> None:
        self.make = make
        try:
            text = inspect.getsource(make)
        except (OSError, TypeError):
            code = getattr(make, "__code__", None)
            text = "" if code is None else code.co_code.hex() + repr(code.co_consts)
        self._text = f"{getattr(make, '__module__', '')}.{getattr(make, '__qualname__', '')} {fingerprint(text)}"

    def __call__(self, inputs: int, outputs: int) -> Any:
        return self.make(inputs, outputs)

    def __repr__(self) -> str:
        return self._text


class TorchModule:
    """A neural network of PyTorch with `fit`, `predict` and `predict_proba`, on the processor.

    Targets of text, integers or Booleans are classes, floats are numbers. Two classes have one output (the logit of the
    second), more have one each; numbers are learned on a scale where their mean is 0 and their deviation 1.

    With a validation part, training stops when its loss hasn't become smaller for `patience` epochs, and the best
    epoch's weights stay. Without one, all epochs are done.

    Attributes:
        make: from the numbers of inputs and of outputs to a `torch.nn.Module`. By default layers of `hidden` units with
            ReLU. A class of yours has to be importable where the model is served; `torch.nn.Sequential` always is.
        hidden: the sizes of the layers, where `make` isn't given.
        epochs: how often each row is seen, at most.
        batch: rows of a step.
        learning_rate: of AdamW.
        weight_decay: of AdamW.
        patience: epochs without a better validation loss; None: do all epochs, on all rows.
        random_state: of everything random; None takes the run's seed.
    """

    def __init__(
        self,
        make: Make | None = None,
        *,
        hidden: Sequence[int] = (64, 32),
        epochs: int = 50,
        batch: int = 256,
        learning_rate: float = 1e-3,
        weight_decay: float = 1e-2,
        patience: int | None = 5,
        random_state: int | None = None,
    ) -> None:
        if epochs < 1 or batch < 2 or (patience is not None and patience < 1) or learning_rate <= 0:
            raise ConfigError(
                f"TorchModule({epochs=}, {batch=}, {patience=}, {learning_rate=})",
                hint="epochs and patience are at least 1, batch is at least 2, learning_rate above 0",
            )
        self.make = make if make is None or isinstance(make, _Made) else _Made(make)
        self.hidden = tuple(hidden)
        self.epochs = epochs
        self.batch = batch
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.patience = patience
        self.random_state = random_state

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The parameters by name, as in scikit-learn."""
        return {name: getattr(self, name) for name in inspect.signature(type(self)).parameters}

    def set_params(self, **parameters: Any) -> TorchModule:
        """Change parameters by name, as in scikit-learn."""
        known = self.get_params()
        for name, value in parameters.items():
            if name not in known:
                raise ConfigError(f"TorchModule has no parameter {name!r}", hint=", ".join(known))
            setattr(self, name, value)
        return self

    def __sklearn_clone__(self) -> TorchModule:
        return type(self)(**self.get_params())

    def __getstate__(self) -> dict[str, Any]:
        # A fitted one answers by its module: the function that made it may stand where no server can import it.
        state = dict(self.__dict__)
        return {**state, "make": None} if "module_" in state else state

    def fit(
        self,
        X: Any,  # noqa: N803 (scikit-learn's own name)
        y: Any,
        sample_weight: Any = None,
        *,
        validation: tuple[Any, Any, Any] | None = None,
    ) -> TorchModule:
        """Learn from a matrix [n, features] and targets [n].

        Args:
            X: without missing values.
            y: what to predict.
            sample_weight: [n] how much each row counts.
            validation: matrix, targets and weights (or None) that say when to stop.

        Raises:
            MissingExtraError: PyTorch isn't installed.
            DataError: the loss isn't a number any more, or the module's outputs have another shape.
        """
        torch = _torch()
        self._learn_scale(np.asarray(y))
        outputs = 1 if self.classes_ is None or len(self.classes_) == 2 else len(self.classes_)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.random_state or 0)
            self.module_ = (self.make or self._layers)(int(np.shape(X)[1]), outputs)
            self._check_module(outputs, int(np.shape(X)[1]))
            held = None if validation is None else self._tensors(*validation)
            self._train(self._tensors(X, y, sample_weight), held)
        self.module_.eval()
        return self

    def predict(self, X: Any) -> NDArray[Any]:  # noqa: N803
        """[n] classes or numbers."""
        raw = self._raw(X)
        if self.classes_ is None:
            return raw[:, 0].astype(np.float64) * self._scale + self._mean
        places = raw.argmax(axis=1) if raw.shape[1] > 1 else (raw[:, 0] > 0).astype(np.int64)
        return np.asarray(self.classes_[places])

    def predict_proba(self, X: Any) -> NDArray[np.float64]:  # noqa: N803
        """[n, classes] probabilities."""
        if self.classes_ is None:
            raise ConfigError("this TorchModule predicts numbers, which have no probabilities")
        raw = self._raw(X).astype(np.float64)
        if raw.shape[1] == 1:
            raw = np.concatenate([np.zeros_like(raw), raw], axis=1)
        shares = np.exp(raw - raw.max(axis=1, keepdims=True))
        return np.asarray(shares / shares.sum(axis=1, keepdims=True))

    def _layers(self, inputs: int, outputs: int) -> Any:
        nn = _torch().nn
        sizes = [inputs, *self.hidden]
        parts = [part for a, b in pairwise(sizes) for part in (nn.Linear(a, b), nn.ReLU())]
        return nn.Sequential(*parts, nn.Linear(sizes[-1], outputs))

    def _learn_scale(self, target: NDArray[Any]) -> None:
        self.classes_ = None if target.dtype.kind == "f" else np.unique(target)
        if self.classes_ is None:
            self._mean, self._scale = float(target.mean()), float(target.std()) or 1.0

    def _check_module(self, outputs: int, inputs: int) -> None:
        torch = _torch()
        self.module_.eval()
        with torch.no_grad():
            made = tuple(self.module_(torch.zeros(2, inputs)).shape)
        if made != (2, outputs):
            raise DataError(
                f"the module's output for 2 rows has the shape {made}, and (2, {outputs}) is needed",
                hint="make(inputs, outputs) gives a module from [rows, inputs] to [rows, outputs]",
            )

    def _tensors(self, matrix: Any, target: Any, weights: Any) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        torch = _torch()
        target = np.asarray(target)
        if self.classes_ is None:
            wanted: NDArray[Any] = ((target - self._mean) / self._scale).astype(np.float32)
        else:
            wanted = np.searchsorted(self.classes_, target).astype(np.int64 if len(self.classes_) > 2 else np.float32)
        weights = np.ones(len(target)) if weights is None else weights
        parts = np.ascontiguousarray(matrix, np.float32), wanted, np.asarray(weights, np.float32)
        made = tuple(map(torch.from_numpy, parts))
        return made[0], made[1], made[2]

    def _losses(self, batch: tuple[torch.Tensor, torch.Tensor, torch.Tensor]) -> torch.Tensor:
        functional = _torch().nn.functional
        matrix, target, weights = batch
        raw = self.module_(matrix)
        if self.classes_ is None:
            each = functional.mse_loss(raw[:, 0], target, reduction="none")
        elif len(self.classes_) == 2:
            each = functional.binary_cross_entropy_with_logits(raw[:, 0], target, reduction="none")
        else:
            each = functional.cross_entropy(raw, target, reduction="none")
        made: torch.Tensor = (each * weights).sum() / weights.sum()
        return made

    def _train(self, rows: Any, held: Any) -> None:
        torch = _torch()
        optimizer = torch.optim.AdamW(self.module_.parameters(), lr=self.learning_rate, weight_decay=self.weight_decay)
        best, kept = float("inf"), None
        self.best_epoch_ = self.epochs
        for epoch in range(self.epochs):
            self.module_.train()
            for batch in self._batches(rows):
                optimizer.zero_grad()
                loss = self._losses(batch)
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
            value = self._judged(loss.detach() if held is None else held)
            if held is None:
                continue
            if value < best:
                best, kept, self.best_epoch_ = value, copy.deepcopy(self.module_.state_dict()), epoch + 1
            elif epoch + 1 - self.best_epoch_ >= (self.patience or self.epochs):
                break
        if kept is not None:
            self.module_.load_state_dict(kept)

    def _judged(self, what: Any) -> float:
        """The loss on the validation part, or a loss that is known already."""
        torch = _torch()
        if isinstance(what, tuple):
            self.module_.eval()
            with torch.no_grad():
                what = self._losses((what[0], what[1], what[2]))
        value = float(what)
        if not np.isfinite(value):
            raise DataError(
                f"the loss of the TorchModule became {value}",
                hint="make learning_rate smaller, or scale the inputs: nr.Normalize()",
            )
        return value

    def _batches(self, rows: Any) -> Iterator[Any]:
        torch = _torch()
        order = torch.randperm(len(rows[0]))
        for start in range(0, len(order), self.batch):
            some = order[start : start + self.batch]
            if len(some) > 1 or start == 0:  # layers that normalise a batch refuse a single row
                yield tuple(part[some] for part in rows)

    def _raw(self, matrix: Any) -> NDArray[np.float32]:
        torch = _torch()
        with np.errstate(over="ignore"):
            rows = torch.from_numpy(np.ascontiguousarray(matrix, np.float32))
        with torch.inference_mode():
            # One by one: products of many rows differ in their last bits by where a row stands among them.
            parts = [self.module_(row).numpy() for row in rows.split(1)]
        return np.concatenate(parts)


def _torch() -> Any:
    try:
        import torch
    except ImportError as error:
        raise MissingExtraError("torch", "torch", "TorchModule") from error
    return torch
