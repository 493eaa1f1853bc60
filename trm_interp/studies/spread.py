"""How far does a change of one cell reach, and how soon?

One given of a puzzle is taken away, or all states of one cell are changed at some step; the run is
followed beside the plain one, and what differs after every network evaluation is averaged over
cells by their relation to the changed one, as the task has it. Beside it stands what the token
mixers alone would do: how much of a small change at that cell each of them passes on.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from trm_interp.analysis.estimates import Estimate
from trm_interp.analysis.reach import by_puzzle, locality
from trm_interp.analysis.resample import mean_with_bounds
from trm_interp.figures.spread import locality_figure, mixer_figure, spread_figure
from trm_interp.runtime.arrays import Arrays
from trm_interp.runtime.limits import counted
from trm_interp.runtime.records import Record
from trm_interp.runtime.shards import divided, numbered, shard_ends
from trm_interp.studies.causal_settings import SpreadConfig
from trm_interp.studies.changed import (
    GUESS,
    Changes,
    Reached,
    arrays_of,
    batches,
    choose,
    reached,
    reached_of,
)
from trm_interp.studies.memory import for_spread
from trm_interp.studies.results import (
    Figures,
    OnCheckpointResult,
    Progress,
    Tell,
    records,
    results_of,
)
from trm_interp.studies.subject import Subject, open_subject

Config = SpreadConfig


@dataclass(frozen=True, kw_only=True)
class Influence(Record):
    """Mean change of cells of a relation at a network evaluation, counted from 1 from where the
    change begins: RMS of a state or of the logits over tokens, or the share of guesses that are
    others. `n`: puzzles that have such cells."""

    site: str
    relation: str
    evaluation: int
    influence: Estimate
    n: int


@dataclass(frozen=True, kw_only=True)
class Locality(Record):
    """How much more related cells move than unrelated ones, as a ratio; None where either do not
    exist, or where unrelated ones do not move."""

    site: str
    evaluation: int
    ratio: Estimate


@dataclass(frozen=True, kw_only=True)
class Gain(Record):
    """Of a mixer alone, by the site that it reads: RMS change that it writes at cells of a relation
    over that which it reads at one cell."""

    mixer: str
    relation: str
    gain: Estimate


@dataclass(frozen=True, kw_only=True)
class SpreadResult(OnCheckpointResult):
    """`changes`: cells that were changed, one at a time. `influence` and `locality`: at the first
    evaluation that writes a site, at the ends of the first H-cycle and of the first step, and at
    the end; all others are in the tables. `mixers`: empty where the model has none apart."""

    settings: dict[str, Any]
    changes: int
    relations: list[str]
    influence: list[Influence]
    locality: list[Locality]
    mixers: list[Gain]


Result = SpreadResult


class Tables(NamedTuple):
    """spread: a row a site, evaluation and relation; locality: a row a site and evaluation; mixers:
    a row a mixer and relation."""

    spread: pd.DataFrame
    locality: pd.DataFrame
    mixers: pd.DataFrame


def run(config: SpreadConfig, tell: Tell, progress: Progress) -> SpreadResult:
    """Choose cells, follow each change, average by relation."""
    subject = open_subject(config, tell)
    for_spread(subject, config)
    changes = choose(subject, config)
    steps = config.steps + (config.after if config.kind == "state" else 0)
    subject = subject.compiled_for(config, 2 * len(changes) * steps, tell)
    with results_of("spread", config, Tables._fields, tell=tell, progress=progress) as results:
        together, total = list(batches(changes, config)), len(changes) * config.steps

        def compute(i: int) -> Arrays:
            before, n = sum(map(len, together[:i])) * config.steps, len(together[i])
            count = partial(_count, progress, before, n, total)
            return arrays_of(reached(subject, config, together[i], count))

        pieces = divided(numbered("changes", len(together)), compute)
        parts = [
            _Part(batch.puzzle, reached_of(get()))
            for batch, get in zip(together, pieces, strict=False)
        ]
        shard_ends()
        tables = measure(subject, config, changes, parts)
        result = SpreadResult(
            **subject.provenance,
            settings=asdict(config),
            changes=len(changes),
            relations=changes.names,
            influence=[_influence(row) for row in records(told(subject, tables.spread))],
            locality=[_locality(row) for row in records(told(subject, tables.locality))],
            mixers=[_gain(row) for row in records(tables.mixers)],
        )
        results.write(figures(result, tables, subject), tables._asdict())
        return results.finish(result)


def _count(progress: Progress, before: int, n: int, total: int, steps: int) -> None:
    progress(before + steps * n, total)


class _Part(NamedTuple):
    """A batch of changes, by their puzzles."""

    puzzle: np.ndarray
    reached: Reached


def measure(
    subject: Subject, config: SpreadConfig, changes: Changes, parts: Sequence[_Part]
) -> Tables:
    """Means over the changes of a puzzle, then over puzzles, with their intervals."""
    first, spread, local, mixed = parts[0].reached, [], [], []
    per_step = subject.model.config.schedule.evaluations
    for site, at in first.at.items():
        each = np.concatenate([part.reached.influence[site] for part in parts])
        own = by_puzzle(each, changes.puzzle)  # [puzzle, evaluation, relation]
        clock = {"site": site, "evaluations_done": at, "steps_done": np.array(at) / per_step}
        for k, relation in enumerate(changes.names):
            mean, low, high = mean_with_bounds(own[..., k], config.seed)
            n = np.isfinite(own[..., k]).sum(0)
            columns = {"influence": mean, "influence_low": low, "influence_high": high, "n": n}
            spread.append(pd.DataFrame(clock | {"relation": relation} | columns))
        near = by_puzzle(
            np.concatenate([part.reached.related[site] for part in parts]), changes.puzzle
        )
        ratio = locality(near, own[..., changes.unrelated], config.seed)
        columns = dict(zip(("ratio", "ratio_low", "ratio_high"), ratio, strict=True))
        local.append(pd.DataFrame(clock | columns))
    for mixer in first.gains:
        each = np.concatenate([part.reached.gains[mixer] for part in parts])
        own = by_puzzle(each, changes.puzzle)
        mean, low, high = mean_with_bounds(own, config.seed)
        columns = {"gain": mean, "gain_low": low, "gain_high": high}
        mixed.append(pd.DataFrame({"mixer": mixer, "relation": changes.names} | columns))
    none = pd.DataFrame(columns=["mixer", "relation", "gain", "gain_low", "gain_high"])
    tables = (spread, local, mixed or [none])
    return Tables(*(pd.concat(table, ignore_index=True) for table in tables))


def told(subject: Subject, table: pd.DataFrame) -> pd.DataFrame:
    """The rows of a few moments: the first that a site has, the ends of the first H-cycle and step,
    and the last."""
    schedule = subject.model.config.schedule
    moments = {len(schedule.cycle), schedule.evaluations}
    by_site = table.groupby("site")["evaluations_done"]
    first, last = (by_site.transform(end) for end in ("min", "max"))
    at = table["evaluations_done"]
    return table[(at == first) | (at == last) | at.isin(moments)]  # type: ignore[return-value]


def _estimate(row: dict[str, Any], name: str) -> Estimate:
    ends = (row[name], row[f"{name}_low"], row[f"{name}_high"])
    value, low, high = (None if pd.isna(end) else float(end) for end in ends)
    return Estimate(value=value, low=low, high=high)


def _influence(row: dict[str, Any]) -> Influence:
    return Influence(
        site=row["site"],
        relation=row["relation"],
        evaluation=int(row["evaluations_done"]),
        influence=_estimate(row, "influence"),
        n=int(row["n"]),
    )


def _locality(row: dict[str, Any]) -> Locality:
    return Locality(
        site=row["site"], evaluation=int(row["evaluations_done"]), ratio=_estimate(row, "ratio")
    )


def _gain(row: dict[str, Any]) -> Gain:
    return Gain(mixer=row["mixer"], relation=row["relation"], gain=_estimate(row, "gain"))


def figures(result: SpreadResult, tables: Tables, subject: Subject) -> Figures:
    """Influence over evaluations by relation, locality, and the mixers alone."""
    what = "a given taken away" if result.settings["kind"] == "given" else "a cell's states changed"
    about = f"{result.model_name}: {what}, {counted(result.changes, 'change')}"
    made: Figures = {
        "spread": (
            spread_figure(tables.spread, result.relations, GUESS, result.n, about),
            tables.spread,
        ),
        "locality": (locality_figure(tables.locality, result.n, about), tables.locality),
    }
    if result.mixers:
        title = f"{result.model_name}: what each token mixer alone passes on"
        made["mixers"] = (mixer_figure(tables.mixers, result.n, title), tables.mixers)
    return made


def lines(result: SpreadResult) -> list[str]:
    """Of every site the first and the last evaluation, and the mixers."""
    text = [
        f"{counted(result.changes, 'change')} of single cells of {counted(result.n, 'puzzle')}, "
        f"followed for {counted(result.settings['steps'], 'step')}"
    ]
    for site in dict.fromkeys(one.site for one in result.influence):
        own = [one for one in result.influence if one.site == site]
        for at in sorted({min(o.evaluation for o in own), max(o.evaluation for o in own)}):
            by_relation = ", ".join(
                f"{one.relation} {one.influence.text('.2g')}"
                for one in own
                if one.evaluation == at and one.influence.value is not None
            )
            text.append(f"{site} after {counted(at, 'evaluation')}: {by_relation}")
    for one in result.locality:
        if one.ratio.value is not None:
            text.append(
                f"{one.site} after {counted(one.evaluation, 'evaluation')}: related cells move "
                f"{one.ratio.text('.2f')} times as much as unrelated ones"
            )
    for mixer in dict.fromkeys(one.mixer for one in result.mixers):
        by_relation = ", ".join(
            f"{one.relation} {one.gain.text('.2g')}"
            for one in result.mixers
            if one.mixer == mixer and one.gain.value is not None
        )
        text.append(f"the mixer behind {mixer} alone passes on: {by_relation}")
    return text
