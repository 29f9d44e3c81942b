"""RunDirectory: where one supervisor keeps its logs and sockets, and the lock that keeps a second one out."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import tempfile
from pathlib import Path

from noria.core.errors import BusyError, ConfigError

_PREFIX = "noria-gateway-"
_LONGEST = 48
"""Characters of the place of that directory: a socket's path may have 107, to which HAProxy adds a temporary name."""


class RunDirectory:
    """A claimed directory; the claim ends with `release` or, whatever happens, with this process.

    The path of a Unix socket has to be short, so for a long `path` the sockets are in a directory elsewhere. What an
    earlier run left behind is removed, its logs are kept once more as `NAME.log.1`.

    Args:
        path: the directory; made when missing.
        lock: the open lock of who has the directory now and hands it over; it is ours by name only after `publish`.

    Raises:
        BusyError: when another process has it.
        ConfigError: when it can't be made or written.
    """

    def __init__(self, path: str | Path, lock: int | None = None) -> None:
        self.path = Path(path).absolute()
        self.logs = self.path / "logs"
        if lock is not None:  # the claim goes with the open file, so it is ours when its first owner has closed it
            self.lock = lock
            self.sockets = _private_directory(self.path)
            return
        try:
            self.logs.mkdir(parents=True, exist_ok=True)
            self.lock = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise ConfigError(
                f"can't write in {str(self.path)!r}: {error.strerror}", hint="choose another run directory"
            ) from error
        self._claim()
        self._remove_leftovers()
        self.sockets = _private_directory(self.path)
        self.publish()
        for log in self.logs.glob("*.log"):
            log.replace(log.with_suffix(".log.1"))

    def log(self, name: str) -> Path:
        """The log file of a process."""
        return self.logs / f"{name}.log"

    def publish(self) -> None:
        """Let others find our sockets."""
        os.ftruncate(self.lock, 0)
        os.pwrite(self.lock, f"{os.getpid()}\n{self.sockets}\n".encode(), 0)

    def release(self) -> None:
        """Remove the sockets and let others have the directory."""
        shutil.rmtree(self.sockets, ignore_errors=True)
        os.close(self.lock)

    def _claim(self) -> None:
        try:
            fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            owner = self._record()[0]
            os.close(self.lock)
            raise BusyError(
                f"process {owner} already runs a gateway in {str(self.path)!r}",
                hint="stop it, or choose another run directory",
            ) from error

    def _remove_leftovers(self) -> None:
        sockets = Path(self._record()[1])
        if _is_ours(sockets):
            shutil.rmtree(sockets, ignore_errors=True)

    def _record(self) -> tuple[str, str]:
        owner, sockets, *_ = (*os.pread(self.lock, 4096, 0).decode(errors="replace").splitlines(), "", "")
        return owner or "(unknown)", sockets


def sockets_of(path: str | Path) -> Path | None:
    """Where the gateway that has claimed this directory keeps its sockets; None when none ever has.

    It may be of one that has been killed: nobody listens on its sockets then.
    """
    try:
        _, sockets, *_ = (Path(path) / "lock").read_text().splitlines()
    except (OSError, ValueError):
        return None
    return Path(sockets) if _is_ours(Path(sockets)) else None


def _is_ours(sockets: Path) -> bool:
    return sockets.name.startswith(_PREFIX) and sockets.is_dir() and sockets.stat().st_uid == os.getuid()


def _private_directory(beside: Path) -> Path:
    """A new directory of mode 0700 whose path HAProxy can use: in the first of these places that is short enough."""
    places = (str(beside), tempfile.gettempdir(), "/tmp")
    place = next(p for p in places if p == "/tmp" or (len(p) <= _LONGEST and re.fullmatch(r"[\w/.+,@=-]+", p)))
    return Path(tempfile.mkdtemp(prefix=_PREFIX, dir=place))
