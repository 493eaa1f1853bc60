"""What claims are judged by: typed results of studies, searches and SAEs."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from trm_interp.analysis.estimates import Number
from trm_interp.runtime.records import Record, optional
from trm_interp.sae.results import Baseline, FeaturesSummary, SAEMeasures
from trm_interp.search.results import Curve, SearchSummary
from trm_interp.studies.basins import BasinsResult
from trm_interp.studies.divergence import DivergenceResult
from trm_interp.studies.losses import LossesResult
from trm_interp.studies.origins import OriginsResult
from trm_interp.studies.outcomes import OutcomesResult
from trm_interp.studies.settling import SettlingResult
from trm_interp.studies.stability import StabilityResult


@dataclass(frozen=True, kw_only=True)
class SearchShares(Record):
    """Of a search of `n` puzzles with `k` trajectories: shares solved by supervision step.

    `baseline`: by one plain run; `best_q`: by the trajectory of the highest q; `pass_at_k`: by any.
    `gained`: puzzles that `best_q` solves and the plain run does not, at every step.
    """

    n: int
    k: int
    steps: int
    sigma: float
    target: str
    baseline: Curve
    best_q: Curve
    pass_at_k: Curve
    gained: list[int] | None = optional()

    @classmethod
    def of_search(cls, search: SearchSummary) -> "SearchShares":
        """What claim T2 needs of a search."""
        settings = search.config
        return cls(
            n=search.n,
            k=settings.k,
            steps=settings.steps,
            sigma=settings.sigma,
            target=settings.target,
            baseline=search.baseline,
            best_q=search.best_q,
            pass_at_k=search.pass_at_k,
            gained=search.gained,
        )


@dataclass(frozen=True, kw_only=True)
class SAEQuality(Record):
    """Of one SAE, or means over `seeds` of them: fraction of variance unexplained, features active
    at a time, share of dead ones, share of the loss `recovered` over zeros in the loop. `topk`: the
    FVU of that other kind of SAE, in words. `baselines`: other codes of the same rows by name;
    `exact`: accuracy of the clean run and with the SAE or a baseline spliced in, by name."""

    n: int
    seeds: int
    d_in: int
    d_sae: int
    fvu: Number
    fvu_low: Number
    fvu_high: Number
    l0: float
    dead: float
    recovered: Number
    topk: str = "not run"
    baselines: dict[str, Baseline] | None = optional()
    exact: dict[str, Number] | None = optional()

    @classmethod
    def of_measures(cls, measures: SAEMeasures) -> "SAEQuality":
        """What claim S1 needs of one SAE."""
        loop = measures.spliced_everywhere
        return cls(
            n=measures.n_puzzles,
            seeds=1,
            d_in=measures.d_in,
            d_sae=measures.d_sae,
            fvu=measures.fvu.value,
            fvu_low=measures.fvu.low,
            fvu_high=measures.fvu.high,
            l0=measures.l0,
            dead=measures.dead,
            recovered=loop.recovered_over_zero.value if loop else None,
            baselines=measures.baselines,
            exact={name: run.exact.value for name, run in loop.runs.items()} if loop else None,
        )


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """Results by the name of their job; None where there is none."""

    table1: OutcomesResult | None = None
    table2: SearchShares | None = None
    fig1: FeaturesSummary | None = None
    fig3: BasinsResult | None = None
    fig4: LossesResult | None = None
    fig5: DivergenceResult | None = None
    settling: SettlingResult | None = None
    stability: StabilityResult | None = None
    sae: SAEQuality | None = None
    origins: OriginsResult | None = None

    @classmethod
    def of(cls, results: Mapping[str, Any]) -> "Evidence":
        """From results by the names of their jobs; those that no claim needs are left out."""
        names = {one.name for one in fields(cls)}
        evidence = {name: result for name, result in results.items() if name in names}
        if isinstance(search := evidence.get("table2"), SearchSummary):
            evidence["table2"] = SearchShares.of_search(search)
        if isinstance(measures := evidence.get("sae"), SAEMeasures):
            evidence["sae"] = SAEQuality.of_measures(measures)
        return cls(**evidence)
