"""What the words after `noria deploy` mean."""

from __future__ import annotations

from argparse import Namespace

import polars as pl

from noria.cli.project import load_system
from noria.core import ConfigError, allowed, duration
from noria.monitoring.confidence import checked
from noria.monitoring.rewards import check_reward
from noria.pipelines import Source, Stream
from noria.pipelines.dtypes import polars_schema
from noria.registry import Judging, Reward, Variant, parse_label
from noria.storage import Workspace


def share(text: str, field: str) -> float:
    """A share of the entities, in percent: `10%`, `10`, `0.5%`.

    Raises:
        ConfigError: it is none, or could be meant as a fraction.
    """
    if "@" in text:
        raise ConfigError(
            f"{text!r} is a version, no share", hint=f"as in: noria deploy {text} --canary 10%", field=field
        )
    number = text.strip().removesuffix("%")
    try:
        percent = float(number)
    except ValueError:
        percent = -1.0
    if not 0.0 <= percent <= 100.0:
        raise ConfigError(f"{text!r} is no share", hint="write percent, from 0% to 100%: 10%", field=field)
    if 0.0 < percent < 1.0 and not text.strip().endswith("%"):
        raise ConfigError(
            f"{text!r} could be {percent:g}% or {percent * 100:g}%", hint="write the percent sign", field=field
        )
    return percent / 100.0


def steps(options: Namespace) -> tuple[tuple[float, ...], int]:
    """The shares of a canary and the microseconds of each; none without `--steps`."""
    if options.steps is None:
        if options.every is not None:
            raise ConfigError("--every goes with --steps", hint="as in: --steps 1,10,50,100 --every 10m", field="every")
        return (), 0
    if options.canary is None:
        raise ConfigError("--steps are those of a canary", hint="add --canary", field="steps")
    if options.canary:
        raise ConfigError("--canary has a share, and --steps has others", hint="leave one of them out", field="canary")
    if options.every is None:
        raise ConfigError("--steps needs --every", hint="how long each lasts at least: --every 10m", field="every")
    return tuple(share(one, "steps") for one in options.steps.split(",")), duration(options.every)


def variants(text: str) -> tuple[list[Variant], Variant]:
    """Those that are tried, and the control, of `control=3,treatment=4:50%`.

    The control is the one of that name, or else the first one. Those without a share have equal parts of the rest.

    Raises:
        ConfigError: it isn't written like that, or the shares don't add up.
    """
    example = "as in: --ab control=3,treatment=4:50%"
    found: list[tuple[str, int, float | None]] = []
    for part in text.split(","):
        name, _, rest = part.strip().partition("=")
        version, colon, given = rest.partition(":")
        if not name or not version.isdigit():
            raise ConfigError(f"{part!r} is no variant", hint=f"write NAME=VERSION[:SHARE], {example}", field="ab")
        found.append((name, int(version), share(given, "ab") if colon else None))
    if len(found) < 2:
        raise ConfigError("an experiment compares at least two variants", hint=example, field="ab")
    open_ones = sum(given is None for _, _, given in found)
    left = 1.0 - sum(given or 0.0 for _, _, given in found)
    if left < -1e-9 or (not open_ones and left > 1e-9):
        raise ConfigError(f"the variants' shares add up to {1.0 - left:.4%}", hint="make it 100%", field="ab")
    made = [
        Variant(name, version, max(left, 0.0) / open_ones if given is None else given) for name, version, given in found
    ]
    control = next((one for one in made if one.name == "control"), made[0])
    return [one for one in made if one is not control], control


def named_version(label: str) -> tuple[str, int]:
    """The model and the version of `late@4`.

    Raises:
        ConfigError: it names no version.
    """
    name, number = parse_label(label)
    if number is None or not str(number).isdigit():
        raise ConfigError(f"{label!r} names no version", hint=f"write {name}@NUMBER; see `noria models list`")
    return name, int(number)


def judging(options: Namespace, workspace: Workspace) -> Judging:
    """When a variant is worse."""
    usual = Judging()
    reward = _reward(options, workspace)
    for name in ("reward_by", "within", "max_loss"):
        if reward is None and getattr(options, name) is not None:
            word = name.replace("_", "-")
            raise ConfigError(f"--{word} goes with --reward", hint="name the events: --reward SOURCE", field=word)
    return Judging(
        alpha=usual.alpha if options.alpha is None else checked(_number(options.alpha, "alpha")),
        errors=usual.errors if options.max_errors is None else share(options.max_errors, "max-errors"),
        latency=usual.latency if options.max_latency is None else _number(options.max_latency, "max-latency", 1.0),
        reward=reward,
        reward_loss=0.0 if options.max_loss is None else _number(options.max_loss, "max-loss", 0.0),
    )


def _number(text: str, field: str, least: float = 0.0) -> float:
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not least <= number < 1e12:
        raise ConfigError(f"--{field} {text!r} is no number from {least:g}", hint="as in: noria deploy --help")
    return number


def _reward(options: Namespace, workspace: Workspace) -> Reward | None:
    if options.reward is None:
        return None
    source, _, value = options.reward.partition(":")
    parts = {part.name: part for part in load_system(options.project).components if isinstance(part, (Source, Stream))}
    if source not in parts:
        raise ConfigError(
            f"there is no source or stream {source!r} with rewards", hint=allowed(parts, source), field="reward"
        )
    part = parts[source]
    within = Reward(source).within if options.within is None else duration(options.within)
    made = Reward(source, value, options.reward_by or "id", within, part.time or "")
    table = workspace.table(source)
    there = table.version() is not None
    check_reward(made, table.scan().collect_schema() if there else pl.Schema(polars_schema(part.schema)))
    return made
