"""The texts of `noria export`: plain functions from a description of the deployment to the files' texts."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

UID = 10001
STOP_SECONDS = 45
"""For HAProxy and then the servers to finish what they have (10 s each), the stream's processor, and some to spare."""
FILES = 65_536
"""Descriptors: a client's connection takes one, and one more while its request runs."""
_KEYS = """\
# Off loopback noria ends at once without API keys: those of `noria keys create NAME`, which are kept in .noria, or
# SHA-256 digests in NORIA_SERVE_API_KEYS."""
_DOLLAR = "\\$"
_FIXED = tuple(f"NORIA_SERVE_{name}" for name in ("HOST", "PORT", "GRPC_PORT", "TLS", "CERTIFICATE"))
"""What is as it has to be in a container."""


@dataclass(frozen=True)
class Deployment:
    """What is to be run.

    Attributes:
        name: of the service and the image; a DNS label.
        root: the project's folder on this machine.
        python: the interpreter that noria is installed for on this machine.
        user: whom the systemd unit runs as.
        version: of Python in the image, `3.11`.
        host, port: where the load balancer listens; in a container on all interfaces.
        processes: server processes at least.
        stream: whether the project has streams, whose events have to be processed too.
        grpc_port: where it speaks gRPC; 0 for nowhere.
        variables: settings that came from the environment, and are no secrets.
    """

    name: str
    root: Path
    python: str
    user: str
    version: str
    host: str
    port: int
    processes: int
    stream: bool
    grpc_port: int = 0
    variables: Mapping[str, str] = field(default_factory=dict)

    @property
    def inside(self) -> int:
        """The port in a container, where nobody is root."""
        return self.port if self.port >= 1024 else 8080

    @property
    def grpc_inside(self) -> int:
        """The port for gRPC there."""
        return next(port for port in (self.grpc_port, 8081, 8082) if port >= 1024 and port != self.inside)

    @property
    def words(self) -> tuple[str, ...]:
        """What is said to `noria`."""
        return ("serve", "--with-stream") if self.stream else ("serve",)


def systemd(to: Deployment) -> dict[str, str]:
    """A unit; `systemctl reload` is a rolling restart."""
    noria = f"{_quoted(to.python)} -m noria"
    variables = "".join(f"Environment={_assigned(name, value)}\n" for name, value in to.variables.items())
    return {
        f"{to.name}.service": f"""\
# Put this into /etc/systemd/system, then: systemctl daemon-reload && systemctl enable --now {to.name}
# More settings, and secrets, go into /etc/{to.name}.env (mode 0600), as NORIA_STORAGE_ONLINE=…; it needn't be there.
{_KEYS}
[Unit]
Description={to.name}, served by noria
Wants=network-online.target
After=network-online.target
StartLimitIntervalSec=0

[Service]
Type=exec
User={to.user}
WorkingDirectory={_escaped(str(to.root))}
{variables}EnvironmentFile=-/etc/{to.name}.env
Environment=TMPDIR=/run/{to.name}
RuntimeDirectory={to.name}
RuntimeDirectoryMode=0700
ExecStart={noria} {" ".join(to.words)}
# New code, and what the servers read of noria.toml, one server after the other: no request fails. Address, replicas,
# balance and TLS are the gateway's: systemctl restart, with a pause.
ExecReload={noria} restart
Restart=always
RestartSec=1
# SIGTERM for noria alone, which finishes the requests in flight and then stops its servers.
KillMode=mixed
TimeoutStopSec={STOP_SECONDS}
TimeoutStartSec=180
LimitNOFILE={FILES}
NoNewPrivileges=true
PrivateTmp=true
PrivateDevices=true
ProtectSystem=strict
ReadWritePaths={_quoted(str(to.root / ".noria"))}
ProtectKernelTunables=true
ProtectKernelModules=true
ProtectControlGroups=true
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6
RestrictSUIDSGID=true
RestrictNamespaces=true
RestrictRealtime=true
ProtectClock=true
ProtectHostname=true
ProtectKernelLogs=true
LockPersonality=true
{_capabilities(to)}
UMask=0077

[Install]
WantedBy=multi-user.target
"""
    }


def _assigned(name: str, value: str) -> str:
    """A variable for systemd."""
    text = _escaped(value).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{name}={text}"'


def _capabilities(to: Deployment) -> str:
    if to.port >= 1024 and not 0 < to.grpc_port < 1024:
        return "CapabilityBoundingSet="
    return "CapabilityBoundingSet=CAP_NET_BIND_SERVICE\nAmbientCapabilities=CAP_NET_BIND_SERVICE"


def docker(to: Deployment) -> dict[str, str]:
    """A Dockerfile and what it shall not copy."""
    command = ", ".join(f'"{word}"' for word in ("noria", *to.words))
    extra = " && pip install --no-cache-dir 'noria[grpc]'" if to.grpc_port else ""
    grpc = f"ENV NORIA_SERVE_GRPC_PORT={to.grpc_inside}\nEXPOSE {to.grpc_inside}\n" if to.grpc_port else ""
    given = {name: value for name, value in to.variables.items() if name not in _FIXED}
    variables = "".join(f"ENV {name}={json.dumps(value).replace('$', _DOLLAR)}\n" for name, value in given.items())
    return {
        "Dockerfile": f"""\
# noria isn't on a package index yet: put its wheel into the project first,
#   pip wheel --no-deps --wheel-dir wheels PATH-TO-NORIA
# then: docker build -t {to.name} .
FROM python:{to.version}-slim

ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 HOME=/tmp
RUN groupadd --gid {UID} noria && useradd --uid {UID} --gid {UID} --no-create-home noria
COPY wheels/ /wheels/
RUN pip install --no-cache-dir /wheels/*.whl{extra}

WORKDIR /app
COPY . .
RUN mkdir -p .noria && chown {UID}:{UID} .noria
USER {UID}:{UID}
VOLUME /app/.noria

{_KEYS}
# TLS is taken to end before the container, at a proxy. If not: NORIA_SERVE_CERTIFICATE and NORIA_SERVE_TLS=here.
ENV NORIA_SERVE_HOST=0.0.0.0 NORIA_SERVE_PORT={to.inside} NORIA_SERVE_TLS=elsewhere
{variables}EXPOSE {to.inside}
{grpc}STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=15s --start-period=120s --retries=3 \\
  CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:{to.inside}/health/ready', timeout=12)"]
CMD [{command}]
""",
        ".dockerignore": ".git\n.noria\n.venv\n**/__pycache__\n*.env\n",
    }


def compose(to: Deployment) -> dict[str, str]:
    """A compose file, for the image of the Dockerfile."""
    command = ", ".join(("noria", *to.words))
    grpc = f'\n      - "{to.grpc_port}:{to.grpc_inside}"' if to.grpc_port else ""
    return {
        "compose.yaml": f"""\
# Needs the Dockerfile (noria export docker --output .) and API keys, which are kept in the volume:
#   docker compose run --rm serve noria keys create NAME --scope predict,events
# or given as SHA-256 digests in NORIA_SERVE_API_KEYS, here or in .env.
# Bring the project up to date first: docker compose run --rm serve noria run
name: {to.name}
services:
  serve:
    build: .
    image: {to.name}:latest
    command: [{command}]
    ports:
      - "{to.port}:{to.inside}"{grpc}
    environment:
      NORIA_SERVE_API_KEYS: ${{NORIA_SERVE_API_KEYS:-}}
    volumes:
      - state:/app/.noria
    user: "{UID}:{UID}"
    init: true
    restart: unless-stopped
    stop_grace_period: {STOP_SECONDS}s
    cap_drop: [ALL]
    security_opt: ["no-new-privileges:true"]
    ulimits:
      nofile: {FILES}
volumes:
  state: {{}}
"""
    }


def _escaped(path: str) -> str:
    """A path for systemd, where % begins a specifier."""
    return path.replace("%", "%%")


def _quoted(word: str) -> str:
    return f'"{_escaped(word)}"' if any(c.isspace() for c in word) else _escaped(word)
