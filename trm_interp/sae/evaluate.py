"""`trm-interp sae-eval`: all measures of an SAE on held-out puzzles."""

import math
from collections.abc import Callable
from typing import Any

import torch
from rich.table import Table

from trm_interp.files import plain, write_json
from trm_interp.sae.config import EvalSAEConfig
from trm_interp.sae.measures import measures
from trm_interp.sae.opened import Progress, opening, quiet
from trm_interp.sae.splice import splice
from trm_interp.tables import show

MEASURES = "measures.json"


def evaluate_sae(
    config: EvalSAEConfig, tell: Callable[[str], None] = print, progress: Progress = quiet
) -> dict[str, Any]:
    """Measures with `loop` beside them where asked; also written into the SAE's folder."""
    with opening(config, tell) as opened:
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
    write_json(config.sae / MEASURES, plain(found))
    return found


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
        table = Table(title=f"in the loop, {name.replace('_', ' ')}: last supervision step")
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
    if wrong := found["mismatch"] or found.get("loop", {}).get("mismatch"):
        print(f"mismatch: {wrong}")


def _interval(number: dict[str, float], digits: int) -> str:
    if math.isnan(number["value"]):
        return "not defined (ablation costs nothing)"
    return f"{number['value']:.{digits}f} [{number['low']:.{digits}f}, {number['high']:.{digits}f}]"
