"""Events: what happens to a gateway, told through `logging`, and the signals that end it."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any

from noria.gateway.fleet import Fleet

_LOG = logging.getLogger("noria.gateway")


def log_event(event: str, **fields: Any) -> None:
    """Tell an event through `logging`: good news as information, losses as warnings, giving up as an error."""
    level = {"lost": logging.WARNING, "failed": logging.ERROR}.get(event.rpartition("_")[2], logging.INFO)
    _LOG.log(level, "%s %s", event, " ".join(f"{name}={value}" for name, value in fields.items()))


@contextmanager
def on_signals(fleet: Fleet) -> Iterator[None]:
    """Let SIGTERM and SIGINT end the fleet, the second one in a hurry; only the main thread can."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    hurry = count()
    numbers = (signal.SIGTERM, signal.SIGINT)

    def end(number: int, _: object) -> None:
        fleet.end(hurry=next(hurry) > 0, cause=f"by {signal.Signals(number).name}")

    before = [signal.signal(number, end) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
