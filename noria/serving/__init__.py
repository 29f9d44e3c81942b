"""serving: answering requests with the right version.

A registered version comes in and becomes a `Servable` (load, warm up, answer a batch); `ModelServer` puts servables
behind HTTP: one asyncio protocol, in which all requests that arrive in one turn of the event loop are answered as one
batch. The server knows no model family; it serves whatever keeps the contract. Answers leave as JSON, mistakes as
problem documents (RFC 9457).
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from noria.serving.loading import load_servable
    from noria.serving.servable import Servable
    from noria.serving.server import Limits, ModelServer

_ORIGIN = {"Limits": "server", "ModelServer": "server", "Servable": "servable", "load_servable": "loading"}

__all__ = ["Limits", "ModelServer", "Servable", "load_servable"]


def __getattr__(name: str) -> Any:
    if name not in _ORIGIN:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_ORIGIN[name]}"), name)
