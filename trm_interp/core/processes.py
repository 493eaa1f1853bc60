"""What torchrun tells each of its processes, read from the environment. Needs no torch."""

import os
from collections.abc import Mapping

from trm_interp.runtime.errors import UserError

ADVICE = "start with torchrun, or unset RANK, LOCAL_RANK and WORLD_SIZE"


def rank_and_size(env: Mapping[str, str] | None = None) -> tuple[int, int]:
    """Which process this is, of how many; 0 of 1 without torchrun.

    UserError where the variables are left over from something else, and make no sense together.

    >>> rank_and_size({"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "a", "MASTER_PORT": "1"})
    (1, 2)
    """
    env = os.environ if env is None else env
    size, rank = _number("WORLD_SIZE", 1, env), _number("RANK", 0, env)
    if size < 1 or rank >= size:
        given = f"WORLD_SIZE={size}" if "WORLD_SIZE" in env else "no WORLD_SIZE"
        raise UserError(f"the environment has RANK={rank} and {given}: {ADVICE}")
    needed = ("RANK", "MASTER_ADDR", "MASTER_PORT") if size > 1 else ()
    if missing := [name for name in needed if not env.get(name)]:
        raise UserError(f"the environment has WORLD_SIZE={size} but no {missing[0]}: {ADVICE}")
    return rank, size


def local_rank(env: Mapping[str, str] | None = None) -> int:
    """Which process of this machine: the index of its GPU."""
    return _number("LOCAL_RANK", 0, os.environ if env is None else env)


def _number(name: str, default: int, env: Mapping[str, str]) -> int:
    text = env.get(name, "").strip() or str(default)
    if not text.isdecimal():
        raise UserError(f"the environment has {name}={text!r}, not a number: {ADVICE}")
    return int(text)
