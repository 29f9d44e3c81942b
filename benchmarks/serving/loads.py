"""Loads: wrk with a number of connections, and requests at a fixed rate; the client has a core of its own."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from benchmarks.http import Load
from benchmarks.serving.contestant import CannotServeError

OPEN_LOOP = Path(__file__).parents[1] / "peers" / "serving" / "open_loop.py"
CONNECTIONS = 32


@dataclass(frozen=True)
class Closed:
    """wrk: each connection asks again as soon as it is answered.

    Attributes:
        connections: how many.
        seconds: how long, at least one.
        core: the client's (None: any).
    """

    connections: int
    seconds: float
    core: int | None = 1

    def __call__(self, url: str, body: bytes) -> Load:
        script = """
wrk.method = "POST"
wrk.body = io.open("BODY", "rb"):read("*a")
wrk.headers["Content-Type"] = "application/json"
done = function(summary, latency, requests)
  io.write(string.format("RESULT %d %d %f %f %d\\n", summary.requests, summary.duration, latency:percentile(50),
    latency:percentile(99), summary.errors.status + summary.errors.connect + summary.errors.read + summary.errors.write
    + summary.errors.timeout))
end
"""
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "body").write_bytes(body)
            file = Path(folder) / "load.lua"
            file.write_text(script.replace('"BODY"', json.dumps(str(Path(folder) / "body"))))
            words = (
                "wrk",
                "-t1",
                f"-c{self.connections}",
                f"-d{max(1, round(self.seconds))}s",
                "--timeout",
                "20s",
                "-s",
                str(file),
                url,
            )
            said = _output(words, self.core)
        line = next(line for line in said.splitlines() if line.startswith("RESULT"))
        requests, micros, p50, p99, errors = (float(word) for word in line.split()[1:])
        return Load(requests / micros * 1e6, p50 / 1000, p99 / 1000, int(errors))


@dataclass(frozen=True)
class Open:
    """Requests that are due at a fixed rate, whether or not the ones before have been answered.

    Attributes:
        rate: requests a second.
        seconds: how long.
        core: the client's (None: any).
    """

    rate: float
    seconds: float
    core: int | None = 1

    def __call__(self, url: str, body: bytes) -> Load:
        parts = urlsplit(url)
        with tempfile.NamedTemporaryFile() as file:
            file.write(body)
            file.flush()
            given = (parts.port, parts.path, file.name, self.rate, self.seconds, CONNECTIONS)
            said = json.loads(_output((sys.executable, str(OPEN_LOOP), *map(str, given)), self.core))
        return Load(said["rate"], said["p50"], said["p99"], said["errors"])


def install_wrk() -> None:
    """Get wrk from Debian, if it isn't there."""
    if shutil.which("wrk") is None:
        subprocess.run(["apt-get", "install", "-y", "-qq", "wrk"], check=True, stdout=subprocess.DEVNULL)


def _output(words: tuple[str, ...], core: int | None) -> str:
    pinned = words if core is None else ("taskset", "-c", str(core), *words)
    try:
        return subprocess.run(pinned, capture_output=True, text=True, check=True, timeout=120).stdout
    except subprocess.SubprocessError as error:
        said = str(getattr(error, "stderr", None) or error).strip().splitlines()
        raise CannotServeError(f"the client failed: {said[-1][:200]}") from error
