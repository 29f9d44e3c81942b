"""`noria admin`, and the console beside `noria serve`."""

from __future__ import annotations

import signal
import sys
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

from noria.cli.show import out, say
from noria.cli.tls import certificate
from noria.core import ConfigError, NoriaError, Settings
from noria.monitoring.console.running import running
from noria.serving.keys import is_loopback


def admin(options: Namespace) -> int:
    """Run the console alone until Ctrl-C or SIGTERM."""
    from noria.cli.serve import run_directory

    settings = Settings.load(options.project)
    changed = {f"admin_{name}": value for name in ("host", "port") if (value := getattr(options, name)) is not None}
    settings = replace(settings, serve=replace(settings.serve, **changed))
    ended: list[str] = []

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with running(settings, run_directory(settings), ended.append, _certificate(settings)) as made:
        before = signal.signal(signal.SIGTERM, stop)
        out(f"console: {made.url}    stop: Ctrl-C")
        sys.stdout.flush()
        try:
            while made.alive:
                made.wait(0.5)
        except KeyboardInterrupt:
            say("stopped")
        finally:
            signal.signal(signal.SIGTERM, before)
    for cause in ended:
        say(cause)
    return 1 if ended else 0


@contextmanager
def console(settings: Settings, run_dir: Path, tell: Callable[[str], None]) -> Iterator[str]:
    """The console beside the servers: its address, or nothing where it can't be or isn't wanted, which is told."""
    with ExitStack() as stack:
        url = ""
        if settings.serve.admin_port:
            try:
                url = stack.enter_context(running(settings, run_dir, tell, _certificate(settings))).url
            except Exception as error:  # whatever it is, it is no reason not to serve
                hint = f" ({error.hint})" if isinstance(error, NoriaError) and error.hint else ""
                tell(f"no console: {error.args[0] if error.args else error}{hint}")
        yield url


def _certificate(settings: Settings) -> Path | None:
    """The servers' own; none on loopback, for whose names there are no certificates."""
    host = settings.serve.admin_host
    if is_loopback(host):
        return None
    try:
        return certificate(replace(settings, serve=replace(settings.serve, host=host)))
    except ConfigError as error:
        error.field = error.field if error.field != "serve.host" else "serve.admin_host"
        raise
