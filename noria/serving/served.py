"""A model on a server: which of its versions are loaded, and who of them answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

from noria.registry import Deployment
from noria.serving.servable import Servable
from noria.serving.trial import Trial


@dataclass(frozen=True)
class Served:
    """What a server knows of one model; replaced as a whole when anything changes.

    Attributes:
        name: the model's.
        versions: what is loaded, by number.
        champion: the number of the version that answers when nothing is tried.
        trial: what is tried now.
    """

    name: str
    versions: Mapping[int, Servable]
    champion: int
    trial: Trial | None = None

    @cached_property
    def control(self) -> Servable:
        """Who answers what no variant answers."""
        return self.versions[self.champion] if self.trial is None else self.trial.control

    @property
    def deployment(self) -> Deployment | None:
        """What is tried now."""
        return None if self.trial is None else self.trial.deployment

    def changed(
        self,
        versions: Mapping[int, Servable],
        champion: int,
        deployment: Deployment | None,
        new_trial: Callable[[Deployment, Mapping[int, Servable]], Trial],
    ) -> Served:
        """The model with other versions or another deployment; one that goes on keeps its totals."""
        if deployment is None or deployment.over or deployment.control.version not in versions:
            return Served(self.name, versions, champion)
        trial = self.trial
        if trial is None or trial.deployment.number != deployment.number:
            return Served(self.name, versions, champion, new_trial(deployment, versions))
        trial.update(deployment, versions)
        return Served(self.name, versions, champion, trial)
