"""When API keys and HTTPS are needed: as soon as others than this machine can reach the server."""

from __future__ import annotations

import ipaddress
import re

from noria.core import ConfigError
from noria.serving.key_records import ApiKeys


def parse_keys(text: str) -> frozenset[str]:
    """The SHA-256 digests in the setting `serve.api_keys`.

    Raises:
        ConfigError: something in it is no such digest (perhaps the key itself).
    """
    digests = frozenset(part.strip().lower() for part in text.split(",") if part.strip())
    for digest in digests:
        if not re.fullmatch(r"[0-9a-f]{64}", digest):
            raise ConfigError(
                "serve.api_keys must hold SHA-256 digests in hex, not the keys themselves",
                hint="make one: printf %s YOUR-KEY | sha256sum",
                field="serve.api_keys",
            )
    return digests


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach the address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def check_bind(host: str, api_keys: str, stored: ApiKeys | None = None) -> None:
    """Refuse to listen beyond loopback without API keys, in the setting or in the records.

    Raises:
        ConfigError: there are none.
    """
    if parse_keys(api_keys) or is_loopback(host) or (stored is not None and stored.any_valid()):
        return
    raise ConfigError(
        f"{host} can be reached from other machines, and there are no API keys",
        hint="make one: noria keys create NAME --scope predict,events; or listen on 127.0.0.1",
        field="serve.host",
    )


def check_plain(host: str, tls: str) -> None:
    """Refuse to speak plain HTTP beyond loopback, unless `serve.tls` says that TLS ends elsewhere.

    Raises:
        ConfigError: it doesn't say so.
    """
    if tls != "elsewhere" and not is_loopback(host):
        raise ConfigError(
            f"{host} can be reached from other machines, and there is no certificate for HTTPS",
            hint="set serve.certificate to a PEM file with certificate and key, for noria serve; or serve.tls to "
            '"elsewhere" where a proxy in front of noria speaks TLS; or listen on 127.0.0.1',
            field="serve.certificate",
        )
