"""`trm-interp circuits`: which features drive which ones an H-cycle later, and is it so?

Edges are attributions through the recursion (`edges`), means over cells and puzzles, of settled and
wandering runs apart. The strongest are checked: the source is ablated at its tick, and what the
target loses is compared with what it loses when features that fire there as often are.
"""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch

from trm_interp.analysis.estimates import Estimate
from trm_interp.core.models.base import RecursiveModel
from trm_interp.core.models.layers import weights_held
from trm_interp.figures.bands import where
from trm_interp.figures.circuits import circuit_figure
from trm_interp.figures.index import INDEX, Entry, index_page, of_table
from trm_interp.figures.paper import caption_of
from trm_interp.recording.site_reader import run_clock, spell
from trm_interp.runtime.errors import UserError
from trm_interp.runtime.limits import counted, parse_indices
from trm_interp.runtime.runs import Run, quiet
from trm_interp.runtime.settings import command_line
from trm_interp.sae.applied import AppliedSAE, Progress, applying, model_of
from trm_interp.sae.circuit_tables import (
    FATES,
    ablate_sources,
    agreements,
    check_table,
    edge_table,
    fates_of,
    level_table,
    strong,
)
from trm_interp.sae.circuits_settings import CircuitsConfig
from trm_interp.sae.edges import Through, edges
from trm_interp.sae.graphs import graph_of
from trm_interp.sae.measures import Usage, feature_usage
from trm_interp.sae.results import CircuitOf, CircuitsSummary
from trm_interp.sae.splice import Place, check_spliceable, static_parts

COMMAND = "circuits"
PAGE, SUMMARY = "circuits.html", "summary.json"
NAMES = (PAGE, SUMMARY, INDEX, "edges.csv", "checks.csv", "features.csv")
NAMES += tuple(f"graph-{fate}.json" for fate in FATES)


def run(
    config: CircuitsConfig, tell: Callable[[str], None] = print, progress: Progress = quiet
) -> CircuitsSummary:
    """Everything that `trm-interp circuits` does; the summary as it is written."""
    with applying(config, tell) as applied:
        check_spliceable(applied)
        checkpoint, mismatch = model_of(applied, config.ckpt, config.force_mismatch)
        usage = feature_usage(applied)
        through = _through(applied, checkpoint.model, config, usage)
        with Run(
            config.out,
            COMMAND,
            NAMES,
            overwrite=config.overwrite,
            resumable=False,
            clears_at_once=False,
            tell=tell,
            progress=progress,
        ) as output:
            with weights_held(checkpoint.model, torch.float32):
                result, tables = measure(through, config, mismatch, output.advance)
            output.clear()
            _write(output, config, result, tables)
    return result


class Tables(NamedTuple):
    """edges: all of them; checks: a row a checked edge; features: mean activations."""

    edges: pd.DataFrame
    checks: pd.DataFrame
    features: pd.DataFrame


def measure(
    through: Through,
    config: CircuitsConfig,
    mismatch: str | None,
    progress: Progress = quiet,
) -> tuple[CircuitsSummary, Tables]:
    """Edges, and the ablations that check the strongest."""
    n = len(through.applied.puzzles)
    measured = edges(through, lambda done, of: progress(done, 2 * n))
    by_fate = fates_of(measured, config.tolerance)
    table = edge_table(through, measured, by_fate, config.seed)
    most, pair = (config.edges, config.to_itself), ["source", "target"]
    picked = {  # of a pair of features the tick at which the edge is strongest
        fate: strong(table, fate, *most).drop_duplicates(pair).head(config.checked)
        for fate in by_fate
    }
    lost = ablate_sources(
        through, picked, measured, config, lambda done, of: progress(n + done, 2 * n)
    )
    checks = check_table(through, picked, by_fate, lost, config.seed)
    agree = agreements(through, picked, by_fate, measured.weights, lost, config.seed)
    result = CircuitsSummary(
        **through.applied.measured_on,
        model_mismatch=mismatch,
        steps=through.n_steps,
        lag=through.lag,
        features=through.features,
        source_ticks=through.ticks,
        tolerance=config.tolerance,
        fates={
            fate: _of_fate(
                through.applied.solved[rows],
                where(table, table["fate"] == fate),
                strong(table, fate, config.edges, to_itself=True),
                where(checks, checks["fate"] == fate),
                agree.get(fate),
            )
            for fate, rows in by_fate.items()
        },
    )
    progress(2 * n, 2 * n)
    return result, Tables(table, checks, level_table(through, measured, by_fate))


def _write(output: Run, config: CircuitsConfig, result: CircuitsSummary, tables: Tables) -> None:
    """Tables, a graph a fate, the page, and the summary last."""
    for name, table in tables._asdict().items():
        output.write_text(f"{name}.csv", table.to_csv(index=False))
    about, levels = f"{Path(config.sae).name} on {result.site}", tables.features
    most = (config.edges, config.to_itself)
    strongest = {fate: strong(tables.edges, fate, *most) for fate in result.fates}
    for fate, of in strongest.items():
        graph = graph_of(of, where(levels, levels["fate"] == fate), fate, about, result.lag)
        output.write_json(f"graph-{fate}.json", graph)
    runs = {fate: of.n for fate, of in result.fates.items()}
    title = f"{about}: what drives which feature {result.lag} evaluations later"
    figure = circuit_figure(pd.concat(strongest.values()), levels, runs, title)
    page = figure.to_html(include_plotlyjs=True, config={"displaylogo": False}, div_id="circuits")
    output.write_text(PAGE, page)
    made_by = command_line("circuits", config)
    rows = [of_table(f"{name}.csv", table) for name, table in tables._asdict().items()]
    shown = [Entry(PAGE, caption_of(figure))]
    output.write_text(INDEX, index_page(title, made_by, [], shown, rows))
    output.write_json(SUMMARY, result.to_json())


def _through(
    applied: AppliedSAE, model: RecursiveModel, config: CircuitsConfig, usage: Usage
) -> Through:
    """UserError for a site that is no state, features that never fire and ticks that it lacks."""
    reader, cls = applied.reader, type(model)
    if reader.site not in model.state_names:
        states = ", ".join(model.state_names)
        raise UserError(
            f"circuits go from state to state, and {reader.site} is inside an evaluation: "
            f"train an SAE on one of {states}"
        )
    if cls.unroll is not RecursiveModel.unroll or cls.advance is not RecursiveModel.advance:
        raise UserError(
            f"{applied.store.path}: its model does something of its own between evaluations, so "
            "no tangent can be followed from one to the next"
        )
    schedule, clock = model.config.schedule, run_clock(applied.store)
    lag, held = len(schedule.cycle), set(reader.indices)
    can = [i for i in reader.indices if i + lag in held]
    if not can:
        raise UserError(
            f"{applied.site} is read at ticks {spell(reader.indices)}, and at none of them again "
            f"an H-cycle ({lag} evaluations) later: record more steps, or train on all ticks"
        )
    asked = parse_indices(config.ticks, "ticks")
    if asked is None:
        asked = [i for i in can if schedule.is_last_write(clock[i])] or can
    if wrong := [i for i in asked if i not in can]:
        raise UserError(f"--ticks {wrong[0]}: edges can go from ticks {spell(can)}")
    place = Place(
        reader.site,
        [clock[i] for i in asked],
        torch.from_numpy(usage.mean_row),
        static_parts(applied, reader),
    )
    features = _features(applied, config, usage)
    steps, size = applied.store.n_steps, config.batch_size
    return Through(applied, model, place, features, sorted(asked), steps, size)


def _features(applied: AppliedSAE, config: CircuitsConfig, usage: Usage) -> list[int]:
    asked = parse_indices(config.features, "features")
    if asked is not None:
        if asked[-1] >= applied.d_sae:
            raise UserError(f"--features {asked[-1]}: there are {applied.d_sae}, from 0")
        if silent := [i for i in asked if not usage.density[i]]:
            raise UserError(f"feature {silent[0]} never fires on these puzzles")
        return asked
    norms = applied.sae.W_dec.detach().float().norm(dim=1).cpu().numpy()
    order = np.argsort(-usage.mean_activation * norms, kind="stable")[: config.top]
    return sorted(int(i) for i in order if usage.density[i] > 0)


def _of_fate(
    solved: np.ndarray,
    table: pd.DataFrame,
    strongest: pd.DataFrame,
    checks: pd.DataFrame,
    agreement: Estimate | None,
) -> CircuitOf:
    """The numbers of the runs of one fate, from its rows of the tables."""
    low, high, lost, weight, most = (
        of[name].to_numpy(float)
        for of, name in (
            *((table, "low"), (table, "high"), (checks, "lost"), (checks, "weight")),
            (checks, "most_of_controls"),
        )
    )
    to_itself = strongest["source"].to_numpy() == strongest["target"].to_numpy()
    return CircuitOf(
        n=len(solved),
        n_solved=int(solved.sum()),
        edges=len(table),
        clear=int(((low > 0) | (high < 0)).sum()),
        strongest=len(strongest),
        to_itself=int(to_itself.sum()),
        checked=len(checks),
        confirmed=int(((np.abs(lost) > most) & (lost * weight > 0)).sum()),
        agreement=agreement,
    )


def lines(result: CircuitsSummary) -> list[str]:
    """The result in words."""
    text = []
    for fate, of in result.fates.items():
        text.append(
            f"{counted(of.n, f'{fate} run')} ({of.n_solved} solved): {of.clear} of {of.edges} "
            f"edges have an interval clear of 0; {of.to_itself} of the {of.strongest} strongest go "
            "from a feature to itself"
        )
        if of.checked:
            agree = "-" if of.agreement is None else of.agreement.text(".2f")
            text.append(
                f"{fate}: {of.confirmed} of {of.checked} strongest edges hold under ablation, "
                "beyond every matched random feature; rank correlation of weight and loss "
                f"{agree}"
            )
    return text
