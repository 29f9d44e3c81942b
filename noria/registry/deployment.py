"""Deployment: which versions of a model answer, which share of the entities each of them has, and for how long.

A canary is a version that is tried on a part of the entities, in steps if wanted; an A/B experiment has named variants
that are compared; a shadow is asked like the others, but its answers go to nobody. Whatever it is, what is compared
stands in the deployment itself and doesn't change while it runs. Without one, or when it is over, the champion answers.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import Any, Literal

import msgspec

from noria.core import ConfigError, IntegrityError
from noria.core.decoding import RESTORE, decodable, read_back
from noria.storage import Record

Kind = Literal["canary", "ab", "shadow"]
State = Literal["running", "paused", "finished", "aborted"]

LATEST = "deployments"
"""The collection with each model's present or last deployment."""
CHAMPION = "champion"
"""The alias of the version that answers requests, and the variant of a deployment's present champion."""


@dataclass(frozen=True)
class Variant:
    """One of the versions that answer.

    Attributes:
        name: as it stands in metrics and with predictions.
        version: the model's version.
        share: of the entities, from 0 to 1.
    """

    name: str
    version: int
    share: float


@dataclass(frozen=True)
class Reward:
    """What says how good an answer was: events that follow it.

    Attributes:
        source: the source whose table has the events.
        value: the column to be summed for each prediction; the number of events where it is empty.
        by: `id` where events name the prediction's id in a column `request_id`, else the column with the entity.
        within: microseconds after the prediction in which an event counts.
        time: the column with the events' times; the table's only one where it is empty.
    """

    source: str
    value: str = ""
    by: str = "id"
    within: int = 3_600_000_000
    time: str = ""


@dataclass(frozen=True)
class Judging:
    """What makes a variant worse than the control.

    Attributes:
        alpha: the chance to find a variant worse that isn't, however often it is looked at.
        errors: how much higher its share of errors may be.
        latency: how many times its typical latency (the geometric mean) may be the control's.
        reward: what is to be no smaller; none where only errors and latency count.
        reward_loss: by how much the mean reward may be smaller.
    """

    alpha: float = 0.05
    errors: float = 0.001
    latency: float = 1.5
    reward: Reward | None = None
    reward_loss: float = 0.0


@decodable
@dataclass(frozen=True)
class Deployment:
    """What is tried, and how far it is.

    Attributes:
        model: the model's name.
        number: one, two, … of this model.
        variants: who answers: what is tried first, the control last; the shares add up to 1.
        shadow: the version that is asked on the side.
        steps: the shares that a canary has one after another.
        every: microseconds for each step.
        step: the present one, from 0.
        stepped: when the present step began, microseconds.
        why: what led to the present state.
    """

    model: str
    number: int
    kind: Kind
    variants: tuple[Variant, ...]
    started: int
    shadow: int | None = None
    steps: tuple[float, ...] = ()
    every: int = 0
    step: int = 0
    stepped: int = 0
    judging: Judging = Judging()
    state: State = "running"
    why: str = ""

    @property
    def label(self) -> str:
        """`late/2`: the second deployment of the model."""
        return f"{self.model}/{self.number}"

    @property
    def over(self) -> bool:
        """Whether the champion alone answers again."""
        return self.state in ("finished", "aborted")

    @property
    def control(self) -> Variant:
        """What the others are compared with."""
        return self.variants[-1]

    @property
    def tried(self) -> tuple[Variant, ...]:
        """What is compared with the control; the shadow too, with no share."""
        shadow = () if self.shadow is None else (Variant("shadow", self.shadow, 0.0),)
        return (*self.variants[:-1], *shadow)

    @property
    def versions(self) -> frozenset[int]:
        """The versions that a server has to load."""
        return frozenset(variant.version for variant in (*self.variants, *self.tried))

    @property
    def doing(self) -> str:
        """`canary late/2 is running`."""
        return f"{self.kind} {self.label} is {self.state}"

    def shares(self) -> str:
        """Who answers whom, in words: `canary 4 answers 10%, champion 3 answers 90%`."""
        parts = [f"{one.name} {one.version} answers {one.share * 100:.4g}%" for one in self.variants]
        if self.shadow is not None:
            parts.append(f"{self.shadow} is asked on the side")
        return ", ".join(parts)

    def variant_of(self, entity: str) -> Variant:
        """Who answers for an entity: always the same one, on every server, while the shares stay as they are.

        An entity's place in [0, 1) is a hash of it that is salted with the deployment, so that two experiments have
        nothing to do with each other. Variants take the places from 0 on, the control what is left: a canary that
        grows keeps the entities that it has.

        >>> trial = Deployment("late", 1, "canary", (Variant("canary", 4, 0.5), Variant("champion", 3, 0.5)), 0)
        >>> [trial.variant_of(user).name for user in ("ann", "bob", "eve")]
        ['champion', 'champion', 'canary']
        """
        at = place(self.label, entity)
        for variant in self.variants[:-1]:
            at -= variant.share
            if at < 0:
                return variant
        return self.control

    def twin_of(self, entity: str) -> str:
        """The tried variant for whose sake the control answers an entity by itself; none for most entities.

        The more requests a variant has, the more of them are answered together, so a canary's latency can't be compared
        with that of all others. Each tried variant has a twin: as many entities, whose requests the control answers
        apart from its others. They follow the tried variants on [0, 1), as far as there is room.

        >>> trial = Deployment("late", 1, "canary", (Variant("canary", 4, 0.3), Variant("champion", 3, 0.7)), 0)
        >>> [trial.twin_of(user) for user in ("ann", "bob", "eve")]
        ['', 'canary', '']
        """
        at = place(self.label, entity) - sum(variant.share for variant in self.variants[:-1])
        if at < 0:
            return ""
        for variant in self.variants[:-1]:
            at -= variant.share
            if at < 0:
                return variant.name
        return ""

    def with_share(self, share: float) -> Deployment:
        """The same canary with another share."""
        canary, control = self.variants
        return replace(self, variants=(replace(canary, share=share), replace(control, share=1.0 - share)))

    def advanced(self, now: int) -> Deployment | None:
        """The deployment at its next step, or finished after the last one; None while that isn't due."""
        if self.state != "running" or not self.steps or now < self.stepped + self.every:
            return None
        if self.step + 1 == len(self.steps):
            return replace(self, state="finished", why="every step went well")
        moved = replace(self, step=self.step + 1, stepped=now)
        return moved.with_share(self.steps[moved.step])

    def to_dict(self) -> dict[str, Any]:
        """The deployment as plain JSON data."""
        plain: dict[str, Any] = msgspec.to_builtins(self)
        return plain

    @staticmethod
    def of_record(record: Record) -> Deployment:
        """The deployment that is kept in a record.

        Raises:
            IntegrityError: it isn't what was written.
        """
        made = read_back(record.data, Deployment, f"the deployment of {record.key}")
        if not (made.variants and made.tried) or made.model != record.key.partition("/")[0]:
            raise IntegrityError(
                f"the record of the deployment of {record.key} is damaged: nothing of it is tried", hint=RESTORE
            )
        return made


def place(salt: str, entity: str) -> float:
    """Where an entity stands in [0, 1): 53 bits of BLAKE2b (RFC 7693), keyed with the salt."""
    digest = blake2b(entity.encode(), digest_size=8, key=salt.encode()[:64]).digest()
    return (int.from_bytes(digest, "little") >> 11) / 9_007_199_254_740_992.0


def check_variants(variants: tuple[Variant, ...]) -> None:
    """Refuse variants that can't be told apart or don't share the entities.

    Raises:
        ConfigError: with the first thing that is wrong.
    """
    names = [variant.name for variant in variants]
    if len(set(names)) < len(names):
        raise ConfigError(f"two variants have one name: {', '.join(names)}", hint="give each a name of its own")
    for variant in variants:
        if not 0.0 <= variant.share <= 1.0:
            raise ConfigError(
                f"variant {variant.name!r} has a share of {variant.share:.6g}", hint="allowed: 0 to 1 (0% to 100%)"
            )
    total = sum(variant.share for variant in variants)
    if abs(total - 1.0) > 1e-9:
        raise ConfigError(f"the variants' shares add up to {total:.4%}", hint="they must add up to 100%")
