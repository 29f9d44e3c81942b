"""Networks of PyTorch: giving and taking their parameters, and their losses, row by row.

A network is an estimator over a module (`TorchModule`) with the parameters `make`, `epochs`, `batch`, `learning_rate`
and `weight_decay`, whose `fit` leaves `module_`: one output for a number or two classes (the second one's logit), else
one for each class.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from noria.core import MissingExtraError
from noria.training.distributed.parameters import Parameters, Shape, Turn, Update
from noria.training.distributed.partitions import Part
from noria.training.estimator import Estimator, fresh_copy

_PARAMETERS = {"make", "epochs", "batch", "learning_rate", "weight_decay", "random_state"}
Tensors = tuple[Any, Any, Any]


def is_network(estimator: Estimator) -> bool:
    """Whether it trains a module of PyTorch in the way that is described above."""
    return hasattr(estimator, "get_params") and estimator.get_params().keys() >= _PARAMETERS


def untrained(estimator: Estimator, shape: Shape, seed: int) -> Any:
    """The estimator with a module as it is before its first step, made by a fit whose step moves nothing."""
    model: Any = fresh_copy(estimator)
    kept = {name: model.get_params()[name] for name in ("epochs", "learning_rate", "weight_decay", "random_state")}
    model.set_params(epochs=1, learning_rate=1e-30, weight_decay=0.0, random_state=seed % 2**31)
    mean, deviation = shape.scale
    target = np.array([mean - deviation, mean + deviation]) if shape.classes is None else shape.classes
    model.fit(np.zeros((len(target), shape.features)), target)
    model.set_params(**kept)
    for layer in model.module_.modules():
        if hasattr(layer, "reset_running_stats"):
            layer.reset_running_stats()
    return model


def tensors(part: Part, shape: Shape) -> Tensors:
    """A partition's rows, targets and weights as a module takes them."""
    torch = import_torch()
    if shape.classes is None:
        mean, deviation = shape.scale
        wanted: NDArray[Any] = ((part.target - mean) / deviation).astype(np.float32)
    else:
        kind = np.int64 if len(shape.classes) > 2 else np.float32
        wanted = np.searchsorted(shape.classes, part.target).astype(kind)
    weights = np.ones(len(part)) if part.weights is None else part.weights
    made = (part.matrix.astype(np.float32), wanted, weights.astype(np.float32))
    return torch.from_numpy(made[0]), torch.from_numpy(made[1]), torch.from_numpy(made[2])


def summed_loss(module: Any, batch: Tensors, shape: Shape) -> Any:
    """The sum of the rows' losses by their weights."""
    functional = import_torch().nn.functional
    matrix, target, weights = batch
    raw = module(matrix)
    if shape.classes is None:
        each = functional.mse_loss(raw[:, 0], target, reduction="none")
    elif len(shape.classes) == 2:
        each = functional.binary_cross_entropy_with_logits(raw[:, 0], target, reduction="none")
    else:
        each = functional.cross_entropy(raw, target, reduction="none")
    return (each * weights).sum()


@dataclass(frozen=True)
class NetworkTrainee:
    """A network whose parameters are given and taken. Its optimizer begins afresh in each turn."""

    estimator: Any

    def start(self, shape: Shape, seed: int) -> Parameters:
        return taken(untrained(self.estimator, shape, seed).module_)

    def improve(self, parameters: Parameters, part: Part, shape: Shape, turn: Turn) -> Update:
        torch = import_torch()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(turn.seed)
            module = untrained(self.estimator, shape, turn.seed).module_
            put(module, parameters)
            rows = tensors(part, shape)
            module.eval()
            with torch.no_grad():
                loss = float(summed_loss(module, rows, shape)) / part.weight
            self._train(module, rows, shape, turn)
        return Update(taken(module), part.weight, loss)

    def finish(self, parameters: Parameters, shape: Shape) -> Estimator:
        model = untrained(self.estimator, shape, 0)
        put(model.module_, parameters)
        model.module_.eval()
        return model  # type: ignore[no-any-return]

    def _train(self, module: Any, rows: Tensors, shape: Shape, turn: Turn) -> None:
        torch = import_torch()
        begun = [parameter.detach().clone() for parameter in module.parameters()]
        optimizer = optimizer_of(self.estimator, module)
        module.train()
        for epoch in range(turn.epochs):
            order = np.random.default_rng([turn.seed, epoch]).permutation(len(rows[1]))
            for chosen in batches(order, self.estimator.batch):
                batch = picked(rows, chosen)
                optimizer.zero_grad()
                loss = summed_loss(module, batch, shape) / batch[2].sum()
                if turn.proximal:
                    moved = (torch.square(a - b).sum() for a, b in zip(module.parameters(), begun, strict=True))
                    loss = loss + turn.proximal / 2 * sum(moved)
                loss.backward()
                optimizer.step()


def batches(order: NDArray[np.int64], size: int) -> Sequence[NDArray[np.int64]]:
    """The rows in batches of nearly the same size, none above `size`: a single row at the end can't be normalised."""
    return np.array_split(order, -(-len(order) // size))


def picked(rows: Tensors, chosen: NDArray[np.int64]) -> Tensors:
    """Some of the rows."""
    places = import_torch().from_numpy(chosen)
    return rows[0][places], rows[1][places], rows[2][places]


def optimizer_of(estimator: Any, module: Any) -> Any:
    """The estimator's optimizer for a module."""
    return import_torch().optim.AdamW(
        module.parameters(), lr=estimator.learning_rate, weight_decay=estimator.weight_decay
    )


def taken(module: Any) -> Parameters:
    """The module's state as arrays of their own."""
    return {name: np.array(tensor.detach().cpu().numpy()) for name, tensor in module.state_dict().items()}


def put(module: Any, parameters: Parameters) -> None:
    """The reverse of `taken`."""
    torch = import_torch()
    module.load_state_dict({name: torch.from_numpy(np.array(array)) for name, array in parameters.items()})


def import_torch() -> Any:
    """PyTorch.

    Raises:
        MissingExtraError: it isn't installed.
    """
    try:
        import torch
    except ImportError as error:
        raise MissingExtraError("torch", "torch", "training a network") from error
    return torch
