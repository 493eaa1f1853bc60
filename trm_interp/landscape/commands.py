"""One command a part: settings in, one call, where the results are and what they say."""

import importlib
import json
from typing import NamedTuple

import typer

from trm_interp.landscape.config import SettlingConfig, StabilityConfig
from trm_interp.options import AsJson, command, say


class Part(NamedTuple):
    """`trm_interp.landscape.<module>.run(config, tell, progress)` and its command."""

    name: str
    config: type
    module: str
    doc: str
    unit: str  # what progress counts
    examples: str


PARTS: list[Part] = [
    Part(
        "settling",
        SettlingConfig,
        "settling",
        "Do runs come to rest, cycle or wander, and do failures escape in long rollouts?",
        "puzzle steps",
        """
        trm-interp settling --out results/settling
        trm-interp settling --ckpt artifacts/trm-sudoku9 --long 256 --out results/settling9
        """,
    ),
    Part(
        "stability",
        StabilityConfig,
        "stability",
        "Lyapunov exponents by outcome, and the fixed points near where runs end.",
        "puzzle steps",
        """
        trm-interp stability --out results/stability
        trm-interp stability --k 4 --sample 24 --fixed 0 --out results/exponents
        """,
    ),
]


def register(app: typer.Typer) -> None:
    for part in PARTS:
        _register(app, part)


def _register(app: typer.Typer, part: Part) -> None:
    def body(config: object, json_: AsJson = False) -> None:
        from trm_interp.progress import progress

        module = importlib.import_module(f"trm_interp.landscape.{part.module}")
        with progress(part.name, part.unit) as update:
            summary = module.run(config, say, update)
        if json_:
            print(json.dumps(summary))
        else:
            for line in module.lines(summary):
                print(line)
        say(f"wrote {config.out}")  # type: ignore[attr-defined]

    body.__doc__ = part.doc
    command(app, part.name, part.config, part.examples)(body)
