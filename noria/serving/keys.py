"""API keys: needed as soon as others than this machine can reach the server."""

from __future__ import annotations

import hashlib
import ipaddress
import re

from noria.core import ConfigError


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


def digest(key: str) -> str:
    """The digest under which a key is configured."""
    return hashlib.sha256(key.encode()).hexdigest()


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach the address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def check_bind(host: str, api_keys: str) -> None:
    """Refuse to listen beyond loopback without API keys.

    Raises:
        ConfigError: there are none.
    """
    if not parse_keys(api_keys) and not is_loopback(host):
        raise ConfigError(
            f"{host} can be reached from other machines, and no API keys are set",
            hint="set serve.api_keys (or NORIA_SERVE_API_KEYS) to SHA-256 digests: printf %s YOUR-KEY | sha256sum; "
            "or listen on 127.0.0.1",
            field="serve.host",
        )
