"""JSON files that lie: a strategy for what a careless or hostile hand makes of a good one."""

import copy
import json
import os
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st

# examples of one property: few in every run, hundreds with TRM_INTERP_FUZZ=500
settings.register_profile("fuzz", max_examples=int(os.environ.get("TRM_INTERP_FUZZ", "12")))
NASTY = [None, True, -1, 0, 1, 2, 10**9, 10**15, 10**30, -(2**63), 1.5, float("nan"), float("inf")]
NASTY += ["", "x", "../x", "/etc/passwd", "float64", "object", "[/b]", "\x00", "0" * 300]
NASTY += [[], {}, [None], [[0]], {"a": 1}, list(range(300))]


def places(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where something stands in a JSON value, the whole included.

    >>> places({"a": [1]})
    [(), ('a',), ('a', 0)]
    """
    paths = [at]
    if isinstance(value, dict):
        paths += [place for key in value for place in places(value[key], (*at, key))]
    elif isinstance(value, list):
        paths += [place for i in range(len(value)) for place in places(value[i], (*at, i))]
    return paths


def put(value: Any, at: tuple[Any, ...], new: Any) -> Any:
    """A copy with `new` in that place, or without the place where `new` is `...`."""
    if not at:
        return None if new is ... else new
    whole = copy.deepcopy(value)
    inner = whole
    for key in at[:-1]:
        inner = inner[key]
    if new is ...:
        del inner[at[-1]]
    else:
        inner[at[-1]] = new
    return whole


@st.composite
def lies(draw: st.DrawFn, good: Any, most: int = 2) -> bytes:
    """The bytes of a file: a value or two replaced or gone, sometimes cut off or with odd bytes."""
    value = good
    for _ in range(draw(st.integers(1, most))):
        place = draw(st.sampled_from(places(value)))
        new = draw(st.sampled_from([..., *NASTY]) | st.integers() | st.text(max_size=8))
        value = put(value, place, new)
    text = json.dumps(value).encode()
    damage = draw(st.sampled_from(["none"] * 6 + ["cut", "bytes"]))
    at = draw(st.integers(0, max(len(text) - 1, 0)))
    if damage == "cut":
        return text[:at]
    return text[:at] + b"\xff\x00" + text[at:] if damage == "bytes" else text
