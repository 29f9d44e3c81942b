"""HTTPS of `noria serve`: which certificate the load balancer shows."""

from __future__ import annotations

import ssl
from pathlib import Path

from noria.core import ConfigError, Settings
from noria.serving.keys import check_plain


def certificate(settings: Settings) -> Path | None:
    """The file of the certificate and its key; None where noria speaks plain HTTP.

    Raises:
        ConfigError: there is none and the address isn't loopback; or the file has no certificate with its key.
    """
    serve = settings.serve
    if not serve.certificate:
        check_plain(serve.host, serve.tls)
        return None
    path = settings.root / serve.certificate
    try:
        # The empty password has an encrypted key refused, rather than asked for in the terminal.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(path, password=b"")
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        raise ConfigError(
            f"serve.certificate: {path} can't be used: {error}",
            hint="give a PEM file with certificate and key, not encrypted: cat certificate.pem key.pem > both.pem",
            field="serve.certificate",
        ) from error
    return path
