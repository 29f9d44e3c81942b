"""Through a load balancer: noria's supervisor with two replicas, and bare balancers over two bare servers."""

from __future__ import annotations

import shutil
import subprocess
import sys

from benchmarks.serving.contestant import Contestant
from benchmarks.serving.environments import PEERS
from benchmarks.serving.example import Example, named
from noria.gateway.haproxy import binary


def contestants(example: Example) -> tuple[Contestant, list[Contestant]]:
    """noria, and the others."""
    rows = example.asked
    bodies, right = [named(row[None]) for row in rows], example.scores("linear", rows)
    bare = (sys.executable, str(PEERS / "bare.py"), example.file("linear.json"))
    supervised = (sys.executable, str(PEERS / "supervised.py"), "{port}")
    server = (sys.executable, "-m", "noria.serving", "--project", str(example.project))
    mine = (*server, "--port", "{own}", "--replica", "{replica}", "linear")

    def balanced(name: str, kind: str, program: str | None) -> Contestant:
        words = (sys.executable, str(PEERS / "balancer.py"), kind, str(program), "{port}", "{helper}", "{helper2}")
        helpers = [(*bare, "{port}")] * 2
        folder = example.file(f"bare-{kind}")
        why = "" if program else "not installed (no such Debian package here)"
        return Contestant(name, (*words, folder), "/predict", bodies, right, helpers=helpers, why=why)

    return Contestant("noria", (*supervised, example.file("run"), *mine), "/predict", bodies, right), [
        balanced("bare HAProxy over two bare protocols", "haproxy", binary()),
        Contestant(
            "noria's supervisor and HAProxy over two bare protocols",
            (*supervised, example.file("run-bare"), *bare, "{own}"),
            "/predict",
            bodies,
            right,
        ),
        balanced("nginx over two bare protocols", "nginx", _nginx()),
    ]


def _nginx() -> str | None:
    found = shutil.which("nginx", path="/usr/sbin:/usr/bin")
    if found is None and shutil.which("apt-get"):
        words = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", "nginx-light"]
        subprocess.run(words, check=False, capture_output=True)
        found = shutil.which("nginx", path="/usr/sbin:/usr/bin")
    return found


def versions() -> str:
    """HAProxy's and nginx's."""
    said = [subprocess.run([binary(), "-v"], capture_output=True, text=True, check=True).stdout.splitlines()[0]]
    if nginx := _nginx():
        said.append(subprocess.run([nginx, "-v"], capture_output=True, text=True, check=True).stderr.strip())
    return ", ".join(" ".join(words.split()[:3]) for words in said)
