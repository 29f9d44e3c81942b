"""Requests a second through the load balancer: noria, a FastAPI app with the same model, and a bare echo server."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.measure import markdown, median
from noria.cli.init import write_project
from noria.gateway import Supervisor

ROOT = Path(__file__).parents[1]
PEERS = Path(__file__).parent / "peers"
ENVIRONMENT = ROOT / ".bench" / "fastapi"
SECONDS, ROUNDS, CONNECTIONS, REPLICAS, PORT = 5, 3, 32, 2, 18080


@dataclass(frozen=True)
class Load:
    """What wrk measured: requests a second, and latencies in milliseconds."""

    rate: float
    p50: float
    p99: float
    errors: int


def run() -> str:
    if shutil.which("wrk") is None:
        subprocess.run(["apt-get", "install", "-y", "-qq", "wrk"], check=True, stdout=subprocess.DEVNULL)
    python = fastapi_environment()
    sections = []
    with tempfile.TemporaryDirectory() as folder:
        for template, operation, body in (
            ("recommender", "recommend", {"user_id": 15, "k": 10}),
            ("tabular", "predict", None),
        ):
            project = Path(folder) / template
            write_project(project, template)
            subprocess.run([sys.executable, "-m", "noria", "run"], cwd=project, check=True, stdout=subprocess.DEVNULL)
            model = "movies-for-you" if template == "recommender" else "late"
            sections.append(compare(project, model, operation, body or example(project, model), python))
    return "\n\n".join(sections)


def compare(project: Path, model: str, operation: str, body: dict[str, object], python: Path) -> str:
    """The three servers in turn, several rounds, medians."""
    peer = str(PEERS / "fastapi_app.py")
    servers: dict[str, Callable[[int, int], list[str]]] = {
        "noria": lambda i, port: [
            sys.executable, "-m", "noria.serving", "--project", str(project), "--port", str(port), "--replica", str(i), model,
        ],
        "FastAPI": lambda i, port: [str(python), peer, str(project), model, operation, str(port)],
        "bare echo": lambda i, port: [sys.executable, str(PEERS / "echo.py"), str(port)],
    }  # fmt: skip
    loads: dict[str, list[Load]] = {name: [] for name in servers}
    for _ in range(ROUNDS):
        for name, command in servers.items():
            loads[name].append(measure_server(command, project, operation, body))
    middle = {
        name: Load(*(median([getattr(l, f) for l in many]) for f in ("rate", "p50", "p99", "errors")))
        for name, many in loads.items()
    }
    rows = [
        (
            name,
            f"{l.rate:,.0f}",
            f"{l.p50:.2f}",
            f"{l.p99:.2f}",
            int(l.errors),
            f"{middle['noria'].rate / max(l.rate, 1e-9):.2f}",
        )
        for name, l in middle.items()
    ]
    note = (
        f"`{json.dumps(body)}`; {REPLICAS} replicas behind HAProxy, wrk with {CONNECTIONS} connections for {SECONDS} s, all on "
        f"the same cores, in turn, medians of {ROUNDS} rounds. wrk is a closed loop: p99 under overload is better than it looks."
    )
    header = ("server", "requests/s", "p50 ms", "p99 ms", "errors", "noria's rate ÷ its own")
    return markdown(f"POST /{operation} through the load balancer", header, rows, note)


def measure_server(
    command: Callable[[int, int], list[str]], project: Path, operation: str, body: dict[str, object]
) -> Load:
    with tempfile.TemporaryDirectory() as run_dir, contextlib.ExitStack() as stack:
        running = stack.enter_context(
            Supervisor(command, replicas=REPLICAS, host="127.0.0.1", port=PORT, run_dir=Path(run_dir))
        )
        url = f"{running.url}/{operation}"
        wrk(url, body, 1)
        return wrk(url, body, SECONDS)


def wrk(url: str, body: dict[str, object], seconds: int) -> Load:
    script = f"""
wrk.method = "POST"
wrk.body = {json.dumps(json.dumps(body))}
wrk.headers["Content-Type"] = "application/json"
done = function(summary, latency, requests)
  io.write(string.format("RESULT %d %d %f %f %d\\n", summary.requests, summary.duration, latency:percentile(50),
    latency:percentile(99), summary.errors.status + summary.errors.read + summary.errors.write + summary.errors.timeout))
end
"""
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as file:
        file.write(script)
        file.flush()
        command: Sequence[str] = ("wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", "-s", file.name, url)
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    line = next(line for line in done.stdout.splitlines() if line.startswith("RESULT"))
    requests, micros, p50, p99, errors = (float(word) for word in line.split()[1:])
    return Load(requests / micros * 1e6, p50 / 1000, p99 / 1000, int(errors))


def example(project: Path, model: str) -> dict[str, object]:
    """The example request that was registered with the model."""
    shown = subprocess.run(
        [sys.executable, "-m", "noria", "models", "show", model],
        cwd=project,
        check=True,
        capture_output=True,
        text=True,
    )
    found: dict[str, object] = json.loads(shown.stdout)["signature"]["example"]
    return found


def fastapi_environment() -> Path:
    """A virtual environment with FastAPI that sees noria's libraries too."""
    python = ENVIRONMENT / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(ENVIRONMENT)], check=True)
        pip = [str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check"]
        subprocess.run([*pip, "fastapi", "uvicorn[standard]"], check=True)
        (here,) = (Path(p) for p in sys.path if p.endswith("site-packages"))
        (there,) = ENVIRONMENT.glob("lib/python*/site-packages")
        (there / "noria-libraries.pth").write_text(f"{here}\n{ROOT}\n")
    return python
