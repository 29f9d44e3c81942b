"""Become another program that dies when its parent dies: `python launch.py PARENT_PID PROGRAM ARGUMENT…`.

The kernel keeps the promise (PR_SET_PDEATHSIG), so it holds even when the parent is killed with SIGKILL. A program
of its own does this, rather than code between fork and exec in the parent, because a parent with threads may hold
any lock at that moment. The file stands alone: it is run by its path and imports nothing of noria.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main(parent: int, program: list[str]) -> None:
    """Tie this process to its parent, then replace it by the program."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before the kernel knew of our wish
        sys.exit(1)
    try:
        os.execvp(program[0], program)
    except OSError as error:
        sys.stderr.write(f"can't run {program[0]!r}: {error.strerror}\n")
        sys.exit(127)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
