"""One command a part: settings in, one call, where the results are and what they say."""

import importlib
import json
from typing import NamedTuple

import typer

from trm_interp.landscape.config import BasinsConfig, LensConfig, ProbesConfig
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
        "basins",
        BasinsConfig,
        "basins",
        "Where runs of a puzzle end that start elsewhere: answers, states, solve maps.",
        "starts",
        """
        trm-interp basins --out runs/basins
        trm-interp basins --out runs/basins --index 3,17 --target both --per-position
        trm-interp basins --out runs/basins --slice 61 --starts 4000 --resume
        """,
    ),
    Part(
        "lens",
        LensConfig,
        "lens",
        "The output head on z_H and z_L at every tick: when cells are decided, how often revised.",
        "puzzles",
        """
        trm-interp lens runs/states --out runs/lens
        """,
    ),
    Part(
        "probes",
        ProbesConfig,
        "probes",
        "Linear probes for candidates and rule violations, with controls, on unseen puzzles.",
        "fits",
        """
        trm-interp probes runs/states --out runs/probes
        trm-interp probes runs/states --out runs/probes --cycles 0-5,47 --held-out 0.5
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
