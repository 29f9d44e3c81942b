"""Compute on Ray: pieces go to workers, on this machine or on a cluster; the results are those of `LocalCompute`.

Pieces are cut where they always are and results are taken in order, so that nothing depends on who did what; Ray runs a
task again whose worker has died. Rows that are kept stay in Ray's object store, which puts them on disk when memory
runs short.
"""

from __future__ import annotations

import os
import socket
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import urlsplit

import polars as pl

from noria.core import ConfigError, MissingExtraError, StorageError
from noria.pipelines.blocks import Applied, Blocks, FittedBlockStep

S = TypeVar("S")
T = TypeVar("T")
Item = TypeVar("Item")

KNOCK_SECONDS = 5.0
"""How long a cluster may take to accept a connection."""
CLIENT_PORT = 10001
"""Where Ray's clients are heard, where an address doesn't say."""


class RayCompute:
    """A Ray cluster: `ray` is one on this machine, `ray://host:port` that one."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._kept: list[Any] = []

    def __enter__(self) -> RayCompute:
        self._ray = connect(self._address)
        self._call = self._ray.remote(num_returns=2, max_retries=10)(_call)
        self._apply = self._ray.remote(max_retries=10)(_apply)
        return self

    def __exit__(self, *_: object) -> None:
        self._kept = []

    def each(self, work: Callable[[Item], tuple[S, pl.DataFrame | None]], items: Iterable[Item]) -> Iterator[S]:
        shared = self._ray.put(work)
        # As many pieces on their way as workers can be busy with, and no more: the input may be larger than memory.
        window = 2 * max(1, int(self._ray.cluster_resources().get("CPU", 1)))
        waiting: deque[Any] = deque()
        for item in items:
            said, frame = self._call.remote(shared, item)
            waiting.append(said)
            self._kept.append(frame)
            if len(waiting) >= window:
                yield self._get(waiting.popleft())
        while waiting:
            yield self._get(waiting.popleft())

    def _get(self, reference: Any) -> Any:
        return get(self._ray, reference)

    def blocks(self, schema: pl.Schema) -> Blocks:
        return _RayBlocks(schema, self._ray, self._apply, self._kept)


@dataclass(frozen=True)
class _RayBlocks:
    schema: pl.Schema
    ray: Any
    apply: Any
    kept: list[Any]

    def map(self, work: Callable[[pl.DataFrame, int], T]) -> list[T]:
        shared = self.ray.put(work)
        made = [self.apply.remote(shared, frame, number) for number, frame in enumerate(self.kept)]
        return [get(self.ray, reference) for reference in made]

    def then(self, step: FittedBlockStep) -> Blocks:
        return Applied(self, (step,))


def _call(work: Callable[[Any], tuple[Any, pl.DataFrame | None]], item: Any) -> tuple[Any, pl.DataFrame | None]:
    return work(item)


def _apply(work: Callable[[pl.DataFrame, int], T], frame: pl.DataFrame, number: int) -> T:
    return work(frame, number)


def get(ray: Any, reference: Any) -> Any:
    """A task's result; its error as if it had been raised here."""
    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        cause = error.cause
        raise (cause if isinstance(cause, Exception) else error) from None
    except ray.exceptions.RayError as error:
        raise StorageError(f"Ray has lost the work: {error}", hint="is the cluster up? run it once more") from error


def connect(address: str) -> Any:
    """The Ray module, connected; a cluster that this process is connected to already is used on.

    Raises:
        ConfigError: there is no cluster at the address.
        MissingExtraError: Ray isn't installed.
    """
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # else it warns about a change to come
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError as error:
        raise MissingExtraError("Ray", "ray", f"compute = {address!r}") from error
    if not ray.is_initialized():
        options: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
        try:
            if address.startswith("ray://"):
                _knock(address)
                ray.init(address, **options)
            else:
                _start(lambda: ray.init(include_dashboard=False, **options))
        except (OSError, RuntimeError, ValueError) as error:
            raise ConfigError(
                f"compute = {address!r}: Ray can't be reached: {error}",
                hint='start it (ray start --head --ray-client-server-port=10001), or set compute = "ray"',
                field="compute",
            ) from error
    return ray


def _start(init: Callable[[], Any]) -> None:
    """Start Ray on this machine from a thread that stays.

    On Linux Ray's processes are killed when the thread that has started them ends, which one of a pool does after each
    run of a system; whoever used Ray next in this process would be ended by it, without a word.
    """
    if threading.current_thread() is threading.main_thread():
        init()
        return
    started = Future[None]()

    def hold() -> None:
        try:
            init()
        except BaseException as error:
            started.set_exception(error)
            return
        started.set_result(None)
        threading.Event().wait()

    threading.Thread(target=hold, name="noria-ray", daemon=True).start()
    started.result()


def _knock(address: str) -> None:
    """Fail at once where nobody listens: Ray itself tries for half a minute."""
    place = urlsplit(address)
    with socket.create_connection((place.hostname or "", place.port or CLIENT_PORT), timeout=KNOCK_SECONDS):
        pass
