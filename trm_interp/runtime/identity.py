"""What makes two runs the same, compared field by field; differences are named in one line."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trm_interp.runtime.errors import UserError
from trm_interp.runtime.files import plain
from trm_interp.runtime.limits import shown

MOST_NAMED = 3  # differing fields that a message spells out


def differing(there: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """The fields in which two identities differ, with both values; empty where none does.

    Fields of nested mappings have dotted names. Values are compared as JSON keeps them, so that a
    tuple equals the list that was read from a file. At most three fields are spelled out.

    >>> differing({"seed": 1, "steps": [0, 1]}, {"seed": 2, "steps": (0, 1)})
    'seed (1 there, 2 now)'
    >>> differing({"model": {"width": 8, "depth": 2}}, {"model": {"width": 16, "depth": 2}})
    'model.width (8 there, 16 now)'
    >>> differing(dict.fromkeys("abcde", 1), {})
    'a (1 there, None now), b (1 there, None now), c (1 there, None now) and 2 more'
    """
    old, new = _flat(plain(there)), _flat(plain(now))
    names = [name for name in {**old, **new} if old.get(name) != new.get(name)]
    spelled_out = ", ".join(
        f"{name} ({shown(repr(old.get(name)))} there, {shown(repr(new.get(name)))} now)"
        for name in names[:MOST_NAMED]
    )
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    return spelled_out + more


def require_same(
    place: Path,
    there: Mapping[str, Any],
    now: Mapping[str, Any],
    advice: str = "give the same settings, or --overwrite to start over",
    error: type[UserError] = UserError,
    fixed: Mapping[str, str] | None = None,
) -> None:
    """Raise `error`, which names the differing fields, unless `place` is of the same run.

    `fixed`: why fields that one would like to change cannot be, by name.
    """
    if fields := differing(there, now):
        reasons = [
            f"; {reason}"
            for name, reason in (fixed or {}).items()
            if differing({name: there.get(name)}, {name: now.get(name)})
        ]
        raise error(f"{place} is of another run: {fields}{''.join(reasons)}: {advice}")


def _flat(fields: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as dotted names; an empty mapping stays a value."""
    flat: dict[str, Any] = {}
    for name, value in fields.items():
        if isinstance(value, dict) and value:
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat
