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

    @property
    def inside(self) -> int:
        """The port in a container, where nobody is root."""
        return self.port if self.port >= 1024 else 8080

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
    if to.port >= 1024:
        return "CapabilityBoundingSet="
    return "CapabilityBoundingSet=CAP_NET_BIND_SERVICE\nAmbientCapabilities=CAP_NET_BIND_SERVICE"


def docker(to: Deployment) -> dict[str, str]:
    """A Dockerfile and what it shall not copy."""
    command = ", ".join(f'"{word}"' for word in ("noria", *to.words))
    return {
        "Dockerfile": f"""\
# noria isn't on a package index yet: put its wheel into the project first,
#   pip wheel --no-deps --wheel-dir wheels PATH-TO-NORIA
# then: docker build -t {to.name} .
FROM python:{to.version}-slim

ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 HOME=/tmp
RUN groupadd --gid {UID} noria && useradd --uid {UID} --gid {UID} --no-create-home noria
COPY wheels/ /wheels/
RUN pip install --no-cache-dir /wheels/*.whl

WORKDIR /app
COPY . .
RUN mkdir -p .noria && chown {UID}:{UID} .noria
USER {UID}:{UID}
VOLUME /app/.noria

# Beyond loopback noria needs NORIA_SERVE_API_KEYS, SHA-256 digests of the keys: it ends without.
# TLS is taken to end before the container, at a proxy. If not: NORIA_SERVE_CERTIFICATE and NORIA_SERVE_TLS=here.
ENV NORIA_SERVE_HOST=0.0.0.0 NORIA_SERVE_PORT={to.inside} NORIA_SERVE_TLS=elsewhere
EXPOSE {to.inside}
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=15s --start-period=120s --retries=3 \\
  CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:{to.inside}/health/ready', timeout=12)"]
CMD [{command}]
""",
        ".dockerignore": ".git\n.noria\n.venv\n**/__pycache__\n*.env\n",
    }


def compose(to: Deployment) -> dict[str, str]:
    """A compose file, for the image of the Dockerfile."""
    command = ", ".join(("noria", *to.words))
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
      - "{to.port}:{to.inside}"
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


def kubernetes(to: Deployment) -> dict[str, str]:
    """A volume, a deployment of one pod, and a service."""
    return {f"{to.name}.yaml": "---\n".join((_claim(to), _deployment(to), _service(to)))}


def _claim(to: Deployment) -> str:
    return f"""\
# Needs the image {to.name}:latest (noria export docker) where the cluster can pull it, and the keys:
#   kubectl create secret generic {to.name}-keys --from-literal=digests=SHA256-OF-A-KEY,…
# Bring the project up to date: kubectl exec deploy/{to.name} -- noria run
apiVersion: v1
kind: PersistentVolumeClaim
metadata:
  name: {to.name}-state
spec:
  accessModes: [ReadWriteOnce]
  resources:
    requests:
      storage: 10Gi
"""


def _deployment(to: Deployment) -> str:
    command = ", ".join(("noria", *to.words))
    return f"""\
apiVersion: apps/v1
kind: Deployment
metadata:
  name: {to.name}
  labels: {{app: {to.name}}}
spec:
  # One pod has all server processes and the embedded stores, of which one pod at a time may write: so it is recreated,
  # and a new image means a pause. New models need none; new code in the same pod: kubectl exec … noria restart
  replicas: 1
  strategy: {{type: Recreate}}
  selector:
    matchLabels: {{app: {to.name}}}
  template:
    metadata:
      labels: {{app: {to.name}}}
    spec:
      terminationGracePeriodSeconds: {STOP_SECONDS + 5}
      automountServiceAccountToken: false
      securityContext:
        runAsNonRoot: true
        runAsUser: {UID}
        runAsGroup: {UID}
        fsGroup: {UID}
        seccompProfile: {{type: RuntimeDefault}}
      containers:
        - name: serve
          image: {to.name}:latest
          command: [{command}]
          ports:
            - {{name: http, containerPort: {to.inside}}}
          env:
            - name: NORIA_SERVE_API_KEYS
              valueFrom:
                secretKeyRef: {{name: {to.name}-keys, key: digests}}
          startupProbe:
            httpGet: {{path: /health/ready, port: http}}
            timeoutSeconds: 12
            periodSeconds: 5
            failureThreshold: 60
          readinessProbe:
            httpGet: {{path: /health/ready, port: http}}
            timeoutSeconds: 3
            periodSeconds: 3
          livenessProbe:  # patient: noria starts its servers again by itself
            httpGet: {{path: /health/live, port: http}}
            timeoutSeconds: 15
            periodSeconds: 20
            failureThreshold: 3
          lifecycle:
            preStop:  # until no new connections are sent here
              exec: {{command: [sleep, "5"]}}
          resources:
            requests: {{cpu: "{to.processes}", memory: {512 * (to.processes + 1)}Mi}}
            limits: {{memory: {1024 * (to.processes + 1)}Mi}}
          securityContext:
            allowPrivilegeEscalation: false
            readOnlyRootFilesystem: true
            capabilities: {{drop: [ALL]}}
          volumeMounts:
            - {{name: state, mountPath: /app/.noria}}
            - {{name: tmp, mountPath: /tmp}}
      volumes:
        - name: state
          persistentVolumeClaim: {{claimName: {to.name}-state}}
        - name: tmp
          emptyDir: {{}}
"""


def _service(to: Deployment) -> str:
    return f"""\
apiVersion: v1
kind: Service
metadata:
  name: {to.name}
spec:
  selector: {{app: {to.name}}}
  ports:
    - {{name: http, port: 80, targetPort: http}}
"""


def _escaped(path: str) -> str:
    """A path for systemd, where % begins a specifier."""
    return path.replace("%", "%%")


def _quoted(word: str) -> str:
    return f'"{_escaped(word)}"' if any(c.isspace() for c in word) else _escaped(word)
