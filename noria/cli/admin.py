"""`noria admin`, and the console beside `noria serve`."""

from __future__ import annotations

import signal
import sys
import threading
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

from noria.cli.show import out, say
from noria.cli.tls import certificate
from noria.core import ConfigError, NoriaError, Settings
from noria.gateway import GatewayError
from noria.monitoring.console.running import running
from noria.serving.keys import is_loopback

_RETRY_SECONDS = 0.5


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
def console(settings: Settings, run_dir: Path, tell: Callable[[str], None], *, inherits: bool = False) -> Iterator[str]:
    """The console beside the servers: its address, or nothing where it can't be or isn't wanted, which is told.

    Args:
        settings: of the project.
        run_dir: where its gateway runs.
        tell: told what happens to it.
        inherits: another process that is about to end may have the port still; then it comes later, which is told.
    """
    with ExitStack() as stack:
        url = ""
        if settings.serve.admin_port:
            try:
                url = stack.enter_context(running(settings, run_dir, tell, _certificate(settings))).url
            except Exception as error:  # whatever it is, it is no reason not to serve
                if inherits and _port_taken(error):
                    tell(f"the console comes when port {settings.serve.admin_port} is free")
                    stack.enter_context(_later(settings, run_dir, tell))
                else:
                    tell(_no_console(error))
        yield url


@contextmanager
def _later(settings: Settings, run_dir: Path, tell: Callable[[str], None]) -> Iterator[None]:
    """A console as soon as its port is free, until the block ends."""
    stop = threading.Event()

    def wait_and_run() -> None:
        while not stop.wait(_RETRY_SECONDS):
            try:
                with running(settings, run_dir, tell, _certificate(settings)) as made:
                    tell(f"console: {made.url}")
                    stop.wait()
            except Exception as error:
                if not _port_taken(error):
                    tell(_no_console(error))
                    return

    thread = threading.Thread(target=wait_and_run, name="noria-console-later")
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _port_taken(error: Exception) -> bool:
    return isinstance(error, GatewayError) and error.field == "port"


def _no_console(error: Exception) -> str:
    hint = f" ({error.hint})" if isinstance(error, NoriaError) and error.hint else ""
    return f"no console: {error.args[0] if error.args else error}{hint}"


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
