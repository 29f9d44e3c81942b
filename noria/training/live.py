"""Whose features are kept up: those of every version that answers, or may answer at once."""

from __future__ import annotations

from noria.features import FeatureStore, OnlineSpec
from noria.registry import Deployments, ModelRegistry
from noria.storage import Workspace


def hold_live(workspace: Workspace) -> None:
    """Have the online values kept up that live versions read: the champion, the one before it, and what is tried.

    A promotion, a rollback or a deployment changes which these are; a run asks anew.
    """
    deployments, catalog = Deployments.of(workspace), FeatureStore(workspace).catalog
    for model in ModelRegistry.of(workspace).models():
        specs = [OnlineSpec.from_dict(group) for v in deployments.live(model) for group in v.spec.get("groups", ())]
        catalog.hold_all(f"{model}/live", [spec.place for spec in specs])
