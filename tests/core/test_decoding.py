"""Threads that are the first to decode a class, all at once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

MODULE = """
from __future__ import annotations
from dataclasses import dataclass, field
from typing import Any
import msgspec
from noria.core.decoding import decodable

@dataclass(frozen=True)
class Blob:
    digest: str
    size: int

@decodable
@dataclass(frozen=True)
class Version:
    name: str
    files: dict[str, Blob] = field(default_factory=dict)
    spec: dict[str, Any] = field(default_factory=dict)
"""
THREADS = """
import importlib, sys, threading
sys.setswitchinterval(1e-6)
sys.path.insert(0, sys.argv[1])
import msgspec
for number in range(40):
    module = importlib.import_module(f"classes{number}")
    start = threading.Barrier(12)
    def work():
        start.wait()
        made = msgspec.convert({"name": "a", "files": {"f": {"digest": "d", "size": 1}}}, module.Version)
        assert made.files["f"].size == 1
    threads = [threading.Thread(target=work) for _ in range(12)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
"""


def test_threads_that_decode_first_at_once_do_not_end_the_process(tmp_path: Path) -> None:
    for number in range(40):
        (tmp_path / f"classes{number}.py").write_text(MODULE)
    done = subprocess.run(
        [sys.executable, "-c", THREADS, str(tmp_path)], capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr
