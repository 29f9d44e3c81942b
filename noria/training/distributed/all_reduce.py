"""`AllReduce`: one network that all workers train together, step by step, with gradients summed over them.

The sums are PyTorch's (over gloo), in workers of Ray. Ray Train would start the same process group, and needs pandas
and pyarrow for it, which noria doesn't have. PyTorch's `DistributedDataParallel` would sum while gradients are made,
for which networks of tables are too small; and now and then it waits for ever at its end: it holds Python's lock
while it waits for a thread that needs the lock (PyTorch 2.13).
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, ClassVar

import numpy as np

from noria.core import task
from noria.training.distributed.crew import Address, Crew
from noria.training.distributed.networks import (
    import_torch,
    is_network,
    optimizer_of,
    picked,
    summed_loss,
    tensors,
    untrained,
)
from noria.training.distributed.parameters import Shape, turn_seed
from noria.training.distributed.partitions import Part
from noria.training.distributed.strategy import Job, refused
from noria.training.estimator import Estimator

STATE = "network"
SECONDS = 60.0
"""How long workers wait for each other."""


@dataclass(frozen=True)
class AllReduce:
    """Gradients summed over all workers in each step: the same as one process with the same batches.

    A step takes its rows from all partitions alike, `batch` of the model in all. How many workers there are changes
    the order of floating-point sums and nothing else, as long as the module draws no random numbers (dropout) and
    normalises no batches.
    """

    name: ClassVar[str] = "all_reduce"

    def to_dict(self) -> dict[str, Any]:
        """The definition as plain JSON data."""
        return {"name": self.name}

    def check(self, estimator: Estimator) -> None:
        """That it is a network of PyTorch.

        Raises:
            ConfigError: it isn't.
        """
        if not is_network(estimator):
            raise refused(estimator, self.name)

    def train(self, job: Job, crew: Crew) -> tuple[Estimator, dict[str, Any]]:
        """The model, and the loss of each epoch."""
        model: Any = untrained(job.estimator, job.shape, turn_seed(job.seed, 0, 0))
        epochs, parts, every = model.epochs, job.parts(crew), job.checkpoints.every
        stretch = every if isinstance(every, int) else 1
        state, losses = pack_state(model.module_, optimizer_of(model, model.module_), []), list[float]()
        if (kept := job.checkpoints.read(STATE)) is not None:
            state, losses = kept, unpack_state(kept)["losses"]
        name = f"train {epochs} epochs"
        with task(job.progress, name, epochs):
            job.progress.advance(name, len(losses))
            while len(losses) < epochs:
                stop = min(len(losses) + stretch, epochs)
                state = self._stretch(job, crew, parts, state, stop)
                job.progress.advance(name, stop - len(losses))
                losses = unpack_state(state)["losses"]
                if job.checkpoints.is_due(stop) or stop == epochs:
                    job.checkpoints.write(STATE, state)
        model.module_.load_state_dict(unpack_state(state)["module"])
        model.module_.eval()
        return model, {"losses": losses}

    def _stretch(self, job: Job, crew: Crew, parts: Sequence[Any], state: bytes, stop: int) -> bytes:
        ranks = min(crew.size(), job.count)
        sizes = [int(size) for size in np.bincount(job.partition)]
        fixed = crew.put(job.estimator), crew.put(job.shape), crew.put(state)
        calls = [(*fixed, stop, job.seed, sizes, *parts[rank::ranks]) for rank in range(ranks)]
        made: bytes = crew.together(train_epochs, calls)[0]
        return made


def train_epochs(
    addresses: Sequence[Address],
    rank: int,
    estimator: Any,
    shape: Shape,
    state: bytes,
    stop: int,
    seed: int,
    sizes: Sequence[int],
    *parts: Part,
) -> bytes:
    """One worker's side of some epochs: gives the state after them."""
    torch = import_torch()
    import torch.distributed as group

    host, port = addresses[0]
    group.init_process_group(
        "gloo",
        init_method=f"tcp://{host}:{port}",
        rank=rank,
        world_size=len(addresses),
        timeout=timedelta(seconds=SECONDS),
    )
    try:
        model = untrained(estimator, shape, 0)
        found = unpack_state(state)
        model.module_.load_state_dict(found["module"])
        model.module_.train()
        optimizer = optimizer_of(model, model.module_)
        optimizer.load_state_dict(found["optimizer"])
        rows, losses = [tensors(part, shape) for part in parts], found["losses"]
        steps = -(-sum(sizes) // model.batch)
        for epoch in range(len(losses), stop):
            torch.manual_seed(turn_seed(seed, epoch, rank))
            orders = [np.random.default_rng([seed, epoch, p.number]).permutation(len(p)) for p in parts]
            dealt = [np.array_split(order, steps) for order in orders]
            total = torch.zeros(2, dtype=torch.float64)
            for step in range(steps):
                some = [picked(part, places[step]) for part, places in zip(rows, dealt, strict=True)]
                batch = tuple(torch.cat([one[column] for one in some]) for column in range(3))
                total += _step(model.module_, optimizer, (batch[0], batch[1], batch[2]), shape, group)
            losses = [*losses, float(total[0] / total[1])]
        return pack_state(model.module_, optimizer, losses)
    finally:
        group.destroy_process_group()


def _step(module: Any, optimizer: Any, batch: Any, shape: Shape, group: Any) -> Any:
    """Gradients of the mean loss over all workers' rows; gives the sum of losses and of weights over them."""
    torch = import_torch()
    optimizer.zero_grad()
    loss = summed_loss(module, batch, shape)
    sums = torch.stack([loss.detach().double(), batch[2].sum().double()])
    group.all_reduce(sums)
    (loss / float(sums[1])).backward()
    gradients = [one.grad for one in module.parameters() if one.grad is not None]
    whole = torch.cat([one.ravel() for one in gradients])
    group.all_reduce(whole)
    for one, summed in zip(gradients, whole.split([one.numel() for one in gradients]), strict=True):
        one.copy_(summed.view_as(one))
    optimizer.step()
    return sums


def pack_state(module: Any, optimizer: Any, losses: list[float]) -> bytes:
    """All that the next epoch goes on from."""
    made = io.BytesIO()
    state = {"module": module.state_dict(), "optimizer": optimizer.state_dict(), "losses": losses}
    import_torch().save(state, made)
    return made.getvalue()


def unpack_state(state: bytes) -> dict[str, Any]:
    """The reverse of `pack_state`."""
    found: dict[str, Any] = import_torch().load(io.BytesIO(state), weights_only=True)
    return found
