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
            f"serve.certificate: {path} {_fault(path, error)}",
            hint="give a PEM file with certificate and key, not encrypted: cat certificate.pem key.pem > both.pem",
            field="serve.certificate",
        ) from error
    return path


def _fault(path: Path, error: OSError | ValueError) -> str:
    """What is wrong, in more words than OpenSSL has for it."""
    if isinstance(error, OSError) and not isinstance(error, ssl.SSLError):
        return f"can't be read: {error.strerror}"
    try:
        text = path.read_text("ascii", errors="replace")
    except OSError as unreadable:
        return f"can't be read: {unreadable.strerror}"
    if "-----BEGIN " not in text:
        return "is no PEM file"
    if "-----BEGIN CERTIFICATE-----" not in text:
        return "has no certificate"
    if "PRIVATE KEY-----" not in text:
        return "has no private key"
    if "ENCRYPTED" in text:
        return "can't be used: its key is encrypted"
    if getattr(error, "reason", "") == "KEY_VALUES_MISMATCH":
        return "can't be used: its key is that of another certificate"
    return f"can't be used: {error}"
