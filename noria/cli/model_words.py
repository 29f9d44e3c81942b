"""The words of `noria models` that list, show, compare and decide, and of `noria reproduce`."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any


def add_versions(actions: Any, project: argparse.ArgumentParser, add: Callable[..., Any]) -> None:
    """Add what tells of versions; `add` makes a command of a name, a function and a help text."""
    plain = argparse.ArgumentParser(add_help=False)
    plain.add_argument("--json", action="store_true", help="print it as JSON")
    add(actions, "list", "versions:listing", "list every model's versions", project, plain)
    what = "show a version: metrics, gates, model, origin and history"
    show = add(actions, "show", "versions:show", what, project, plain)
    show.add_argument("label", metavar="MODEL[@VERSION]")
    diff = add(actions, "diff", "versions:diff", "show what makes two versions different", project, plain)
    diff.add_argument("one", metavar="MODEL@VERSION")
    diff.add_argument("other", metavar="[MODEL@]VERSION")
    what = "show the files that a version came from, or the models that came of a source"
    lineage = add(actions, "lineage", "lineage:lineage", what, project, plain)
    lineage.add_argument("label", nargs="?", metavar="MODEL[@VERSION]")
    lineage.add_argument("--source", metavar="NAME", help="which versions this source (or stream) fed")
    lineage.add_argument("--file", metavar="NAME", help="which versions this file fed: its name, or its digest")
    lineage.add_argument("--all", action="store_true", help="every file, not the newest 20 alone")


def add_decisions(actions: Any, project: argparse.ArgumentParser, add: Callable[..., Any]) -> None:
    """Add what decides about versions."""
    plain = argparse.ArgumentParser(add_help=False)
    plain.add_argument("--json", action="store_true", help="print it as JSON")
    reason = argparse.ArgumentParser(add_help=False)
    reason.add_argument("--why", default="", help="the reason, for the audit trail")
    what = "make a version the champion, if it passes its gates"
    promote = add(actions, "promote", "decisions:promote", what, project, plain, reason)
    promote.add_argument("label", metavar="MODEL@VERSION")
    promote.add_argument(
        "--force", action="store_true", help="even if it doesn't pass, or another one is tried; needs --why"
    )
    what = "take back what is tried of a model, or else its champion: noria rollback"
    rollback = add(actions, "rollback", "deployments:rollback", what, project, plain, reason)
    rollback.add_argument("model", metavar="MODEL")
    alias = add(actions, "alias", "decisions:alias", "name a version: challenger, or any name", project, reason)
    alias.add_argument("label", metavar="MODEL@VERSION")
    alias.add_argument("alias", metavar="NAME")
    unalias = add(actions, "unalias", "decisions:unalias", "take a name away", project, reason)
    unalias.add_argument("name", metavar="MODEL")
    unalias.add_argument("alias", metavar="NAME")
    for name, what in (
        ("retire", "say that a version has had its time; its files are kept"),
        ("reject", "say that a version is unfit to answer"),
        ("restore", "take back that it was rejected or retired"),
    ):
        add(actions, name, f"decisions:{name}", what, project, reason).add_argument("label", metavar="MODEL@VERSION")


def add_gc(actions: Any, project: argparse.ArgumentParser, add: Callable[..., Any]) -> None:
    """Add `noria models gc`."""
    gc = add(actions, "gc", "registry_gc:gc", "remove files that no version refers to", project)
    gc.add_argument("--dry-run", action="store_true", help="only say what would be removed")
    gc.add_argument(
        "--older-than",
        default="1d",
        metavar="DURATION",
        help="leave younger ones: a run may be about to need them (1d)",
    )
    gc.add_argument("--empty", action="store_true", help="even if the registry has no version at all")
    gc.add_argument("--json", action="store_true", help="print the counts as JSON")


def add_reproduce(commands: Any, project: argparse.ArgumentParser, add: Callable[..., Any]) -> None:
    """Add `noria reproduce`."""
    what = "make a model version again from the registry, and compare it bit for bit"
    made = add(commands, "reproduce", "reproduce:reproduce", what, project)
    made.add_argument("label", metavar="MODEL[@VERSION]")
    made.add_argument("--exact", action="store_true", help="fail unless every prediction has the same bits")
    made.add_argument("--json", action="store_true", help="print it as JSON")
