"""Doors: the paths of foreign protocols. A door finds the model and says how requests and answers are written."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from noria.core import NoriaError, NotFoundError, RequestError, allowed
from noria.serving.exchange import Exchange, Reply
from noria.serving.requests import MethodNotAllowedError
from noria.serving.served import Served
from noria.serving.tabular import is_tabular


class Host(Protocol):
    """The server, as a door sees it."""

    @property
    def models(self) -> Mapping[str, Served]:
        """What is loaded of each model."""
        ...

    @property
    def ready(self) -> bool:
        """Whether requests are answered."""
        ...

    def ask(self, exchange: Exchange, model: Served, operation: str, version: int | None = None) -> None:
        """Have a model answer."""
        ...

    def reply(self, exchange: Exchange, status: int, reply: Reply) -> None:
        """Answer at once."""
        ...


class Door(Protocol):
    """One protocol."""

    @property
    def segments(self) -> tuple[bytes, ...]:
        """The first segments of its paths: all that begins so is its own."""
        ...

    def accept(self, exchange: Exchange, host: Host) -> None:
        """Answer, or have a model answer.

        Raises:
            NoriaError: the request is wrong.
        """
        ...

    def explain(self, error: NoriaError, request_id: bytes) -> Reply:
        """How its clients read an error."""
        ...


def found_model(models: Mapping[str, Served], name: str, version: str = "") -> tuple[Served, int | None]:
    """A model, and the number of one of its loaded versions.

    Raises:
        NotFoundError: there is no such model, or the version isn't loaded.
    """
    model = models.get(name)
    if model is None:
        raise NotFoundError(f"this server has no model {name!r}", hint=allowed(models, name))
    if not version:
        return model, None
    loaded = [str(number) for number in model.versions]
    if version not in loaded:
        raise NotFoundError(f"version {version!r} of model {name!r} is not loaded", hint=allowed(loaded, version))
    return model, int(version)


def only_model(models: Mapping[str, Served]) -> Served:
    """The one model that predicts, for paths that don't name any.

    Raises:
        RequestError: there is none, or there are several.
    """
    able = [model for model in models.values() if is_tabular(model.control)]
    if len(able) == 1:
        return able[0]
    names = ", ".join(model.name for model in able)
    raise RequestError(
        f"several models can answer: {names}" if able else "no model here predicts from rows of a table",
        status=400 if able else 404,
        hint=f"choose one: POST /models/{able[0].name}/invocations" if able else "",
    )


def check_method(exchange: Exchange, *methods: bytes) -> None:
    """Refuse other methods than these.

    Raises:
        MethodNotAllowedError: it is another.
    """
    if exchange.method not in methods:
        raise MethodNotAllowedError(exchange.method, ", ".join(method.decode() for method in methods))
