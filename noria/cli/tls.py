"""HTTPS of `noria serve`: which certificate the load balancer shows."""

from __future__ import annotations

import ssl
from pathlib import Path

from noria.core import ConfigError, Settings
from noria.serving.keys import is_loopback

_HOW = "set serve.certificate to a PEM file with certificate and key"


def certificate(settings: Settings) -> Path | None:
    """The file of the certificate and its key; None where noria speaks plain HTTP.

    Raises:
        ConfigError: there is none and the address isn't loopback; or the file has no certificate with its key.
    """
    serve = settings.serve
    if not serve.certificate:
        if serve.tls == "here" and not is_loopback(serve.host):
            raise ConfigError(
                f"{serve.host} can be reached from other machines, and there is no certificate for HTTPS",
                hint=f'{_HOW}; or serve.tls to "elsewhere" where a proxy in front of noria speaks TLS; '
                "or listen on 127.0.0.1",
                field="serve.certificate",
            )
        return None
    path = settings.root / serve.certificate
    try:
        # The empty password has an encrypted key refused, rather than asked for in the terminal.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(path, password=b"")
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        raise ConfigError(
            f"serve.certificate: {path} can't be used: {error}",
            hint=f"{_HOW}, not encrypted: cat certificate.pem key.pem > both.pem",
            field="serve.certificate",
        ) from error
    return path
