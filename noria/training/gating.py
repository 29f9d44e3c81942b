"""Promotion past gates: a version is judged, and what the gates say stands in the audit trail either way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from noria.core import ConfigError, GateError
from noria.registry import CHAMPION, Deployments, ModelRegistry, ModelVersion
from noria.registry.evidence import Evidence, Gate, Needs, Verdict, refusal
from noria.registry.gates import Limit, gate_from_dict
from noria.registry.states import check_move
from noria.storage import Workspace
from noria.training.evidence import TestRows, evidence
from noria.training.metrics import METRICS, check_metrics


@dataclass(frozen=True)
class Passed:
    """What gates said.

    Attributes:
        refusal: why they stay closed; empty if they don't.
        verdicts: as plain JSON data.
        champion: with which the version was compared (0: there was none); None where nothing was asked.
    """

    refusal: str
    verdicts: list[dict[str, Any]]
    champion: int | None


def check_gates(gates: Sequence[Gate], metrics: Sequence[str] = ()) -> None:
    """Refuse gates that can't be judged by anybody.

    Raises:
        ConfigError: something that is no gate, or an unknown metric.
    """
    for gate in gates:
        if not isinstance(gate, Gate):
            raise ConfigError(
                f"{gate!r} is no gate", hint='as in gates=[nr.better("roc_auc", by=0.002)]', field="gates"
            )
        if not isinstance(gate.needs, Needs):
            raise ConfigError(
                f"the gate {type(gate).__name__} needs {gate.needs!r}, which is no Needs",
                hint='as in needs = Needs(metrics=("roc_auc",))',
                field="gates",
            )
        if gate.needs.metrics:
            check_metrics(gate.needs.metrics)
        if isinstance(gate, Limit) and METRICS[gate.metric].greater_is_better == (gate.least is None):
            wrong, right = ("at_least", "at_most") if gate.most is None else ("at_most", "at_least")
            better = "more" if METRICS[gate.metric].greater_is_better else "less"
            raise ConfigError(
                f"{wrong}({gate.metric!r}, {gate.bound:g}) lets the bad ones through: {better} {gate.metric} is better",
                hint=f"nr.{right}({gate.metric!r}, {gate.bound:g})",
                field="gates",
            )


def judge_gates(
    workspace: Workspace, gates: Sequence[Gate], candidate: ModelVersion, rows: TestRows | None = None
) -> tuple[list[Verdict], int]:
    """Each gate's verdict, and the champion that it was compared with (0: none).

    Args:
        workspace: the stores.
        gates: what is asked.
        candidate: who wants to be the champion.
        rows: what it was made of; by default it is made again.
    """
    registry = ModelRegistry.of(workspace)
    number = registry.models().get(candidate.name, {}).get(CHAMPION, 0)
    if not gates:
        return [], number
    champion = registry.get(candidate.name, number) if number not in (0, candidate.version) else None
    needs = [gate.needs for gate in gates]
    wanted = Needs(
        tuple(dict.fromkeys(name for need in needs for name in need.metrics if name in METRICS)),
        tuple(dict.fromkeys(name for need in needs for name in need.columns)),
        any(need.latency for need in needs),
    )
    ours, theirs = evidence(workspace, wanted, candidate, champion, rows)
    return [_verdict(gate, ours, theirs) for gate in gates], number


def _verdict(gate: Gate, ours: Evidence, theirs: Evidence | None) -> Verdict:
    """What a gate says; one that raises, or says anything but yes, no or nothing, opens nothing."""
    name = type(gate).__name__
    try:
        said = gate.judge(ours, theirs)
    except Exception as error:  # whatever a user's function raises
        return Verdict(name, None, f"its judge raised {type(error).__name__}: {error}")
    if not isinstance(said, Verdict):
        return Verdict(name, None, f"its judge gave {said!r}, not a Verdict")
    if said.passed is not None and not isinstance(said.passed, (bool, np.bool_)):
        return Verdict(str(said.gate), None, f"passed={said.passed!r} is neither True nor False: {said.why}")
    return Verdict(str(said.gate), None if said.passed is None else bool(said.passed), str(said.why))


def admit(workspace: Workspace, gates: Sequence[Gate], candidate: ModelVersion, rows: TestRows) -> Passed:
    """Judge a version that has just been trained; what keeps it out is written down with it."""
    if not gates:
        return Passed("", [], None)
    verdicts, champion = judge_gates(workspace, gates, candidate, rows)
    passed = Passed(refusal(verdicts), [one.to_dict() for one in verdicts], champion)
    if passed.refusal:
        ModelRegistry.of(workspace).refuse(candidate.name, candidate.version, passed.verdicts)
    return passed


def promote(
    workspace: Workspace,
    candidate: ModelVersion,
    gates: Sequence[Gate],
    *,
    force: bool = False,
    why: str = "",
    who: str | None = None,
) -> list[Verdict]:
    """Make a version the champion if it passes; gives the verdicts, which stand in the audit trail either way.

    One that is the champion already stays it, and isn't judged.

    Args:
        workspace: the stores.
        candidate: the version.
        gates: what it has to pass.
        force: also if it doesn't pass, and while another version is tried.
        why: the reason, for the audit trail.
        who: who does it; by default this process's user.

    Raises:
        GateError: it didn't pass.
        ConfigError: it is forced, and nobody says why.
        ConflictError: another version is tried, or became the champion meanwhile; or the version was set aside.
        IntegrityError: one of its files is damaged or gone.
    """
    if force and not why.strip():
        raise ConfigError("a forced promotion needs its reason in the audit trail", hint="add --why", field="why")
    registry = ModelRegistry.of(workspace)
    state = registry.state(candidate.name, candidate.version)
    if not force:
        Deployments.of(workspace).check_idle(candidate.name)
    if state == CHAMPION:
        return []
    check_move(candidate.name, candidate.version, state, "champion")
    registry.files(candidate)  # whose files are damaged can't answer, whatever its gates say
    verdicts, champion = judge_gates(workspace, gates, candidate)
    plain = [one.to_dict() for one in verdicts]
    closed = refusal(verdicts)
    if closed and not force:
        registry.refuse(candidate.name, candidate.version, plain, why=why, who=who)
        raise GateError(
            f"{candidate.label} doesn't pass its gates: {closed}",
            hint=f"noria models promote {candidate.label} --force --why REASON promotes it all the same",
        )
    registry.promote(candidate.name, candidate.version, why=why, who=who, before=champion, verdicts=plain)
    return verdicts


def kept_gates(version: ModelVersion) -> list[Gate]:
    """The gates that were declared when the version was trained.

    Raises:
        ConfigError: one of them is a class that noria doesn't have.
    """
    return [gate_from_dict(state) for state in version.parameters.get("gates", ())]
