"""The words of `noria deploy`, `noria deployment`, `noria rollback` and `noria audit`."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

_DEPLOY = """\
late@4 --canary 10%                          4 answers a tenth of the entities beside the champion
late@4 --canary --steps 1,10,50,100 --every 10m
                                             ever more of them, and in the end it is the champion
late@4 --shadow                              4 is asked too, and its answers go to nobody
late --ab control=3,treatment=4:50%          an experiment
late@4                                       4 is the champion at once

What is worse than the control for certain (in errors or latency, or in the reward) goes back by itself while
`noria serve` runs: see `noria deployment show MODEL`.
"""


def add_deployments(commands: Any, project: argparse.ArgumentParser, add: Callable[..., Any]) -> None:
    """Add them to the command line; `add` makes a command of a name, a function and a help text."""
    plain = argparse.ArgumentParser(add_help=False)
    plain.add_argument("--json", action="store_true", help="print it as JSON")
    reason = argparse.ArgumentParser(add_help=False)
    reason.add_argument("--why", default="", help="the reason, for the audit trail")
    _add_deploy(add(commands, "deploy", "deployments:deploy", "try a version, or promote it", project, plain, reason))
    what = "list, show and steer what is tried"
    deployment = add(commands, "deployment", "deployments:listing", what, project)
    deployment.set_defaults(json=False)
    actions = deployment.add_subparsers(title="actions", metavar="ACTION")
    add(actions, "list", "deployments:listing", "list every model's present or last deployment", project, plain)
    show = add(actions, "show", "deployments:show", "show its variants, and what is known of them", project, plain)
    show.add_argument("model", metavar="MODEL")
    for name, what in (
        ("pause", "take no further steps"),
        ("resume", "take steps again"),
        ("abort", "give every request to the champion again"),
        ("finish", "end it, and make the winner the champion"),
    ):
        action = add(actions, name, f"deployments:{name}", what, project, plain, reason)
        action.add_argument("model", metavar="MODEL")
        if name == "finish":
            action.add_argument("--winner", metavar="VARIANT", help="who has won, where several could have")
            action.add_argument("--force", action="store_true", help="even if the champion has changed meanwhile")
    what = "take back what is tried of a model, or else its champion"
    rollback = add(commands, "rollback", "deployments:rollback", what, project, plain, reason)
    rollback.add_argument("model", metavar="MODEL")
    audit = add(commands, "audit", "audit:audit", "show who did what to models, when and why", project, plain)
    audit.add_argument("model", nargs="?", metavar="MODEL[@VERSION]", help="only this one (default: all)")
    audit.add_argument("--who", metavar="NAME", help="only what this person or program did")
    audit.add_argument("--action", metavar="WORD", help="only such: promote, rollback, refuse, register, canary, …")
    audit.add_argument("--since", metavar="TIME", help="only from then on: 2h, 7d, or 2026-01-31T12:00:00Z")
    audit.add_argument("--until", metavar="TIME", help="only before that")
    audit.add_argument("--limit", type=int, default=20, metavar="N", help="the newest N (default: 20)")
    audit.add_argument("--verify", action="store_true", help="compute the chain of entries anew, and say what is wrong")


def _share(text: str) -> str:
    """Refuse the model that was meant to come first, before its lack is."""
    if "@" in text:
        raise argparse.ArgumentTypeError(f"{text!r} is a version, no share: noria deploy {text} --canary 10%")
    return text


def _add_deploy(deploy: argparse.ArgumentParser) -> None:
    deploy.epilog = _DEPLOY
    deploy.formatter_class = argparse.RawDescriptionHelpFormatter
    deploy.add_argument("label", metavar="MODEL[@VERSION]")
    kinds = deploy.add_mutually_exclusive_group()
    kinds.add_argument(
        "--canary", nargs="?", const="", type=_share, metavar="SHARE", help="on a share of the entities: 10%%"
    )
    kinds.add_argument("--shadow", action="store_true", help="on the side: its answers go to nobody")
    kinds.add_argument("--ab", metavar="VARIANTS", help="an experiment: control=3,treatment=4:50%%")
    deploy.add_argument("--steps", metavar="SHARES", help="of a canary, one after another, in percent: 1,10,50,100")
    deploy.add_argument("--every", metavar="DURATION", help="how long each step lasts at least: 10m")
    reward = "events that show how good an answer was: their number, or the sum of a column"
    deploy.add_argument("--reward", metavar="SOURCE[:COLUMN]", help=reward)
    by = "how they are joined: by the answer's id in `request_id` (default), or a column with the entity"
    deploy.add_argument("--reward-by", metavar="id|COLUMN", help=by)
    deploy.add_argument("--within", metavar="DURATION", help="how long after the answer events count (default: 1h)")
    deploy.add_argument("--max-errors", metavar="SHARE", help="errors that are tolerated beyond the control's: 0.1%%")
    deploy.add_argument("--max-latency", metavar="TIMES", help="how many times the control's latency: 1.5")
    deploy.add_argument("--max-loss", metavar="X", help="by how much the mean reward may be smaller: 0")
    alpha = "the chance to find a variant worse that isn't, over all looks (default: 0.05)"
    deploy.add_argument("--alpha", metavar="CHANCE", help=alpha)
