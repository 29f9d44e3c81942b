"""Servable: the contract of what answers requests; trees, linear models and the recommender are such."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from noria.features.reads import Read


class Servable(Protocol):
    """A loaded model version. `noria.testing.ServableConformance` checks one of yours."""

    @property
    def model(self) -> str:
        """The model's name."""
        ...

    @property
    def version(self) -> int:
        """The version's number."""
        ...

    @property
    def operations(self) -> tuple[str, ...]:
        """What it can do: each is a route, `POST /predict` for `predict`."""
        ...

    def decode(self, operation: str, body: bytes) -> Any:
        """Check a request's body.

        Raises:
            RequestError: it is wrong; the error names the field.
        """
        ...

    def answer(self, operation: str, requests: Sequence[Any]) -> Sequence[Any]:
        """Answer a batch of decoded requests, in order; each answer can be encoded as JSON.

        An answer may be a `NoriaError`, which concerns that request alone. An answer doesn't depend on the other
        requests of its batch.
        """
        ...

    def warm_up(self) -> None:
        """Do once what makes first requests slow."""
        ...

    def describe(self, operation: str) -> dict[str, Any]:
        """JSON schemas `request` and `response`, their `components` by name, and an `example` request."""
        ...

    def close(self) -> None:
        """Let go of what was loaded."""
        ...


class Sized(Servable, Protocol):
    """A servable whose requests are of different sizes: a batch is cut by rows, not by requests."""

    def size(self, operation: str, request: Any) -> int:
        """The rows of a request; at least 1."""
        ...


class Personal(Servable, Protocol):
    """A servable whose requests are for somebody: a deployment answers each entity by one variant."""

    def entities(self, operation: str, request: Any) -> Sequence[str]:
        """For whom each row of a request is; empty where it names nobody."""
        ...


class Divisible(Personal, Protocol):
    """A servable whose requests can be answered in parts, since they may be for several entities."""

    def part(self, operation: str, request: Any, places: Sequence[int]) -> Any:
        """A request for some of the rows."""
        ...

    def joined(self, operation: str, answers: Sequence[tuple[Sequence[int], Any]]) -> Any:
        """One answer out of those to parts: the rows that each is for, and what was answered, by any version."""
        ...


class Traceable(Servable, Protocol):
    """A servable that can say what it read to answer; the prediction log keeps it."""

    def answer_traced(self, operation: str, requests: Sequence[Any]) -> tuple[Sequence[Any], Sequence[Sequence[Read]]]:
        """The same answers as `answer`, and what was read of feature groups for each request."""
        ...
