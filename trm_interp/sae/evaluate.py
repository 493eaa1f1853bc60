"""`trm-interp sae-eval`: all measures of an SAE on held-out puzzles."""

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from rich.table import Table

from trm_interp.analysis.estimates import Estimate
from trm_interp.runtime.file_run import FileRun
from trm_interp.runtime.limits import counted
from trm_interp.runtime.locks import locked_folder
from trm_interp.runtime.outputs import own_json
from trm_interp.runtime.runs import quiet
from trm_interp.sae.applied import Progress, applying
from trm_interp.sae.baselines import baselines_of, compared, description_bits
from trm_interp.sae.measures import measures
from trm_interp.sae.results import EVERY_TICK, Baseline, SAEMeasures, Spliced
from trm_interp.sae.saved import MEASURES
from trm_interp.sae.settings import EvalSAEConfig
from trm_interp.sae.splice import check_spliceable, splice, tick_of

COMMAND = "sae-eval"


@dataclass(frozen=True)
class Recognised:
    """What every file of measures has, by which it is recognised."""

    sae: str
    site: str
    fvu: dict[str, Any]
    by_outcome: dict[str, Any]


def run(
    config: EvalSAEConfig, tell: Callable[[str], None] = print, progress: Progress = quiet
) -> SAEMeasures:
    """Measures, with `loop` if asked for; also written to `measures_file(config)`."""
    own = own_json(Recognised, COMMAND)
    inputs = {"sae": config.sae, "store": config.store, "ckpt": config.ckpt}
    with applying(config, tell) as applied:
        if config.loop:  # before anything is measured
            check_spliceable(applied)
            if config.tick is not None:
                tick_of(applied, config.tick)
        with (
            nullcontext() if config.out else locked_folder(config.sae),  # it may be trained again
            FileRun(
                measures_file(config),
                COMMAND,
                own,
                overwrite=config.overwrite,
                inputs=inputs,
                tell=tell,
                progress=progress,
            ) as output,
        ):
            result, usage = measures(applied, config.seed, output.advance)
            fitted = baselines_of(config, applied, usage, output.tell)
            if fitted:
                others = compared(applied, fitted, usage, config.seed)
                bits = description_bits(usage.density)
                result = replace(result, bits=bits, baselines=others)
            if config.loop:
                means = torch.from_numpy(usage.site_means).float().to(applied.device)
                codes = {name: code.reconstruct for name, code in fitted.items()}
                result = replace(result, loop=splice(applied, means, config, codes))
            output.write_json(result.to_json())
    tell(f"wrote {measures_file(config)}")
    return result


def measures_file(config: EvalSAEConfig) -> Path:
    return config.out or config.sae / MEASURES


def lines(result: SAEMeasures) -> list[Table | str]:
    """Tables for people, and what stands between them."""
    parts: list[Table | str] = [_fit_table(result)]
    if result.baselines:
        parts.append(_baselines_table(result, result.baselines))
    if result.view:
        parts.append(f"rows: {result.view}")
    cosines = result.decoder
    parts.append(
        f"dead {result.dead:.1%}, dense {result.dense:.1%}, nearest decoder row at cosine "
        f"{cosines.nearest_median:.2f} (median), twins {cosines.twins:.1%}"
    )
    for name, spliced in result.loop.spliced.items() if result.loop else ():
        parts += _spliced_lines(name, spliced)
    if mismatch := result.mismatch or (result.loop and result.loop.mismatch):
        parts.append(f"mismatch: {mismatch}")
    return parts


def _fit_table(result: SAEMeasures) -> Table:
    seen = f" ({result.n_trained_on} of them trained on)" if result.n_trained_on else ""
    table = Table(
        title=f"{result.sae}: {result.arch}, {result.d_in} -> {result.d_sae}, "
        f"{result.site}, {counted(result.n_puzzles, 'puzzle')}{seen}"
    )
    for heading in ("puzzles", "n", "FVU [95 %]", "L0"):
        table.add_column(heading, justify="right")
    for name, fit in result.by_outcome.items():
        table.add_row(name, str(fit.n), _interval(fit.fvu, 4), f"{fit.l0:.1f}")
    for site, at in (result.by_site or {}).items():
        table.add_row(f"at {site}", str(result.n_puzzles), _interval(at.fvu, 4), f"{at.l0:.1f}")
    return table


def _baselines_table(result: SAEMeasures, baselines: Mapping[str, Baseline]) -> Table:
    table = Table(
        title="beside other codes, fitted to the SAE's training puzzles",
        caption="FVU of the SAE less that of the code: above 0 where the code is better",
    )
    for heading in ("code", "numbers a row", "bits a row", "FVU [95 %]", "SAE less code [95 %]"):
        table.add_column(heading, justify="right")
    table.add_row(
        "SAE", f"{result.l0:.1f}", f"{result.bits or 0:.0f}", _interval(result.fvu, 4), ""
    )
    for name, one in baselines.items():
        fvu, less = _interval(one.fvu, 4), one.sae_less.text("+.4f")
        table.add_row(name, f"{one.active:g}", f"{one.bits:.0f}", fvu, less)
    return table


def _spliced_lines(name: str, spliced: Spliced) -> list[Table | str]:
    every = name == EVERY_TICK
    when = "last supervision step" if every else f"its own step, {spliced.read_at + 1}"
    table = Table(title=f"in the loop, {name.replace('_', ' ')}: {when}")
    for heading in ("state at the site", "exact", "cells right", "loss, nats per cell"):
        table.add_column(heading, justify="right")
    for run, looped in spliced.runs.items():
        cells = [_interval(one, 3) for one in (looped.exact, looped.cells, looped.loss)]
        table.add_row("as it is" if run == "clean" else run, *cells)
    recovered = (
        f"loss recovered {_interval(spliced.recovered_over_zero, 3)} over zero, "
        f"{_interval(spliced.recovered_over_mean, 3)} over the mean row"
    )
    if every:
        return [table, recovered]
    last = {run: looped.by_step["loss"][-1] for run, looped in spliced.runs.items()}
    losses = ", ".join(f"{run} {loss:.4f}" for run, loss in last.items())
    return [table, recovered, f"loss at the last step: {losses}"]


def _interval(estimate: Estimate, digits: int) -> str:
    text = estimate.text(f".{digits}f")
    if text == "-":
        return "undefined (the cost of the ablation is not distinguishable from 0)"
    return text
