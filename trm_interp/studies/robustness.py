"""Robustness of end states: noise on where runs end, and whether they come back.

An end is where the model's own start has come to after `steps` supervision steps. It is pushed by
noise of RMS epsilon over all states and goes on for `then` more. It has returned to its answer
basin where it decodes to the same grid as without the push, to its state basin where its states lie
within the tolerance of those.
"""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch

from trm_interp.analysis.control import partial_with_bounds
from trm_interp.analysis.estimates import ByOutcome, Estimate, Median, Share
from trm_interp.analysis.outcomes import half_failed, share_with_bounds
from trm_interp.analysis.resample import mean_estimate, mean_with_bounds, median_with_bounds
from trm_interp.analysis.robustness import ABOVE, BELOW, epsilon_50, ranked
from trm_interp.core.models.layers import weights_held
from trm_interp.figures.bands import where
from trm_interp.figures.robustness import LEADING, RANDOM, related_figure, return_figure
from trm_interp.runtime.errors import UserError
from trm_interp.runtime.limits import counted
from trm_interp.runtime.records import Record, optional
from trm_interp.studies.by_outcome import named, subset_of
from trm_interp.studies.memory import for_robustness
from trm_interp.studies.pushed_ends import ANSWER, MEASURES, STATE, push_ends
from trm_interp.studies.results import Figures, OnCheckpointResult, Progress, Tell, results_of
from trm_interp.studies.settings import RobustnessConfig
from trm_interp.studies.stages import Stages
from trm_interp.studies.subject import open_subject
from trm_interp.subjects.evaluate import solve

Config = RobustnessConfig
NAMES = ("returns", "epsilon_50")
BASINS = (ANSWER, STATE)
FEWEST = 5  # ends, below which no correlation is measured
Tables = Mapping[str, pd.DataFrame]


@dataclass(frozen=True, kw_only=True)
class Fifty(Record):
    """Median epsilon_50 over ends. Those that are only bounded count as the smallest or the
    largest epsilon of the grid; `below` and `above` say how many they are."""

    median: Median
    below: int
    above: int

    def text(self) -> str:
        """The numbers in words."""
        bounded = [f"{n} {name} the grid" for name, n in vars(self).items() if name in SIDES and n]
        return self.median.text(".2f") + (f" ({', '.join(bounded)})" if bounded else "")


SIDES = (BELOW, ABOVE)


@dataclass(frozen=True, kw_only=True)
class OfEnds(Record):
    """Of `n` ends of one outcome. `at_rest`: share that one more supervision step moves by at most
    the tolerance. `epsilon_50`: by basin, then by kind of direction. `leading_less_random`: share
    that returns from pushes along leading eigenvectors less that along random ones, mean over the
    epsilons, by basin; `modulus`: of the leading eigenvalue. None where none were sought."""

    n: int
    at_rest: Share
    lambda_1: Median
    epsilon_50: dict[str, dict[str, Fifty]]
    leading_less_random: dict[str, Estimate] | None = optional()
    modulus: Median | None = optional()


@dataclass(frozen=True, kw_only=True)
class Related(Record):
    """Rank correlation of the epsilon_50 of a basin, in random directions, with another number of
    the end, over `n` ends: "all", "solved" or "failed" ones."""

    basin: str
    to: str
    ends: str
    n: int
    correlation: Estimate


@dataclass(frozen=True, kw_only=True)
class RobustnessResult(OnCheckpointResult):
    """`sample` ends were pushed, of both outcomes if there are so many."""

    settings: dict[str, Any]
    sample: int
    epsilons: list[float]
    ends: ByOutcome[OfEnds]
    related: list[Related]


Result = RobustnessResult


def run(config: RobustnessConfig, tell: Tell, progress: Progress) -> RobustnessResult:
    """Run the puzzles, choose ends, half of them failed if possible, and push those."""
    subject = open_subject(config, tell)
    shape = subject.model.config
    dim = len(subject.model.state_names) * shape.positions * shape.d_model
    if config.leading > dim:
        raise UserError(
            f"leading must be at most {dim}, the numbers of the joint state, got {config.leading}"
        )
    for_robustness(subject, config)
    n, sizes = len(subject.puzzles), config.sizes
    sample, vectors = min(config.sample, n), config.leading and config.leading + 3
    pushes = len(sizes) * (config.draws + 2 * config.leading)
    work = Stages(
        [
            n * config.steps,
            sample * config.iterations * vectors,
            sample * config.starts * config.steps,
            sample * pushes * config.then,
        ]
    )
    with results_of("robustness", config, NAMES, tell=tell, progress=progress) as results:
        read = solve(
            *(subject.model, subject.puzzles, config.steps, config.batch_size),
            progress=work.stage(0, results.run.advance),
        )
        solved = read.solved[:, -1].numpy()
        chosen = np.array(half_failed(solved, sample))
        if solved.all() or not solved.any():
            kind = named(solved[:1])[0]
            tell(f"all {n} puzzles are {kind} ones: raise --limit to have ends of both outcomes")
        with weights_held(subject.model, torch.float32):
            closer = subset_of(subject, chosen)
            ends, back = push_ends(closer, chosen, config, work, results.run.advance)
        tables = {
            "returns": return_table(ends, back, config),
            "epsilon_50": fifties(ends, back, config),
        }
        result = RobustnessResult(
            **subject.provenance,
            settings=asdict(config),
            sample=len(ends),
            epsilons=sizes,
            ends=ByOutcome(**{kind: _of_ends(tables, back, config, kind) for kind in OUTCOMES}),
            related=list(_related(tables["epsilon_50"], config.seed)),
        )
        results.write(figures(result, tables), {})
        return results.finish(result)


OUTCOMES = ("solved", "failed")


def return_table(
    ends: pd.DataFrame, back: Mapping[str, np.ndarray], config: RobustnessConfig
) -> pd.DataFrame:
    """Shares of pushes that come back, means over ends with 95 % bootstrap intervals: rows of
    outcome, measure, directions, epsilon, mean, low, high, n."""
    rows = []
    for kind, of in back.items():
        for outcome in OUTCOMES:
            chosen = (ends["outcome"] == outcome).to_numpy()
            if not chosen.any():
                continue
            shares = of[chosen].mean(2)  # [end, epsilon, measure]
            mean, low, high = mean_with_bounds(shares, config.seed)
            rows += [
                {
                    **{"outcome": outcome, "measure": measure, "directions": kind},
                    **{"epsilon": epsilon, "mean": mean[i, j]},
                    **{"low": low[i, j], "high": high[i, j], "n": int(chosen.sum())},
                }
                for j, measure in enumerate(MEASURES)
                for i, epsilon in enumerate(config.sizes)
            ]
    return pd.DataFrame(rows)


def fifties(
    ends: pd.DataFrame, back: Mapping[str, np.ndarray], config: RobustnessConfig
) -> pd.DataFrame:
    """The ends, with epsilon_50_BASIN_DIRECTIONS and bounded_BASIN_DIRECTIONS, which says on which
    side of the grid it lies if it does."""
    columns: dict[str, Any] = {}
    for kind, of in back.items():
        for basin in BASINS:
            shares = of[..., MEASURES.index(basin)].mean(2)
            value, side = epsilon_50(np.array(config.sizes), shares)
            columns |= {f"epsilon_50_{basin}_{kind}": value, f"bounded_{basin}_{kind}": side}
    return ends.assign(**columns)


def _of_ends(
    tables: Tables, back: Mapping[str, np.ndarray], config: RobustnessConfig, kind: str
) -> OfEnds:
    """The numbers of the ends of one outcome."""
    table = tables["epsilon_50"]
    chosen = (table["outcome"] == kind).to_numpy()
    rows, seed = where(table, chosen), config.seed

    def median(column: str) -> Median:
        return Median.of(median_with_bounds(rows[column].to_numpy(float), seed))

    fifty = {
        basin: {
            of: Fifty(
                median=median(f"epsilon_50_{basin}_{of}"),
                **{side: rows[f"bounded_{basin}_{of}"].tolist().count(side) for side in SIDES},
            )
            for of in back
        }
        for basin in BASINS
    }
    less = None
    if LEADING in back and chosen.any():
        shares = {of: back[of][chosen].mean((1, 2)) for of in back}  # [end, measure]
        apart = shares[LEADING] - shares[RANDOM]
        less = {basin: mean_estimate(apart[:, MEASURES.index(basin)], seed) for basin in BASINS}
    return OfEnds(
        n=len(rows),
        at_rest=Share.of(share_with_bounds((rows["moved"] <= config.tolerance).to_numpy(bool))),
        lambda_1=median("lambda_1"),
        epsilon_50=fifty,
        leading_less_random=less,
        modulus=median("modulus") if "modulus" in rows else None,
    )


def _related(table: pd.DataFrame, seed: int) -> Iterator[Related]:
    """Of both basins, to each other number, over all ends and those of either outcome."""
    for basin in BASINS:
        values = ranked(
            table[f"epsilon_50_{basin}_{RANDOM}"].to_numpy(float),
            table[f"bounded_{basin}_{RANDOM}"].tolist(),
        )
        for to in others(table, basin):
            for kind in ("all", *OUTCOMES):
                chosen = (table["outcome"] == kind).to_numpy() | (kind == "all")
                of, n = table[to].to_numpy(float), int(chosen.sum())
                if n < FEWEST:
                    continue
                control = np.zeros((n, 0))
                correlation = partial_with_bounds(values[chosen], of[chosen], control, seed)
                yield Related(
                    basin=basin, to=to, ends=kind, n=n, correlation=Estimate.of(correlation)
                )


def others(table: pd.DataFrame, basin: str) -> list[str]:
    """The columns that the epsilon_50 of a basin is compared with."""
    return [name for name in ("q_halt", "lambda_1", f"starts_{basin}") if name in table]


def figures(result: RobustnessResult, tables: Tables) -> Figures:
    """Shares that return over epsilon, and epsilon_50 against the other numbers of the ends."""
    about = f"{result.model_name}: {counted(result.sample, 'end')} pushed"
    returned, fifty = tables["returns"], tables["epsilon_50"]
    then = result.settings["then"]
    return {
        "returns": (return_figure(returned, f"{about}, after {then} more steps"), returned),
        "epsilon_50": (
            related_figure(
                fifty,
                others(fifty, ANSWER),
                result.epsilons,
                {(of.to, of.ends): of.correlation for of in result.related if of.basin == ANSWER},
                f"{about}: the noise that half of the pushes survive",
            ),
            fifty,
        ),
    }


def lines(result: RobustnessResult) -> list[str]:
    """The result in words."""
    text = []
    for kind, of in vars(result.ends).items():
        if not of.n:
            continue
        for basin in BASINS:
            by_kind = of.epsilon_50[basin]
            line = f"{of.n} {kind} ends: half of random pushes return to the {basin} up to RMS "
            line += by_kind[RANDOM].text()
            if LEADING in by_kind:
                line += f", along leading eigenvectors {by_kind[LEADING].text()}"
            text.append(line)
    text += [
        f"epsilon_50 of the {of.basin} against {of.to}, {of.ends} ends (n = {of.n}): rank "
        f"correlation {of.correlation.text('+.2f')}"
        for of in result.related
        if of.ends == "all"
    ]
    return text
