"""Names of hook points and a choice among them, without the library of hooks, which loads long."""

from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any, TypeVar

P = TypeVar("P")
Names = str | Sequence[str] | Callable[[str], bool] | None  # of hook points; None: all


def select(points: dict[str, P], names: Names) -> dict[str, P]:
    """Those hook points with these names: one, several, the ones that a function accepts, or all.

    ValueError for a name that is not there, or a function that accepts none.
    """
    if names is None:
        return points
    if callable(names):
        if accepted := {name: point for name, point in points.items() if names(name)}:
            return accepted
        raise ValueError(f"the filter accepts none of {len(points)} hook points: {_some(points)}")
    asked = [names] if isinstance(names, str) else list(names)
    for name in asked:
        if name not in points:
            close = get_close_matches(str(name), points, n=3)
            raise ValueError(
                f"no hook point {name!r}; there are {len(points)}: "
                + (f"the nearest are {', '.join(close)}" if close else _some(points))
            )
    return {name: points[name] for name in asked}


def _some(points: Mapping[str, Any]) -> str:
    return ", ".join([*list(points)[:3], "..."])
