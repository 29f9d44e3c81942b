"""Real PostgreSQL and MariaDB servers for tests: on free loopback ports, with their data in temporary folders."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

PASSWORD = "s3cret:@/%pass"
"""Has every character that means something in a URL."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Server:
    """A running server; `url` names a database in it, `kill` ends it as a power cut would."""

    scheme: str
    user: str
    port: int
    database: str
    process: subprocess.Popen[bytes] = field(repr=False)

    @property
    def url(self) -> str:
        return self.url_of()

    def url_of(self, **parts: Any) -> str:
        """The URL with another `user`, `password`, `port` or `database`."""
        user, password = parts.get("user", self.user), parts.get("password", PASSWORD)
        host = f"127.0.0.1:{parts.get('port', self.port)}"
        name = parts.get("database", self.database)
        return f"{self.scheme}://{user}:{quote(password, safe='')}@{host}/{name}"

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@contextmanager
def postgresql() -> Iterator[Server]:
    """A PostgreSQL server with the database `shop` of the user `noria`, who must give a password."""
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not programs:
        pytest.skip("no PostgreSQL server: apt-get install -y postgresql")
    binaries, port = programs[-1].parent, free_port()
    with _folder("postgres") as (folder, as_user):
        password = folder / "password"
        password.write_text(PASSWORD)
        password.chmod(0o644)
        words = ["-D", f"{folder}/data", "-U", "noria", "-A", "scram-sha-256", "--pwfile", str(password), "-N"]
        _checked([*as_user, str(binaries / "initdb"), *words, "-E", "UTF8", "--locale=C.UTF-8"])
        server = [*as_user, str(binaries / "postgres"), "-D", f"{folder}/data", "-p", str(port), "-k", str(folder)]
        with _running([*server, "-F", "-c", "listen_addresses=127.0.0.1"], port) as process:
            env = {**os.environ, "PGPASSWORD": PASSWORD}
            address = ["-h", "127.0.0.1", "-p", str(port), "-U", "noria"]
            _until(lambda: _checked([str(binaries / "createdb"), *address, "shop"], env=env))
            yield Server("postgresql", "noria", port, "shop", process)


@contextmanager
def mariadb() -> Iterator[Server]:
    """A MariaDB server with the database `shop` of the user `noria`, who must give a password."""
    program = shutil.which("mariadbd", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if program is None:
        pytest.skip("no MariaDB server: apt-get install -y mariadb-server")
    port = free_port()
    with _folder("mysql") as (folder, as_user):
        where = ["--no-defaults", f"--datadir={folder}/data"]
        _checked([*as_user, "mariadb-install-db", *where, "--auth-root-authentication-method=normal", "--skip-test-db"])
        words = [f"--port={port}", "--bind-address=127.0.0.1", f"--socket={folder}/socket", f"--pid-file={folder}/pid"]
        with _running([*as_user, program, *where, *words, "--innodb-flush-log-at-trx-commit=0"], port) as process:
            grant = (
                "CREATE DATABASE shop CHARACTER SET utf8mb4;"
                f"CREATE USER noria@'127.0.0.1' IDENTIFIED BY '{PASSWORD}'; GRANT ALL ON *.* TO noria@'127.0.0.1';"
            )
            _checked(["mariadb", "--no-defaults", f"--socket={folder}/socket", "-uroot", "-e", grant])
            yield Server("mariadb", "noria", port, "shop", process)


@contextmanager
def _folder(owner: str) -> Iterator[tuple[Path, list[str]]]:
    """A folder for a server's data and the words that start a command as its owner: neither server runs as root."""
    with tempfile.TemporaryDirectory(prefix="noria-sql-", ignore_cleanup_errors=True) as name:
        if os.geteuid() != 0:
            yield Path(name), []
            return
        shutil.chown(name, owner)
        yield Path(name), ["setpriv", f"--reuid={owner}", f"--regid={owner}", "--clear-groups"]


@contextmanager
def _running(command: list[str], port: int) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _until(lambda: socket.create_connection(("127.0.0.1", port), timeout=0.5).close())
        yield process
    finally:
        process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _until(works: Any, seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while True:
        try:
            works()
            return
        except (OSError, RuntimeError):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def _checked(command: list[str], env: dict[str, str] | None = None) -> None:
    done = subprocess.run(command, capture_output=True, env=env)
    if done.returncode:
        raise RuntimeError(f"{command[0]}: {done.stderr.decode(errors='replace')}")
