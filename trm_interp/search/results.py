"""The summary of a search, as a dataclass with a JSON form."""

from dataclasses import asdict, dataclass, fields
from typing import Any, Self

import numpy as np
import pandas as pd

from trm_interp.analysis.estimates import Estimate
from trm_interp.analysis.outcomes import paired_difference
from trm_interp.runtime.errors import UserError
from trm_interp.runtime.records import AGAIN, Record, optional
from trm_interp.search.settings import SearchConfig

RULES = ("best_q", "vote", "vote_q")
SHARES = ("baseline", *RULES, "pass_at_k", "verified")
ALWAYS_SAVED = ("k", "steps", "sigma", "target")  # of the settings; others came later


@dataclass(frozen=True, kw_only=True)
class Curve(Record):
    """Share of the puzzles after every supervision step, with its 95 % Wilson interval."""

    share: list[float]
    low: list[float]
    high: list[float]


@dataclass(frozen=True, kw_only=True)
class SearchSummary(Record):
    """Shares over steps as in `selection.outcome_frame`, what was searched, and what it cost.

    `gained`: puzzles that `best_q` solves and `baseline` does not, at every step; their shares tell
    the rest. `evaluations`: network evaluations that were spent; `evaluations_of_the_full_grid`:
    those of all trajectories if each ran to the end. The JSON is flat: settings have no key of
    their own, and the bounds of a curve have keys such as `vote_low`.
    """

    ckpt: str
    checkpoint_sha256: str
    puzzles: str
    data_sha256: dict[str, str] | None = optional()
    dtype: str | None = optional()
    device: str | None = optional()
    n: int
    config: SearchConfig
    baseline: Curve
    best_q: Curve
    vote: Curve
    vote_q: Curve
    pass_at_k: Curve
    verified: Curve
    gained: list[int] | None = optional()
    evaluations: int
    evaluations_of_the_full_grid: int

    @property
    def curves(self) -> dict[str, Curve]:
        """By the names in SHARES."""
        return {name: getattr(self, name) for name in SHARES}

    @property
    def gain(self) -> list[Estimate]:
        """What `best_q` solves more than `baseline` after every step, as a share of the puzzles.
        Without intervals in files of earlier versions, which have no `gained`."""
        n, gains = self.n, []
        for step, (best, plain) in enumerate(
            zip(self.best_q.share, self.baseline.share, strict=True)
        ):
            if self.gained is None:
                gains.append(Estimate(value=best - plain, low=None, high=None))
                continue
            gained = self.gained[step]
            both, lost = round(best * n) - gained, round((plain - best) * n) + gained
            value, low, high = paired_difference(both, gained, lost, n - both - gained - lost)
            gains.append(Estimate(value=value, low=low, high=high))
        return gains

    def to_json(self) -> dict[str, Any]:
        flat = super().to_json()
        spread: dict[str, Any] = {}
        for name, value in flat.items():
            if name == "config":
                spread |= asdict(self.config)
            elif name in SHARES:
                spread |= {_of_curve(name, part): numbers for part, numbers in value.items()}
            else:
                spread[name] = value
        return spread

    @classmethod
    def from_json(
        cls, raw: Any, name: str = "", error: type[UserError] = UserError, advice: str = AGAIN
    ) -> Self:
        if isinstance(raw, dict):
            settings = {f.name: raw[f.name] for f in fields(SearchConfig) if f.name in raw}
            curves = {
                curve: {f.name: raw.get(_of_curve(curve, f.name)) for f in fields(Curve)}
                for curve in SHARES
            }
            raw = {**raw, "config": dict.fromkeys(ALWAYS_SAVED) | settings, **curves}
        return super().from_json(raw, name, error, advice)


def _of_curve(name: str, part: str) -> str:
    """The key of one part of a curve.

    >>> _of_curve("vote", "share"), _of_curve("vote", "low")
    ('vote', 'vote_low')
    """
    return name if part == "share" else f"{name}_{part}"


def gained_of(frame: pd.DataFrame) -> list[int]:
    """`SearchSummary.gained` of a `selection.outcome_frame`."""
    best, plain = (frame[name].to_numpy(dtype=bool) for name in ("best_q", "baseline"))
    return np.bincount(frame["step"].to_numpy(), weights=best & ~plain).astype(int).tolist()


def curves_of(shares: pd.DataFrame) -> dict[str, Curve]:
    """The curves of a `selection.share_table`."""
    return {
        name: Curve(**{f.name: shares[_of_curve(name, f.name)].tolist() for f in fields(Curve)})
        for name in SHARES
    }
