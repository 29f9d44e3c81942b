"""Every Python block of the README and the docs runs; those of a file share one namespace and one empty folder.
So does every example.

A block that can't run says why: `<!-- not run: reason -->` on the line before it.
"""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted(ROOT.glob("examples/*.py"))
FILES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
BLOCK = re.compile(r"(?P<skip><!-- not run: .+ -->\n)?^```python\n(?P<code>.*?)^```", re.MULTILINE | re.DOTALL)


def blocks(file: Path) -> list[tuple[int, str]]:
    text = file.read_text("utf-8")
    return [
        (text[: found.start("code")].count("\n"), found["code"]) for found in BLOCK.finditer(text) if not found["skip"]
    ]


@pytest.mark.parametrize("file", [f for f in FILES if blocks(f)], ids=lambda file: str(file.relative_to(ROOT)))
def test_the_blocks_run(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, object] = {"__name__": "__docs__"}
    for line, code in blocks(file):
        # Empty lines before the code give errors the line numbers of the document.
        exec(compile("\n" * line + code, str(file), "exec"), namespace)


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.name)
def test_the_examples_run(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert file.read_text("utf-8").startswith("# %% [markdown]\n")  # what editors open as a notebook
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(file))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_links_inside_the_project_lead_somewhere(file: Path) -> None:
    targets = re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", file.read_text("utf-8"))
    missing = [t for t in targets if "://" not in t and not (file.parent / t).exists()]
    assert missing == []
