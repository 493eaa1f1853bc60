"""What in a run makes it succeed: patches between a solved and a failed run of one puzzle.

Of every pair the solved run's values are put into the failed one (rescue) and the other way round
(ruin): at a moment, a site and a group of positions. All cells are estimated by attribution along
the run, and those with the largest estimates are measured. All positions of each state are measured
at every moment beside three controls, which says when the fate is sealed.
"""

from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from trm_interp.analysis.estimates import ByOutcome, Estimate, Median
from trm_interp.analysis.settling import in_words
from trm_interp.figures.trace import rating_figure, sealed_figure, trace_figure
from trm_interp.patch.pairs import Pairs, pairs_among
from trm_interp.patch.places import places
from trm_interp.patch.view import view_of
from trm_interp.runtime.arrays import Arrays
from trm_interp.runtime.errors import UserError
from trm_interp.runtime.limits import counted
from trm_interp.runtime.records import optional
from trm_interp.runtime.runs import Run
from trm_interp.runtime.shards import divided, shard_ends
from trm_interp.search.noise import target_states
from trm_interp.studies.fates import Became
from trm_interp.studies.memory import for_trace
from trm_interp.studies.results import Figures, OnCheckpointResult, Progress, Tell, results_of
from trm_interp.studies.settings import TraceConfig
from trm_interp.studies.subject import Subject, open_subject
from trm_interp.studies.trace_later import later_table, unpatched
from trm_interp.studies.trace_measures import (
    LOSS,
    Sealing,
    Strong,
    agreement,
    cell_table,
    last_flip,
    pair_table,
    rated,
    sealed_table,
    sealing,
    strongest,
)
from trm_interp.studies.traced import (
    CONTROLS,
    DIRECTIONS,
    Plan,
    batches,
    estimates,
    measured,
    plan_of,
    recorded,
    reruns,
    solved_from_starts,
)

Config = TraceConfig
APART = ("out", "static", "style", "width", "overwrite", "resume", "ckpt", "puzzles", "device")


@dataclass(frozen=True, kw_only=True)
class TraceResult(OnCheckpointResult):
    """`pairs` of a solved and a failed run, among `tried` runs of `n` puzzles; `dropped`: others,
    whose runs end otherwise when they are run in another batch. `always`, `never`: puzzles that all
    starts or none solve. `cells`: of the heat map, `exact` of them measured. `agreement`: rank
    correlation of estimates and measured changes of the loss over the cells of a pair, mean over
    pairs. `sealed`: by state or site. `unpatched`: what the runs become by themselves some steps
    later, None where that is not looked at. `strongest`: measured cells by the size of their
    change.
    """

    settings: dict[str, Any]
    tried: int
    always: int
    never: int
    pairs: int
    dropped: int
    moments: list[float]
    cells: int
    exact: int
    rating: str | None
    agreement: dict[str, Estimate]
    sealed: dict[str, Sealing]
    strongest: list[Strong]
    unpatched: ByOutcome[list[Became]] | None = optional()


Result = TraceResult


class Tables(NamedTuple):
    """trace: a row a direction and cell; sealed: a row a direction, donor, site and moment; later:
    the same by what runs become some steps later; pairs: a row a pair."""

    trace: pd.DataFrame
    sealed: pd.DataFrame
    pairs: pd.DataFrame
    later: pd.DataFrame


def run(config: TraceConfig, tell: Tell, progress: Progress) -> TraceResult:
    """Find pairs, estimate all cells, measure some. `resume` continues a run that was killed."""
    subject = open_subject(config, tell)
    target_states(subject.model, config.target)
    for_trace(subject, config)
    plan = plan_of(subject, config)
    rows = config.limit * config.starts + config.pairs * reruns(plan, config.exact)
    subject = subject.compiled_for(config, rows * config.steps, tell)
    identity = {k: v for k, v in asdict(config).items() if k not in APART} | {
        "compiled": subject.compiled,
        "device": subject.device.type,
        "checkpoint_sha256": subject.checkpoint.sha256,
        "data_sha256": dict(subject.puzzles.sha256),
    }
    names = (*Tables._fields, "estimates", "by_rating")
    with results_of(
        "trace", config, names, identity=identity, tell=tell, progress=progress
    ) as results:
        solved = find(subject, config, results.run)
        pairs = pairs_among(solved, config.pairs)
        chosen, arrays = trace(subject, config, plan, pairs, results.run)
        if not arrays["valid"].any():
            raise UserError(
                f"all {len(pairs)} pairs end otherwise when they are run in another batch: try "
                "another --sigma, --batch-size or more puzzles (--limit)"
            )
        result, tables = measure(subject, config, plan, solved, pairs, chosen, arrays)
        results.write(figures(result, tables, plan), tables._asdict())
        return results.finish(result)


def find(subject: Subject, config: TraceConfig, run: Run) -> np.ndarray:
    """Bool [puzzle, start], batch by batch."""
    batches_solved, total = [], len(subject.puzzles) * config.starts * 2

    def solved(rows: slice) -> Arrays:
        before = rows.start * config.starts
        found = solved_from_starts(
            subject, config, rows, lambda more: run.advance(before + more, total)
        )
        return {"solved": found.astype(np.uint8)}

    for rows in subject.batches():
        size = rows.stop - rows.start
        saved = run.part(
            f"starts-{int(subject.puzzles.lines[rows.start])}-{size}",
            {"solved": (size, config.starts)},
            lambda rows=rows: solved(rows),
        )
        batches_solved.append(saved["solved"] != 0)
        run.advance(rows.stop * config.starts, total)
    return np.concatenate(batches_solved)


def trace(
    subject: Subject, config: TraceConfig, plan: Plan, pairs: Pairs, run: Run
) -> tuple[np.ndarray, Arrays]:
    """The cells that are measured, and the arrays of `estimates` and `measured` of all pairs.

    Progress counts runs: those that were looked among, and reruns.
    """
    before = len(subject.puzzles) * config.starts
    shape = len(plan.cells)
    parts: list[Arrays] = []
    for batch in batches(pairs, config):
        size, name = len(batch), f"{int(subject.puzzles.lines[batch.puzzle[0]])}-{len(batch)}"
        shapes = {**dict.fromkeys(DIRECTIONS, (shape, size)), "valid": (size,)}
        parts.append(
            run.part(
                f"estimates-{name}",
                shapes,
                lambda batch=batch: estimates(recorded(subject, config, plan, batch), plan),
            )
        )
    guesses = _joined(parts)
    chosen = choose(plan, guesses, config.exact)
    total = before + len(pairs) * reruns(plan, len(chosen))
    exact: list[Arrays] = []
    done = before
    together = list(batches(pairs, config))

    def compute(i: int) -> Arrays:
        before = total - sum(map(len, together[i:])) * reruns(plan, len(chosen))
        patched = recorded(subject, config, plan, together[i])
        return measured(
            patched, plan, chosen, config, lambda more: run.advance(before + more, total)
        )

    names = [
        f"measured-{int(subject.puzzles.lines[batch.puzzle[0]])}-{len(batch)}" for batch in together
    ]
    for batch, name, get in zip(together, names, divided(names, compute), strict=False):
        exact.append(run.part(name, None, get))
        done += len(batch) * reruns(plan, len(chosen))
        run.advance(done, total)
    shard_ends()
    values = _joined(exact)
    guessed = {f"estimate/{name}": guesses[name] for name in DIRECTIONS}
    return chosen, values | guessed | {"valid": values["valid"] != 0}


def steps_of_a_pair(subject: Subject, config: TraceConfig) -> float:
    """Supervision steps that would be the arithmetic of a pair: of its recorded runs, forward and
    backward, and of all reruns, each from where it is changed first."""
    plan, model = plan_of(subject, config), subject.model
    per_step, spans = model.config.schedule.evaluations, view_of(model).spans(config.steps)
    size, at = len(spans[0].ticks), {place.name: place.at for place in places(model, config.steps)}
    begins = [max(min(at[hook] for hook in cell.hooks), 0) // size * size for cell in plan.cells]
    rest = config.steps + config.later - np.array(begins) / per_step  # [cell]
    flat = dict.fromkeys(DIRECTIONS, np.zeros((len(begins), 1)))
    chosen = choose(plan, flat | {"valid": np.ones(1)}, config.exact)
    reruns = rest[chosen].sum() + len(CONTROLS) * rest[plan.whole].sum()
    if config.later:
        reruns += rest[plan.whole[-1]]
    recorded_twice, there_and_back = 2 * 3 * config.steps, 2 * config.steps
    return recorded_twice + len(DIRECTIONS) * (there_and_back + float(reruns))


def _joined(parts: list[Arrays]) -> Arrays:
    """Along the pairs."""
    return {
        name: np.concatenate([part[name] for part in parts], _axis_of_pairs(name))
        for name in parts[0]
    }


def _axis_of_pairs(name: str) -> int:
    """The first axis, or the second one after that of cells."""
    return 0 if name in ("valid", "differ") or name.startswith("unchanged/") else 1


def choose(plan: Plan, guesses: Arrays, most: int) -> np.ndarray:
    """Which cells are measured: the whole ones, and up to `most` others, as many at every moment,
    those with the largest estimates of either direction."""
    sizes = []
    for direction in DIRECTIONS:
        size = np.abs(np.where(guesses["valid"] != 0, guesses[direction], np.nan))
        mean = np.nansum(size, 1) / np.maximum(np.isfinite(size).sum(1), 1)
        sizes.append(mean / max(mean.max(), 1e-30))
    size, moment = np.add(*sizes), np.array([cell.moment for cell in plan.cells])
    others = np.setdiff1d(np.arange(len(plan.cells)), plan.whole)
    ordered = others[np.argsort(-size[others], kind="stable")]
    place = pd.Series(moment[ordered]).groupby(moment[ordered]).cumcount().to_numpy()
    taken = ordered[np.argsort(place, kind="stable")][:most]
    return np.sort(np.concatenate([np.array(plan.whole, np.int64), taken]))


def measure(
    subject: Subject,
    config: TraceConfig,
    plan: Plan,
    solved: np.ndarray,
    pairs: Pairs,
    chosen: np.ndarray,
    arrays: Arrays,
) -> tuple[TraceResult, Tables]:
    """The numbers and the tables of these patches."""
    valid = arrays["valid"]
    kept = {
        name: np.compress(valid, of, axis=_axis_of_pairs(name))
        for name, of in arrays.items()
        if name != "valid"
    }
    changes = {
        name: of - kept[f"unchanged/{name.partition('/')[0]}"]
        for name, of in kept.items()
        if name.partition("/")[0] in DIRECTIONS
    }
    rating, ratings = rated(subject, config, pairs.puzzle[valid])
    last = {
        (direction, site): last_flip(plan, chosen, changes[direction], site)
        for direction in DIRECTIONS
        for site in {plan.cells[i].site: None for i in plan.whole}
    }
    trace_table = cell_table(plan, config, chosen, kept, changes)
    tables = Tables(
        trace_table,
        sealed_table(plan, config, chosen, changes),
        pair_table(subject, pairs, valid, kept["differ"], rating, ratings, last),
        later_table(plan, chosen, kept),
    )
    result = TraceResult(
        **subject.provenance,
        settings=asdict(config),
        tried=solved.size,
        always=int(solved.all(1).sum()),
        never=int((~solved.any(1)).sum()),
        pairs=int(valid.sum()),
        dropped=int((~valid).sum()),
        moments=plan.done,
        cells=len(plan.cells),
        exact=len(chosen),
        rating=rating,
        agreement={
            name: agreement(kept[f"estimate/{name}"][chosen], changes[name][..., LOSS], config.seed)
            for name in DIRECTIONS
        },
        sealed=sealing(plan, config, chosen, changes, last, ratings),
        strongest=strongest(trace_table),
        unpatched=unpatched(tables.later, config.later),
    )
    return result, tables


def figures(result: TraceResult, tables: Tables, plan: Plan) -> Figures:
    """Heat maps of what is measured and estimated, when the fate is sealed, and by rating."""
    about = f"{result.model_name}: {counted(result.pairs, 'pair')} of a solved and a failed run"
    made: Figures = {
        "trace": (
            trace_figure(tables.trace, "flipped", result.pairs, f"{about}, patched"),
            tables.trace,
        ),
        "estimates": (
            trace_figure(tables.trace, "estimate", result.pairs, f"{about}, to first order"),
            tables.trace,
        ),
        "sealed": (
            sealed_figure(tables.sealed, result.pairs, f"{about}: when is the fate sealed?"),
            tables.sealed,
        ),
    }
    if result.rating is not None:
        sites = list(result.sealed)
        title = f"{about}: the last rescue against {result.rating}"
        made["by_rating"] = (
            rating_figure(tables.pairs, sites, result.rating, title),
            tables.pairs,
        )
    return made


def lines(result: TraceResult) -> list[str]:
    """The result in words."""
    first, last = result.moments[0], result.moments[-result.settings["window"]]
    text = [
        f"{counted(result.pairs, 'pair')} among {result.n} puzzles x "
        f"{result.settings['starts']} starts ({result.always} puzzles are solved from all of them, "
        f"{result.never} from none)"
        + (f"; {result.dropped} ended otherwise in another batch" if result.dropped else ""),
        f"patched after step {first:g} to {last:g}; what flips at the last moment may flip later",
    ]
    if result.unpatched is not None:
        for outcome in ("failed", "solved"):
            each: list[Became] = getattr(result.unpatched, outcome)
            counts = ", ".join(f"{one.hits} {in_words(one.became)}" for one in each)
            text.append(f"{outcome} runs by themselves {each[0].steps} steps later: {counts}")
    for site, of in result.sealed.items():
        donors = ", ".join(f"{name} {one.text('.0%')}" for name, one in of.donors.items())
        text += [
            f"{site} of the solved run rescues {of.rescued.hits} of "
            f"{counted(of.rescued.n, 'pair')}, last after step {_moment(of.last_rescue)}; that of "
            f"the failed run ruins {of.ruined.hits}, last after step {_moment(of.last_ruin)}",
            f"{site}: share of the moments that rescue a pair, by donor: {donors}",
        ]
    text += [
        f"{name}: estimate and measurement agree by a rank correlation of {one.text('.2f')} over "
        f"{result.exact} of {result.cells} cells"
        for name, one in result.agreement.items()
    ]
    return text


def _moment(of: Median) -> str:
    return of.text(".1f") + " (median)" if of.median is not None else "-"
