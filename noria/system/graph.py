"""The component graph: which component reads which, and in what order they can run. Pure functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from noria.core import Component, GraphError, allowed


def index(components: Sequence[Component]) -> dict[str, Component]:
    """The components by name.

    Raises:
        GraphError: two share a name, or one depends on a name that no component has.
    """
    by_name: dict[str, Component] = {}
    for component in components:
        if not isinstance(component, Component):
            raise GraphError(
                f"{component!r} is not a component",
                hint="a component has name, kind, description, dependencies and to_dict()",
            )
        if component.name in by_name:
            raise GraphError(f"two components are called {component.name!r}", hint="give one of them another name")
        by_name[component.name] = component
    for component in components:
        for name in component.dependencies:
            if name not in by_name:
                raise GraphError(
                    f"{component.kind} {component.name!r} depends on {name!r}, which is not part of the system "
                    f"({component.name} -> {name})",
                    hint=f"add it to the list of components; {allowed(by_name, name)}",
                )
    return by_name


def levels(dependencies: Mapping[str, Sequence[str]]) -> list[list[str]]:
    """The names in groups: each depends only on names of earlier groups, so that a group may run in parallel.

    Raises:
        GraphError: for a cycle; the message shows its path.

    >>> levels({"model": ["taste", "ratings"], "taste": ["ratings"], "ratings": []})
    [['ratings'], ['taste'], ['model']]
    """
    left = {name: set(needed) for name, needed in dependencies.items()}
    order: list[list[str]] = []
    while left:
        ready = [name for name, needed in left.items() if not needed & left.keys()]
        if not ready:
            raise GraphError(
                f"the components depend on each other in a circle: {' -> '.join(_cycle(left))}",
                hint="remove one of these dependencies",
            )
        order.append(ready)
        for name in ready:
            del left[name]
    return order


def _cycle(left: Mapping[str, set[str]]) -> list[str]:
    path = [min(left)]
    while True:
        following = min(left[path[-1]] & left.keys())
        if following in path:
            return [*path[path.index(following) :], following]
        path.append(following)
