"""What an API key may be good for, and which paths ask for what."""

from __future__ import annotations

from collections.abc import Iterable

from noria.core import ConfigError, allowed

PREDICT, EVENTS, ADMIN = "predict", "events", "admin"

SCOPES = {
    PREDICT: "predictions, recommendations, features, and what the server says of itself",
    EVENTS: "sending events",
    ADMIN: "metrics and administration",
}
"""Every scope with what it opens."""

_EXACT = {
    b"/events": EVENTS,
    b"/push": EVENTS,
    b"/write-to-online-store": EVENTS,
    b"/metrics": ADMIN,
    b"/admin": ADMIN,
    b"/health": None,
    b"/v2/health/live": None,  # as clients of the Open Inference Protocol ask for it
    b"/v2/health/ready": None,
    b"/ping": None,  # as clients of MLflow's do
}


def scope_of(path: bytes) -> str | None:
    """The scope that a request to this path needs; None where no key is needed.

    What isn't known to send events or to administer reads, so an unknown path needs a key as well.

    >>> scope_of(b"/models/late/predict"), scope_of(b"/push"), scope_of(b"/metrics"), scope_of(b"/health/ready")
    ('predict', 'events', 'admin', None)
    """
    if path in _EXACT:
        return _EXACT[path]
    if path.startswith(b"/health/"):
        return None
    return ADMIN if path.startswith(b"/admin/") else PREDICT


def parse_scopes(text: str | Iterable[str]) -> tuple[str, ...]:
    """The scopes of a text such as `predict,events`, each once, in the order of `SCOPES`.

    Raises:
        ConfigError: there is none, or one is unknown.
    """
    named = {part.strip() for part in (text.split(",") if isinstance(text, str) else text) if part.strip()}
    for scope in sorted(named - SCOPES.keys()):
        raise ConfigError(f"there is no scope {scope!r}", hint=allowed(SCOPES, scope), field="scope")
    if not named:
        raise ConfigError("a key needs at least one scope", hint=allowed(SCOPES), field="scope")
    return tuple(scope for scope in SCOPES if scope in named)
