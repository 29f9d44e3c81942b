"""A claim: that one process, and no other, is making all of a place in the online store.

It is a mark that moves with each write and, while nothing is written, with each second. Who sees it stand still for
long takes its owner for dead and makes a claim of his own, and from then on nothing is written under the other one.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from noria.storage.online import Mark, OnlineStore

_SIGN = 1.0
"""Seconds between two signs of life."""

T = TypeVar("T")


class Claim:
    """Made when nobody has the place, or from one who seems dead.

    Args:
        online: the store.
        place: what is made.
        name: of the mark.
        now: what the mark is: -1 where nobody is at work.

    Raises:
        ConflictError: another was faster; of each method, too.
    """

    def __init__(self, online: OnlineStore, place: str, name: str, now: int) -> None:
        self._online = online
        self._place = place
        self._name = name
        self.number = now
        self._move(secrets.randbits(40) << 20)  # counted on with each write

    def write(self, keys: Sequence[bytes] = (), times: Sequence[int] = (), values: Sequence[bytes] = ()) -> None:
        """Write values; without any, this is a sign of life."""
        self._move(self.number + 1, keys, times, values)

    def during(self, work: Callable[[], T]) -> T:
        """Do what takes long, and give signs of life meanwhile."""
        with ThreadPoolExecutor(1, "noria-claim") as pool:
            made = pool.submit(work)
            while True:
                try:
                    return made.result(_SIGN)
                except TimeoutError:
                    if made.done():  # it was the work's own
                        return made.result()
                    self.write()

    def release(self) -> None:
        """Leave the place to whoever comes."""
        self._move(-1)

    def _move(
        self, after: int, keys: Sequence[bytes] = (), times: Sequence[int] = (), values: Sequence[bytes] = ()
    ) -> None:
        self._online.write(self._place, keys, times, values, mark=Mark(self._name, self.number, after))
        self.number = after
