"""What is to be measured: a server, how it is asked, and which answers are right."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

Read = Callable[[Any], Sequence[float]]
"""The predictions in an answer's JSON."""
ASKED = 8
"""Different requests whose answers are checked; the first one is the one that is timed."""


@dataclass(frozen=True)
class Contestant:
    """A server and its dialect.

    Attributes:
        name: as the tables have it.
        command: the words that start it; `{port}` stands for the port, `{port2}` and `{port3}` for two more.
        path: where predictions are asked for.
        bodies: requests, as they are sent.
        expected: the right predictions for each of them.
        read: finds the predictions in an answer.
        helpers: commands of servers that it asks itself; `{helper}` and `{helper2}` in its own command stand for
            their ports.
        environ: variables on top of ours, with the same places.
        folder: where it is started; its files may go there.
        why: why it can't be started; empty if it can.
    """

    name: str
    command: Sequence[str]
    path: str = "/predict"
    bodies: Sequence[bytes] = ()
    expected: Sequence[Sequence[float]] = ()
    read: Read = lambda answer: answer["scores"]
    helpers: Sequence[Sequence[str]] = ()
    environ: dict[str, str] = field(default_factory=dict)
    folder: str | None = None
    why: str = ""

    def check(self, number: int, answer: bytes) -> None:
        """Compare the answer to a request with what is right.

        Raises:
            ValueError: it is something else.
        """
        found = np.asarray(self.read(json.loads(answer)), np.float64).ravel()
        right = np.asarray(self.expected[number], np.float64)
        # Float32 (ONNX) and other versions of scikit-learn differ in the last digits, and that is all.
        if found.shape != right.shape or not np.allclose(found, right, atol=2e-5, rtol=1e-4):
            raise ValueError(f"answers {found[:3]} instead of {right[:3]}")


class CannotServeError(Exception):
    """A contestant can't be started, or doesn't answer rightly; says why."""
