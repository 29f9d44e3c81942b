"""`noria deploy`, `noria deployment` and `noria rollback`."""

from __future__ import annotations

from argparse import Namespace

from noria.cli.decisions import promoted, tell
from noria.cli.deploy_options import judging, named_version, share, steps, variants
from noria.cli.deployment_report import told
from noria.cli.show import json_out, out, table
from noria.core import ConfigError, Settings, to_iso
from noria.monitoring.report import Report, report
from noria.monitoring.rollout import ENOUGH
from noria.registry import Deployment, Deployments, ModelRegistry, Variant
from noria.storage import Workspace


def deploy(options: Namespace) -> int:
    """Begin a canary, an experiment or a shadow; or promote at once."""
    with Workspace.open(Settings.load(options.project)) as workspace:
        if options.canary is None and options.ab is None and not options.shadow:
            return _promote(options, workspace)
        made = _start(options, workspace)
    if options.json:
        json_out({**made.to_dict(), "label": made.label})
        return 0
    out(f"{made.label}: {made.shares()}")
    out(f"  judged by {_limits(made)}; what is worse for certain goes back by itself while `noria serve` runs")
    if made.steps:
        shares = ", ".join(_percent(one) for one in made.steps)
        out(f"  steps: {shares}, each for {options.every} and {ENOUGH} requests of the canary at least")
    end = f"noria deployment finish {made.model}, or abort"
    out(f"  look: noria deployment show {made.model}    end: {end}")
    return 0


def _promote(options: Namespace, workspace: Workspace) -> int:
    given = [name for name in ("steps", "every", "reward", "max_errors", "max_latency") if getattr(options, name)]
    if given:
        raise ConfigError(
            f"--{given[0].replace('_', '-')} goes with something that is tried",
            hint="add --canary 10%, --shadow or --ab control=3,treatment=4:50%",
        )
    model, version = named_version(options.label)
    verdicts = promoted(workspace, options.project, ModelRegistry.of(workspace).get(model, version), why=options.why)
    if options.json:
        json_out({"model": model, "version": version, "promoted": True})
        return 0
    tell(verdicts)
    out(f"{model}@{version} is the champion, at once and for everybody; running servers take it within a few seconds")
    out(f"  to try one first: noria deploy {model}@VERSION --canary 10%    back: noria rollback {model}")
    return 0


def _start(options: Namespace, workspace: Workspace) -> Deployment:
    deployments = Deployments.of(workspace)
    shares, every = steps(options)
    limits = judging(options, workspace)
    if options.ab is not None:
        if "@" in options.label:
            model = options.label.partition("@")[0]
            raise ConfigError("the versions of an experiment stand in --ab", hint=f"write noria deploy {model} --ab …")
        tried, control = variants(options.ab)
        return deployments.start(options.label, tried, kind="ab", control=control, judging=limits, why=options.why)
    model, version = named_version(options.label)
    if options.shadow:
        if limits.reward is not None:
            raise ConfigError(
                "a shadow's answers go to nobody, so that nothing follows them", hint="leave --reward out"
            )
        return deployments.start(model, [], kind="shadow", shadow=version, judging=limits, why=options.why)
    if not options.canary and not shares:
        raise ConfigError(
            "a canary needs a share of the entities",
            hint="--canary 10%, or --canary --steps 1,10,50,100 --every 10m",
            field="canary",
        )
    canary = Variant("canary", version, shares[0] if shares else share(options.canary, "canary"))
    return deployments.start(model, [canary], steps=shares, every=every, judging=limits, why=options.why)


def listing(options: Namespace) -> int:
    """List every model's present or last deployment."""
    with Workspace.open(Settings.load(options.project)) as workspace:
        found = Deployments.of(workspace).all()
    if options.json:
        json_out([{**one.to_dict(), "label": one.label} for one in found])
    elif not found:
        out("nothing is tried, and nothing was: noria deploy MODEL@VERSION --canary 10%")
    else:
        rows = [(one.label, one.kind, one.state, to_iso(one.started)[:19], one.shares(), one.why) for one in found]
        out(table(("deployment", "kind", "state", "started (UTC)", "who answers", "why"), rows))
    return 0


def show(options: Namespace) -> int:
    """Show a model's present or last deployment, with what is known."""
    with Workspace.open(Settings.load(options.project)) as workspace:
        deployments = Deployments.of(workspace)
        found = deployments.get(options.model) or deployments.running(options.model)
        made: Report = report(workspace, found)
    if options.json:
        json_out(made.plain())
    else:
        for line in told(made):
            out(line)
    return 0


def pause(options: Namespace) -> int:
    """Take no further steps."""
    return _change(options, "pause", "takes no further steps; the shares stay as they are")


def resume(options: Namespace) -> int:
    """Take steps again."""
    return _change(options, "resume", "goes on; its present step begins anew")


def abort(options: Namespace) -> int:
    """Give every request to the champion again."""
    return _change(options, "abort", "is over; the champion alone answers within a few seconds")


def _change(options: Namespace, action: str, what: str) -> int:
    with Workspace.open(Settings.load(options.project)) as workspace:
        deployments = Deployments.of(workspace)
        changes = {"pause": deployments.pause, "resume": deployments.resume, "abort": deployments.abort}
        changed = changes[action](options.model, why=options.why)
    if options.json:
        json_out({**changed.to_dict(), "label": changed.label})
    else:
        out(f"{changed.kind} {changed.label} {what}")
    return 0


def finish(options: Namespace) -> int:
    """End a deployment, with a winner."""
    with Workspace.open(Settings.load(options.project)) as workspace:
        changed = Deployments.of(workspace).finish(
            options.model, winner=options.winner, force=options.force, why=options.why
        )
        champion = ModelRegistry.of(workspace).get(options.model)
    if options.json:
        json_out({**changed.to_dict(), "label": changed.label, "champion": champion.version})
    else:
        out(f"{changed.kind} {changed.label} is over: {changed.why}; {champion.label} is the champion")
    return 0


def rollback(options: Namespace) -> int:
    """Take back what is tried, or else the champion."""
    with Workspace.open(Settings.load(options.project)) as workspace:
        deployments = Deployments.of(workspace)
        tried = deployments.tried(options.model)
        version = deployments.rollback(options.model, why=options.why)
    if options.json:
        json_out({"aborted": tried.label if tried else None, "champion": version.version})
    elif tried is not None:
        out(f"{tried.kind} {tried.label} is taken back; {version.label} alone answers within a few seconds")
    else:
        out(f"{version.label} is the champion again; running servers take it within a few seconds")
    return 0


def _percent(value: float) -> str:
    return f"{value * 100:.4g}%"


def _limits(deployment: Deployment) -> str:
    limits = deployment.judging
    parts = [
        f"errors (at most {limits.errors * 100:.3g} points more)",
        f"latency (at most {limits.latency:.3g} times)",
    ]
    if limits.reward is not None:
        what = f"the sum of {limits.reward.value}" if limits.reward.value else "the number of events"
        parts.append(f"reward ({what} in {limits.reward.source})")
    return ", ".join(parts)
