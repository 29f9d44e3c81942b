"""The metrics of the load balancer and of every replica on one page.

Through the balancer, `/metrics` is that of the replica whose turn it is.

Source: Prometheus' text format 0.0.4, in which a family's samples stand together under its `# TYPE`.
"""

from __future__ import annotations

import http.client
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from noria.gateway.control import ask
from noria.monitoring.console.pulse import read_servers

_SECONDS = 3.0
_LONGEST = 16_777_216


@dataclass
class _Family:
    about: list[str]
    samples: list[str] = field(default_factory=list)


def gathered(run_dir: Path, key: bytes = b"") -> str:
    """All metrics; samples of a replica have its name as the label `replica`.

    Args:
        run_dir: where the gateway runs.
        key: the API key to ask the replicas with; servers elsewhere aren't asked, and don't get to know it.

    Raises:
        NoGatewayError: no gateway runs there.
    """
    replicas = {one.name: f"http://{one.address}/metrics" for one in read_servers(run_dir) if one.replica}
    balancer = str(ask(run_dir, "addresses")["metrics"])
    with ThreadPoolExecutor(max_workers=8) as pool:
        found = dict(zip(replicas, pool.map(lambda url: fetched(url, key), replicas.values()), strict=True))
        haproxy = pool.submit(fetched, balancer).result()
    up = [f'noria_replica_up{{replica="{name}"}} {int(text is not None)}' for name, text in found.items()]
    about = "# HELP noria_replica_up Whether the replica told its metrics.\n# TYPE noria_replica_up gauge"
    return "\n".join([about, *up, merged(found)]) + "\n" + (haproxy or "")


def merged(texts: Mapping[str, str | None]) -> str:
    r"""One exposition of several, with the label `replica`.

    >>> print(merged({"a": "# TYPE up gauge\nup 1\n", "b": "# TYPE up gauge\nup{x=\"}\"} 0\n", "c": None}))
    # TYPE up gauge
    up{replica="a"} 1
    up{replica="b",x="}"} 0
    """
    families: dict[str, _Family] = {}
    for replica, text in texts.items():
        _add(families, replica, (text or "").splitlines())
    return "\n".join(line for family in families.values() for line in (*family.about, *family.samples))


def _add(families: dict[str, _Family], replica: str, lines: Iterable[str]) -> None:
    about: list[str] = []
    family = families.setdefault("", _Family([]))
    for line in lines:
        if line.startswith("#"):
            words = line.split(" ", 3)
            about = [*about, line] if words[1:2] == ["HELP"] or about else [line]
            if words[1:2] == ["TYPE"]:
                family = families.setdefault(words[2], _Family(about))
                about = []
        elif line:
            family.samples.append(_labelled(line, replica))


def _labelled(sample: str, replica: str) -> str:
    label = f'replica="{replica}"'
    brace, space = sample.find("{"), sample.find(" ")
    if 0 <= brace < space:
        rest = sample[brace + 1 :]
        return f"{sample[:brace]}{{{label}{'' if rest.startswith('}') else ','}{rest}"
    return f"{sample[:space]}{{{label}}}{sample[space:]}"


def fetched(url: str, key: bytes = b"") -> str | None:
    """What is at an address; None while nobody answers there with status 200."""
    found = answer(url, key)
    return found[1].decode("utf-8", "replace") if found is not None and found[0] == 200 else None


def answer(url: str, key: bytes = b"") -> tuple[int, bytes] | None:
    """Status and body; None while nobody answers."""
    parts = urlsplit(url)
    headers = {"authorization": f"Bearer {key.decode('latin-1')}"} if key else {}
    connection = http.client.HTTPConnection(parts.netloc, timeout=_SECONDS)
    try:
        connection.request("GET", parts.path, headers=headers)
        response = connection.getresponse()
        return response.status, response.read(_LONGEST)
    except (TimeoutError, OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()
