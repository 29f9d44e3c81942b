"""serving: answering requests with the right version.

A registered version comes in and becomes a `Servable` (load, warm up, answer a batch); `ModelServer` puts servables
behind HTTP: one asyncio protocol, in which all requests that arrive in one turn of the event loop are answered as one
batch. The server knows no model family; it serves whatever keeps the contract. Answers leave as JSON, mistakes as
problem documents (RFC 9457).
"""

from typing import TYPE_CHECKING

from noria.core.lazy import exports

if TYPE_CHECKING:
    from noria.serving.loading import load_servable
    from noria.serving.servable import Servable
    from noria.serving.server import Limits, ModelServer

_ORIGIN = {"Limits": "server", "ModelServer": "server", "Servable": "servable", "load_servable": "loading"}

__all__ = ["Limits", "ModelServer", "Servable", "load_servable"]

__getattr__ = exports(__name__, _ORIGIN)
