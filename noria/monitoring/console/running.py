"""Running the console: a thread with an event loop of its own, whose end, whatever it is, ends nothing else."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from noria.core import ConfigError, MissingExtraError, Settings, SystemClock
from noria.gateway.ports import listen
from noria.monitoring.console.desk import Project
from noria.monitoring.console.guard import Guard
from noria.monitoring.console.pulse import Pulse, beating
from noria.serving.access import Access, following
from noria.serving.key_records import ApiKeys
from noria.serving.keys import check_plain, is_loopback, parse_keys
from noria.serving.scopes import ADMIN
from noria.storage import Records, open_records
from noria.telemetry import MLLogger

if TYPE_CHECKING:
    import uvicorn

_STOP_SECONDS = 3


@dataclass(frozen=True)
class Running:
    """A console that answers.

    Attributes:
        url: where.
    """

    url: str
    _thread: threading.Thread

    @property
    def alive(self) -> bool:
        """Whether it still does."""
        return self._thread.is_alive()

    def wait(self, seconds: float | None = None) -> None:
        """Stay until it ends."""
        self._thread.join(seconds)


@contextmanager
def running(
    settings: Settings, run_dir: Path, tell: Callable[[str], None], certificate: Path | None = None
) -> Iterator[Running]:
    """Have a console answer on `serve.admin_port`, until the block ends.

    Args:
        settings: of the project.
        run_dir: where its gateway runs, if it does.
        tell: told when the console ends by itself.
        certificate: for HTTPS: a PEM file with the key too; needed off loopback, unless TLS ends elsewhere.

    Raises:
        MissingExtraError: Starlette or uvicorn isn't installed.
        ConfigError: others can reach the address, and there is no certificate, or no API key with the scope `admin`.
        GatewayError: the port is taken.
        StorageError: the keys can't be read.
    """
    try:
        import uvicorn

        from noria.monitoring.console.app import Console, application
    except ImportError as error:
        raise MissingExtraError("Starlette or uvicorn", "console", "the console") from error
    host, port = settings.serve.admin_host, settings.serve.admin_port
    if certificate is None:
        check_plain(host, settings.serve.tls)
    with ExitStack() as stack:
        access = stack.enter_context(_access(settings))
        listener = stack.enter_context(closing(listen(host, port)))
        # Head and body are written apart: without this the body waits for the client's delayed acknowledgement, 40 ms.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        port = listener.getsockname()[1]
        log = stack.enter_context(closing(MLLogger(settings.state_dir / "logs" / f"console-{port}.jsonl")))
        pulse = stack.enter_context(beating(Pulse(run_dir)))
        project = stack.enter_context(closing(Project(settings, run_dir, pulse)))
        app = application(Console(project, Guard(access, is_loopback(host)), log))
        server = uvicorn.Server(_config(app, certificate))
        thread = threading.Thread(target=_run, args=(server, listener, log, tell), name="noria-console", daemon=True)
        thread.start()
        try:
            yield Running(_url(host, port, tls=certificate is not None), thread)
        finally:
            server.should_exit = True
            thread.join(_STOP_SECONDS + 5.0)


def _config(app: Any, certificate: Path | None) -> uvicorn.Config:
    import uvicorn

    return uvicorn.Config(
        app,
        loop="asyncio",
        http="h11",
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="critical",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=200,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=_STOP_SECONDS,
        ssl_certfile=certificate,
        ssl_keyfile=certificate,
    )


def _run(server: uvicorn.Server, listener: socket.socket, log: MLLogger, tell: Callable[[str], None]) -> None:
    """Serve; whatever ends it is told."""
    cause = "it stopped answering"
    try:
        server.run(sockets=[listener])
    except BaseException as error:
        log.log_error(error, part="console")
        cause = f"{type(error).__name__}: {error}"
    if not server.should_exit:
        tell(f"the console has ended, {cause}; everything else goes on")


@contextmanager
def _access(settings: Settings) -> Iterator[Access]:
    """The API keys, followed over a connection of their own."""
    loopback = is_loopback(settings.serve.admin_host)
    with closing(open_records(settings.storage.records, settings.root)) as records:
        if not loopback:
            _check_keys(settings, records)
        digests = parse_keys(settings.serve.api_keys)
        with following(Access(), records, digests=digests, demanded=not loopback) as access:
            yield access


def _check_keys(settings: Settings, records: Records) -> None:
    keys = ApiKeys(records)
    now = SystemClock().now()
    if parse_keys(settings.serve.api_keys) or any(ADMIN in key.scopes and key.valid(now) for key in keys.all()):
        return
    raise ConfigError(
        f"{settings.serve.admin_host} can be reached from other machines, and no API key has the scope {ADMIN}",
        hint=f"make one: noria keys create NAME --scope {ADMIN}; or let the console listen on 127.0.0.1",
        field="serve.admin_host",
    )


def _url(host: str, port: int, *, tls: bool) -> str:
    shown = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(host, host)
    return f"{'https' if tls else 'http'}://{f'[{shown}]' if ':' in shown else shown}:{port}"
