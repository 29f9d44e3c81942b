"""console: administration over HTTP, on a port of its own: an API for programs (`/api`), and pages for people.

It is the control plane. Predictions don't come by here, and nothing that goes wrong here reaches them: `noria serve`
runs it in a thread beside the gateway, `noria admin` alone, any number of times. Whatever it does is one call of the
registry, of the keys, or of the gateway's control socket, as the command line does it; it keeps no state of its own.
"""

from noria.core.lazy import exports

_ORIGIN = {"running": "running"}

__all__ = ["running"]

__getattr__ = exports(__name__, _ORIGIN)
