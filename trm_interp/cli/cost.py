"""The command that counts what another one would take, which it reads by its options."""

import shlex
from collections.abc import Callable
from pathlib import Path

from trm_interp.cli.sweep import read_line
from trm_interp.report.cost import Cost, cost, lines
from trm_interp.report.settings import CostConfig
from trm_interp.runtime.errors import UserError

__all__ = ["lines", "run"]

NOWHERE = Path("cost.csv")  # of commands that need --out, a folder or a table; never written


def run(
    config: CostConfig, tell: Callable[[str], None], progress: Callable[[int, int], None]
) -> Cost:
    """What the command line of `config` would take."""
    try:
        words = shlex.split(config.line)
    except ValueError as error:
        raise UserError(f"{config.line}: {error}") from None
    if words[:1] == ["trm-interp"]:
        words = words[1:]
    out = None if "--out" in words else NOWHERE
    return cost(read_line(words, out), config.tflops, tell)
