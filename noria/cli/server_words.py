"""The words of `noria servers`, `noria scale` and `noria restart`."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

_SERVERS = """\
columns (counts since HAProxy started):
  SESSIONS   requests in flight
  QUEUED     requests that wait for this server
  ERRORS     connections that failed, and requests that got no whole answer: mostly asked of another server again
  FAILURES   answers with status 5xx
  RESTARTS   how often noria has started the process again
  CHECK      the last health check of GET /health/ready: L7OK 200 is well; L7STS another status; L4CON nobody listens;
             L4TOUT and L7TOUT no answer in time
"""


def add_servers(commands: Any, project: argparse.ArgumentParser, add: Callable[..., Any]) -> None:
    """Add them to the command line; `add` makes a command of a name, a function and a help text."""
    servers = add(
        commands, "servers", "servers:listing", "show and change the servers of a running noria serve", project
    )
    servers.set_defaults(json=False)
    servers.epilog, servers.formatter_class = _SERVERS, argparse.RawDescriptionHelpFormatter
    servers.add_argument("--json", action="store_true", help="print them as JSON")
    actions = servers.add_subparsers(title="actions", metavar="ACTION")
    listing = add(actions, "list", "servers:listing", "show them, as without an action", project)
    listing.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="print them as JSON")
    elsewhere = add(actions, "add", "servers:add", "send requests to a server on another machine, too", project)
    elsewhere.add_argument("address", metavar="HOST:PORT")
    elsewhere.add_argument("--weight", type=int, default=100, help="its part of the requests: 0 to 256 (default: 100)")
    for name, what in (
        ("remove", "take a server on another machine out, when it has finished what it has"),
        ("drain", "send a server no new requests"),
        ("resume", "send requests to a drained server again"),
    ):
        add(actions, name, f"servers:{name}", what, project).add_argument("name", metavar="NAME")
    weight = add(actions, "weight", "servers:weight", "let a server have another part of the requests", project)
    weight.add_argument("name", metavar="NAME")
    weight.add_argument("weight", type=int, metavar="N", help="0 (none) to 256; a server has 100 unless told otherwise")
    scale = add(commands, "scale", "servers:scale", "have more or fewer server processes, now", project)
    scale.add_argument("replicas", metavar="N[-M]", help="so many, or as many from N to M as the load asks for")
    scale.add_argument("--force", action="store_true", help="many more than cores, or 0 though nobody answers then")
    add(
        commands, "restart", "servers:restart", "replace the server processes one by one; no request fails", project
    ).epilog = (
        "New processes have the code and the noria.toml of now. Address, replicas, balance and TLS are the gateway's: "
        "noria serve --take-over."
    )
