"""What can go wrong between the clients and the servers."""

from __future__ import annotations

from noria.core.errors import NoriaError, NotFoundError


class GatewayError(NoriaError):
    """The gateway or one of its servers can't be started."""

    status = 503


class NoHealthyServerError(NoriaError):
    """No server is able to answer."""

    status = 503


class NoGatewayError(NotFoundError):
    """No gateway runs where one was asked for."""

    status = 503
