"""`noria parity`: whether servers read what training sets have."""

from __future__ import annotations

from argparse import Namespace
from typing import Any

from noria.cli.predictions import recorded
from noria.cli.show import json_out, out, table
from noria.core import NotFoundError, Settings, to_iso
from noria.features.parity import TOLERANCE, Example, Parity
from noria.features.reads import MAX_ROWS
from noria.features.recomputation import Asked, check_parity
from noria.serving.prediction_files import Prediction
from noria.storage import Workspace

_LIMIT = 10_000


def parity(options: Namespace) -> int:
    """Compare recorded features with what training sets have; 1 if any is different."""
    found = recorded(options, default=_LIMIT)
    reading = [one for one in found if one.groups]
    if not reading:
        raise NotFoundError(
            f"{len(found)} predictions are recorded, and none of them read features",
            hint='ask by ids, {"entities": […]}, of a model with feature groups; with instances nothing is looked up',
        )
    with Workspace.open(Settings.load(options.project)) as workspace:
        result = check_parity(_asked(reading), workspace)
    if options.json:
        json_out(_plain(result, reading))
    else:
        _tell(result, reading)
    return 1 if result.total("different") else 0


def _asked(predictions: list[Prediction]) -> list[Asked]:
    return [Asked(one.id, one.at, int(one.latency * 1_000_000) + 1, read) for one in predictions for read in one.groups]


def _tell(result: Parity, predictions: list[Prediction]) -> None:
    first, last = (to_iso(one.at)[:19] for one in (predictions[0], predictions[-1]))
    asked = f"{len(predictions):,} prediction{'' if len(predictions) == 1 else 's'} from {first} to {last}"
    out(f"{asked}: {result.vectors:,} entities, computed again")
    unknown = bool(result.total("unknown"))
    rows = [
        (name, one.equal, one.late, one.different, *((one.unknown,) if unknown else ()))
        for name, one in sorted(result.features.items())
    ]
    header = ("feature", "equal", "late", "different", *(("unknown",) if unknown else ()))
    out(table(header, rows, header[1:]))
    if close := result.total("close"):
        out(f"{close:,} of those equal are so within {TOLERANCE:g} of themselves, not to the last bit")
    if late := result.total("late"):
        out(f"late: {late:,} values were right when they were made; rows that came afterwards made them others")
    for why, count in sorted(result.reasons.items()):
        out(f"unknown: {count:,} values differ now: {why}")
    if left := sum(read.rows - len(read.ids) for one in predictions for read in one.groups):
        out(f"{left:,} entities of large requests weren't recorded: of each request the first {MAX_ROWS} are")
    different = result.total("different")
    for example in result.examples:
        if example.outcome == "different":
            out(_in_words(example))
    out(
        f"{different:,} values are different, and nothing explains it"
        if different
        else f"no value is different: {result.total('equal'):,} are equal"
    )


def _in_words(example: Example) -> str:
    as_of = "an unknown instant" if example.as_of is None else to_iso(example.as_of)
    return (
        f"  {example.feature} of {example.entity!r} as of {as_of}: online {example.online!r}, offline "
        f"{example.offline!r}; see `noria predictions show {example.prediction}`"
    )


def _plain(result: Parity, predictions: list[Prediction]) -> dict[str, Any]:
    return {
        "predictions": len(predictions),
        "since": to_iso(predictions[0].at),
        "until": to_iso(predictions[-1].at),
        "vectors": result.vectors,
        "tolerance": TOLERANCE,
        "features": [one for _, one in sorted(result.features.items())],
        "unknown": dict(result.reasons),
        "examples": [
            {
                "feature": one.feature,
                "outcome": one.outcome,
                "prediction": one.prediction,
                "entity": one.entity,
                "read_at": to_iso(one.read_at),
                "as_of": None if one.as_of is None else to_iso(one.as_of),
                "online": one.online,
                "offline": one.offline,
            }
            for one in result.examples
        ],
    }
