"""`noria export` writes files that their own tools accept; what no tool here can tell is checked by its meaning."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from noria.cli import main
from noria.cli.deployment import UID

SYSTEM = 'import noria as nr\nsystem = nr.System("my_shop", [])\n'


@pytest.fixture
def project(tmp_path: Path) -> Path:
    root = tmp_path / "a shop"
    (root / ".noria").mkdir(parents=True)
    (root / "system.py").write_text(SYSTEM)
    (root / "noria.toml").write_text("[serve]\nport = 80\nreplicas = 3\n")
    return root


def written(project: Path, target: str, *words: str) -> dict[str, str]:
    folder = project / "out"
    shutil.rmtree(folder, ignore_errors=True)
    assert main(["export", target, "--project", str(project), "--output", str(folder), *words]) == 0
    return {path.name: path.read_text() for path in folder.iterdir()}


def test_the_unit_is_what_systemd_reads(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = written(project, "systemd")["my-shop.service"]
    lines = dict(line.split("=", 1) for line in text.splitlines() if "=" in line and not line.startswith("#"))
    assert lines["WorkingDirectory"] == str(project)
    assert lines["EnvironmentFile"] == "-/etc/my-shop.env"  # keys may be in the records
    assert lines["KillMode"] == "mixed"
    assert lines["User"] != "root"
    assert lines["AmbientCapabilities"] == "CAP_NET_BIND_SERVICE"  # for port 80
    monkeypatch.setenv("NORIA_SERVE_REPLICAS", "4")
    monkeypatch.setenv("NORIA_SERVE_CERTIFICATE", 'a "100%" \\ path.pem')
    monkeypatch.setenv("NORIA_SERVE_API_KEYS", "0" * 64)
    text = written(project, "systemd")["my-shop.service"]
    assert 'Environment="NORIA_SERVE_REPLICAS=4"' in text
    assert 'Environment="NORIA_SERVE_CERTIFICATE=a \\"100%%\\" \\\\ path.pem"' in text
    assert "0" * 64 not in text
    if shutil.which("systemd-analyze"):
        unit = str(project / "out" / "my-shop.service")
        done = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")


def test_the_image_is_not_roots_and_stops_gently(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("HOST", "10.0.0.5"), ("REPLICAS", "4"), ("API_KEYS", "0" * 64)):
        monkeypatch.setenv(f"NORIA_SERVE_{name}", value)
    files = written(project, "docker")
    steps = [line.split(" ", 1) for line in files["Dockerfile"].splitlines() if line and line[0].isupper()]
    assert ["USER", f"{UID}:{UID}"] in steps
    assert ["STOPSIGNAL", "SIGTERM"] in steps
    assert ["EXPOSE", "8080"] in steps
    assert ["ENV", 'NORIA_SERVE_REPLICAS="4"'] in steps
    assert "10.0.0.5" not in files["Dockerfile"]
    assert "0" * 64 not in files["Dockerfile"]
    assert steps[-1] == ["CMD", '["noria", "serve"]']
    assert ".noria" in files[".dockerignore"].split()


def test_compose_takes_keys_of_the_environment_or_of_the_volume(project: Path) -> None:
    [service] = yaml.safe_load(written(project, "compose")["compose.yaml"])["services"].values()
    assert service["environment"]["NORIA_SERVE_API_KEYS"] == "${NORIA_SERVE_API_KEYS:-}"
    assert service["ports"] == ["80:8080"]
    assert service["volumes"] == ["state:/app/.noria"]
    assert service["user"] == f"{UID}:{UID}"
    assert service["stop_grace_period"] == "45s"


def test_kubernetes_has_probes_volume_secret_and_time_to_stop(project: Path) -> None:
    documents = list(yaml.safe_load_all(written(project, "kubernetes", "--name", "shop")["shop.yaml"]))
    kinds: dict[str, dict[str, Any]] = {document["kind"]: document for document in documents}
    assert set(kinds) == {"PersistentVolumeClaim", "Deployment", "Service"}
    pod = kinds["Deployment"]["spec"]["template"]["spec"]
    [container] = pod["containers"]
    assert pod["securityContext"]["runAsNonRoot"]
    assert pod["terminationGracePeriodSeconds"] > 45
    assert container["env"][0]["valueFrom"]["secretKeyRef"]["name"] == "shop-keys"
    assert container["env"][0]["valueFrom"]["secretKeyRef"]["optional"]
    assert container["readinessProbe"]["httpGet"]["path"] == "/health/ready"
    assert container["livenessProbe"]["httpGet"]["path"] == "/health/live"
    assert container["resources"]["requests"]["cpu"] == "3"
    assert {mount["mountPath"] for mount in container["volumeMounts"]} == {"/app/.noria", "/tmp"}
    assert kinds["Service"]["spec"]["selector"] == kinds["Deployment"]["spec"]["selector"]["matchLabels"]


def test_a_port_more_for_grpc(project: Path) -> None:
    (project / "noria.toml").write_text("[serve]\nport = 8081\ngrpc_port = 443\n")
    assert "AmbientCapabilities=CAP_NET_BIND_SERVICE" in written(project, "systemd")["my-shop.service"]
    dockerfile = written(project, "docker")["Dockerfile"]
    for line in ("EXPOSE 8081", "EXPOSE 8082", "ENV NORIA_SERVE_GRPC_PORT=8082"):
        assert line in dockerfile.splitlines()
    assert "'noria[grpc]'" in dockerfile
    [service] = yaml.safe_load(written(project, "compose")["compose.yaml"])["services"].values()
    assert service["ports"] == ["8081:8081", "443:8082"]
    _, deployment, service = yaml.safe_load_all(written(project, "kubernetes")["my-shop.yaml"])
    [container] = deployment["spec"]["template"]["spec"]["containers"]
    assert {"name": "grpc", "containerPort": 8082} in container["ports"]
    assert {"name": "grpc", "port": 443, "targetPort": "grpc"} in service["spec"]["ports"]


def test_printing_and_mistakes(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--project", str(project)]
    assert main(["export", "compose", *words]) == 0
    assert yaml.safe_load(capsys.readouterr().out)["name"] == "my-shop"
    assert main(["export", "docker", *words, "--output", str(project)]) == 0
    assert main(["export", "docker", *words, "--output", str(project)]) == 1
    assert "--force" in capsys.readouterr().err
    assert main(["export", "docker", *words, "--output", str(project), "--force"]) == 0
    assert main(["export", "docker", *words, "--name", "My Shop"]) == 1
    assert main(["export", "docker", *words, "--output", str(project / "system.py" / "x")]) == 1
    assert main(["export", "docker", "--project", str(project / "nowhere")]) == 1
