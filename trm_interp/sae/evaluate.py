"""`trm-interp sae-eval`: all measures of an SAE on held-out puzzles."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.table import Table

from trm_interp.cli.tables import show
from trm_interp.runtime.files import plain, write_json
from trm_interp.runtime.locks import locked_beside, locked_folder
from trm_interp.runtime.outputs import require_replaceable
from trm_interp.sae.config import EvalSAEConfig
from trm_interp.sae.measures import measures
from trm_interp.sae.opened import Progress, opening, quiet
from trm_interp.sae.saved import MEASURES
from trm_interp.sae.splice import splice, tick_of


@dataclass(frozen=True)
class Measures:
    """What every file of measures has, by which it is recognised."""

    sae: str
    site: str
    fvu: dict[str, Any]
    by_outcome: dict[str, Any]


def evaluate_sae(
    config: EvalSAEConfig, tell: Callable[[str], None] = print, progress: Progress = quiet
) -> dict[str, Any]:
    """Measures with `loop` beside them where asked; also written to `measures_file(config)`."""
    out = measures_file(config)
    held = locked_beside(config.out) if config.out else locked_folder(config.sae)
    with opening(config, tell) as opened, held:
        if config.tick is not None and config.loop:
            tick_of(opened, config.tick)  # before anything is measured
        require_replaceable(out, Measures, "sae-eval", config.overwrite)
        found = measures(opened, config.seed, progress)
        mean_row = torch.tensor(found.pop("mean_row"))
        if config.loop:
            found["loop"] = splice(
                opened,
                mean_row,
                config.ckpt,
                config.tick,
                config.batch_size,
                config.seed,
                config.force_mismatch,
            )
        write_json(out, plain(found))
    return found


def measures_file(config: EvalSAEConfig) -> Path:
    return config.out or config.sae / MEASURES


def report(found: dict[str, Any]) -> None:
    """Tables for people."""
    seen = f" ({found['n_trained_on']} of them trained on)" if found["n_trained_on"] else ""
    table = Table(
        title=f"{found['sae']}: {found['arch']}, {found['d_in']} -> {found['d_sae']}, "
        f"{found['site']}, {found['n_puzzles']} puzzles{seen}"
    )
    for heading in ("puzzles", "n", "FVU [95 %]", "L0"):
        table.add_column(heading, justify="right")
    for name, row in found["by_outcome"].items():
        table.add_row(name, str(row["n"]), _interval(row["fvu"], 4), f"{row['l0']:.1f}")
    show(table)
    print(
        f"dead {found['dead']:.1%}, dense {found['dense']:.1%}, nearest decoder row at cosine "
        f"{found['decoder']['nearest_median']:.2f} (median), twins {found['decoder']['twins']:.1%}"
    )
    for name, looped in found.get("loop", {}).items():
        if name == "mismatch":
            continue
        every = name == "every_tick"
        when = "last supervision step" if every else f"its own step, {looped['read_at'] + 1}"
        table = Table(title=f"in the loop, {name.replace('_', ' ')}: {when}")
        for heading in ("state at the site", "exact", "cells right", "loss, nats per cell"):
            table.add_column(heading, justify="right")
        for run, row in looped["runs"].items():
            cells = [_interval(row[what], 3) for what in ("exact", "cells", "loss")]
            table.add_row("as it is" if run == "clean" else run, *cells)
        show(table)
        print(
            f"loss recovered {_interval(looped['recovered_over_zero'], 3)} over zero, "
            f"{_interval(looped['recovered_over_mean'], 3)} over the mean row"
        )
        if not every:
            last = {run: row["by_step"]["loss"][-1] for run, row in looped["runs"].items()}
            losses = ", ".join(f"{run} {loss:.4f}" for run, loss in last.items())
            print(f"what is left of it in the loss of the last step: {losses}")
    if wrong := found["mismatch"] or found.get("loop", {}).get("mismatch"):
        print(f"mismatch: {wrong}")


def _interval(number: dict[str, float], digits: int) -> str:
    if math.isnan(number["value"]):
        return "not defined (ablation costs nothing that can be told from 0)"
    return f"{number['value']:.{digits}f} [{number['low']:.{digits}f}, {number['high']:.{digits}f}]"
