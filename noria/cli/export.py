"""`noria export`: what runs this project under systemd, Docker, compose or Kubernetes."""

from __future__ import annotations

import os
import pwd
import re
import sys
from argparse import Namespace
from collections.abc import Callable, Mapping
from pathlib import Path

from noria.cli.deployment import Deployment, compose, docker, systemd
from noria.cli.kubernetes import kubernetes
from noria.cli.project import load_system
from noria.cli.show import out, say
from noria.core import ConfigError, Settings
from noria.pipelines import Stream
from noria.system import System

TARGETS: Mapping[str, Callable[[Deployment], dict[str, str]]] = {
    "systemd": systemd,
    "docker": docker,
    "compose": compose,
    "kubernetes": kubernetes,
}


def export(options: Namespace) -> int:
    """Print the files, or write them into a folder."""
    settings = Settings.load(options.project)
    described = deployment(load_system(options.project), settings, options.name)
    files = TARGETS[options.target](described)
    if options.output is None:
        for name, text in files.items():
            if len(files) > 1:
                out(f"# {name}:")
            out(text)
        return 0
    _write(Path(options.output), files, force=options.force)
    return 0


def deployment(system: System, settings: Settings, name: str | None = None) -> Deployment:
    """What there is to run, of this project on this machine.

    Raises:
        ConfigError: the name can't be one of a service.
    """
    name = name or re.sub(r"[^a-z0-9]+", "-", system.name.lower()).strip("-")[:50].strip("-")
    if not re.fullmatch(r"[a-z]([a-z0-9-]{0,48}[a-z0-9])?", name):
        raise ConfigError(
            f"{name!r} can't be the name of a service",
            hint="give --name: small letters, digits and '-', at most 50, a letter first",
            field="name",
        )
    return Deployment(
        name=name,
        root=settings.root,
        python=sys.executable,
        user=_owner(settings.root),
        version=f"{sys.version_info.major}.{sys.version_info.minor}",
        host=settings.serve.host,
        port=settings.serve.port,
        grpc_port=settings.serve.grpc_port,
        processes=max(1, settings.serve.replicas),
        stream=any(isinstance(part, Stream) for part in system.components),
        variables={
            name: value
            for name, value in sorted(os.environ.items())
            if name.startswith("NORIA_SERVE_") and name != "NORIA_SERVE_API_KEYS"
        },
    )


def _owner(folder: Path) -> str:
    """Whom the folder belongs to; nobody shall serve as root."""
    try:
        name = pwd.getpwuid(folder.stat().st_uid).pw_name
    except KeyError:
        return "noria"
    return "noria" if name == "root" else name


def _write(folder: Path, files: Mapping[str, str], *, force: bool) -> None:
    there = [name for name in files if (folder / name).exists()]
    if there and not force:
        raise ConfigError(
            f"{', '.join(there)} {'is' if len(there) == 1 else 'are'} in {folder} already",
            hint="write into another folder, or give --force to replace",
            field="output",
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            (folder / name).write_text(text, "utf-8")
            say(f"wrote {folder / name}")
    except OSError as error:
        raise ConfigError(f"can't write into {folder}: {error.strerror}", field="output") from error
