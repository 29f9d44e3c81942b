"""The texts of `noria export`: plain functions from a description of the deployment to the files' texts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

UID = 10001
STOP_SECONDS = 45
"""For HAProxy and then the servers to finish what they have (10 s each), the stream's processor, and some to spare."""
FILES = 65_536
"""Descriptors: a client's connection takes one, and one more while its request runs."""


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
        needs_keys: whether the address can be reached from other machines.
        grpc_port: where it speaks gRPC; 0 for nowhere.
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
    needs_keys: bool
    grpc_port: int = 0

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
    return {
        f"{to.name}.service": f"""\
# Put this into /etc/systemd/system, then: systemctl daemon-reload && systemctl enable --now {to.name}
# Settings and secrets go into /etc/{to.name}.env (mode 0600), as NORIA_SERVE_API_KEYS=…
[Unit]
Description={to.name}, served by noria
Wants=network-online.target
After=network-online.target
StartLimitIntervalSec=0

[Service]
Type=exec
User={to.user}
WorkingDirectory={_escaped(str(to.root))}
# The dash lets it start without the file; off loopback noria refuses to start without keys.
EnvironmentFile={"" if to.needs_keys else "-"}/etc/{to.name}.env
Environment=TMPDIR=/run/{to.name}
RuntimeDirectory={to.name}
RuntimeDirectoryMode=0700
ExecStart={noria} {" ".join(to.words)}
# New code and settings, one server after the other: no request fails.
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


def _capabilities(to: Deployment) -> str:
    if to.port >= 1024 and not 0 < to.grpc_port < 1024:
        return "CapabilityBoundingSet="
    return "CapabilityBoundingSet=CAP_NET_BIND_SERVICE\nAmbientCapabilities=CAP_NET_BIND_SERVICE"


def docker(to: Deployment) -> dict[str, str]:
    """A Dockerfile and what it shall not copy."""
    command = ", ".join(f'"{word}"' for word in ("noria", *to.words))
    extra = " && pip install --no-cache-dir 'noria[grpc]'" if to.grpc_port else ""
    grpc = f"ENV NORIA_SERVE_GRPC_PORT={to.grpc_inside}\nEXPOSE {to.grpc_inside}\n" if to.grpc_port else ""
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

# Beyond loopback noria needs NORIA_SERVE_API_KEYS, SHA-256 digests of the keys: it ends without.
# TLS is taken to end before the container, at a proxy. If not: NORIA_SERVE_CERTIFICATE and NORIA_SERVE_TLS=here.
ENV NORIA_SERVE_HOST=0.0.0.0 NORIA_SERVE_PORT={to.inside} NORIA_SERVE_TLS=elsewhere
EXPOSE {to.inside}
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
# Needs the Dockerfile (noria export docker --output .) and NORIA_SERVE_API_KEYS, here or in .env.
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
      NORIA_SERVE_API_KEYS: ${{NORIA_SERVE_API_KEYS:?give SHA-256 digests of the API keys}}
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
