"""`noria keys`: the API keys of the servers."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterator
from contextlib import closing, contextmanager

from noria.cli.show import json_out, out, say, table
from noria.core import Settings, SystemClock, duration, to_iso
from noria.monitoring.console.keys import KeyShown, about
from noria.serving.key_records import ApiKeys
from noria.storage import open_records


def create(options: Namespace) -> int:
    """Make a name with a key, and print the key."""
    lifetime = None if options.expires is None else duration(options.expires)
    with _keys(options) as keys:
        first = not keys.all()
        key = keys.create(
            options.name, options.scope, rate=options.rate, burst=options.burst, lifetime=lifetime, why=options.why
        )
    _tell(options, key)
    if first:
        say("servers of this project demand a key of every request from now on, except to /health")
    return 0


def rotate(options: Namespace) -> int:
    """Make another key for a name, and print it."""
    grace = 0 if options.grace == "0" else duration(options.grace)
    now = SystemClock().now()
    with _keys(options) as keys:
        before = [one for known in keys.all() if known.name == options.name for one in known.valid(now)]
        key = keys.rotate(options.name, grace=grace, why=options.why)
    _tell(options, key)
    if not before:
        say("the key before had ended already")
    elif grace:
        last = max(min(now + grace, one.until or now + grace) for one in before)
        say(f"the key before works until {to_iso(last)[:19]}Z at the latest")
    return 0


def revoke(options: Namespace) -> int:
    """End all keys of a name."""
    with _keys(options) as keys:
        keys.revoke(options.name, why=options.why)
    out(f"{options.name} is revoked; running servers refuse it within a second")
    return 0


def listing(options: Namespace) -> int:
    """List all names, with what can be told of their keys."""
    now = SystemClock().now()
    with _keys(options) as keys:
        found = [about(key, now) for key in keys.all()]
    if options.json:
        json_out(found)
    elif not found:
        out("no API keys yet: noria keys create NAME --scope predict,events")
    else:
        header = ("name", "scopes", "rate", "status", "keys", "created (UTC)")
        rows = [
            (
                one.name,
                ",".join(one.scopes),
                one.rate,
                one.status,
                ", ".join(map(_shown, one.keys)) or None,
                one.created[:19],
            )
            for one in found
        ]
        out(table(header, rows))
    return 0


def history(options: Namespace) -> int:
    """Show the trail of changes, the newest first."""
    with _keys(options) as keys:
        changes = keys.history(options.name)
    if options.json:
        json_out(changes)
    elif not changes:
        out("nothing was ever changed")
    else:
        rows = [
            (change.at[:19], change.who, change.action, change.name, change.detail, change.why) for change in changes
        ]
        out(table(("at (UTC)", "who", "action", "name", "what", "why"), rows))
    return 0


@contextmanager
def _keys(options: Namespace) -> Iterator[ApiKeys]:
    settings = Settings.load(options.project)
    with closing(open_records(settings.storage.records, settings.root)) as records:
        yield ApiKeys(records)


def _tell(options: Namespace, key: str) -> None:
    """The key alone on standard output, so that a script can take it."""
    if options.json:
        json_out({"name": options.name, "id": key.split("_")[1], "key": key})
    else:
        out(key)
        say("keep it now: it is not stored, and can't be shown again")


def _shown(key: KeyShown) -> str:
    return f"noria_{key.id}_…" + (f" until {key.until[:19]}" if key.until else "")
