"""What was found, as tables."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import median

from benchmarks.measure import markdown
from benchmarks.serving.rounds import Found


def speed(title: str, found: Mapping[str, Found], rate: float, note: str) -> str:
    """Requests a second and latencies of everybody."""
    header = (
        "server", "requests/s", "noria's ÷ its own", "p50 ms", "p99 ms", "alone: requests/s", "noria's ÷ its own", "p50 ms",
        "p99 ms", f"open, {rate:g}/s: p50 ms", "p99 ms", "not 200, or lost",
    )  # fmt: skip
    rows = [_row(name, one, len(header)) for name, one in found.items()]
    note += " Requests/s with 32 connections; alone: with one."
    return markdown(title, header, rows, note)


def _row(name: str, one: Found, columns: int) -> list[str]:
    if not one.loads:
        return [name, _why(one), *["-"] * (columns - 2)]
    cells = [f"{name} ({one.failed} rounds {_why(one)})" if one.failed else name]
    for load in ("many", "one"):
        ratio = f"{median(one.faster[load]):.2f}" if load in one.faster else "1.00"
        cells += [
            f"{one.middle(load, 'rate'):,.0f}",
            ratio,
            f"{one.middle(load, 'p50'):.2f}",
            f"{one.middle(load, 'p99'):.2f}",
        ]
    return [*cells, f"{one.middle('open', 'p50'):.2f}", f"{one.middle('open', 'p99'):.2f}", str(one.errors)]


def startup(found: Mapping[str, Found], rounds: int) -> str:
    """How long everybody takes to the first answer, and how much memory."""
    rows = [
        (name, f"{median(one.starts):.2f}", f"{median(one.pss):,.0f}") if one.starts else (name, _why(one), "-")
        for name, one in found.items()
    ]
    note = (
        "On core 0 alone. From the start to the first right answer, with compiled modules in place; the proportional set "
        f"size of all processes after the loads. Medians of {rounds} starts."
    )
    return markdown("Start and memory of the same servers", ("server", "seconds", "PSS, MiB"), rows, note)


def _why(one: Found) -> str:
    return f"not measured: {' '.join(one.why.split())}".replace("|", "/")
