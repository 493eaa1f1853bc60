"""The lens: the output head on every recorded z_H and z_L. What is answered when?"""

from typing import Any

import numpy as np
import pandas as pd
import torch

from trm_interp.analysis.auc import FEWEST, auc_with_bounds
from trm_interp.analysis.lens import agreement, decided, decided_share, mean_among, revisions
from trm_interp.analysis.resample import mean_with_bounds
from trm_interp.core.models.trm import TRM
from trm_interp.figures.lens import lens_figure
from trm_interp.recording.site_reader import SiteReader, final_solved
from trm_interp.recording.store import Store
from trm_interp.studies.config import LensConfig
from trm_interp.studies.results import Progress, Tell, results_of
from trm_interp.studies.subject import open_model, opening, said_of

SITES = ("z_H", "z_L")
CURVES = {  # by puzzle and tick
    "right": "blank cells answered right",
    "exact": "puzzles with every cell right",
    "final": "blank cells answered as at the end of the run",
    "decided": "blank cells whose answer does not change any more",
}
NUMBERS = {  # by puzzle
    "decided_tick": "network evaluation at which a blank cell is decided (its index)",
    "revisions": "changes of a blank cell's answer",
    "revised": "share of blank cells that change at all after the first tick",
}
TABLES = ("lens", "decisions")


@torch.no_grad()
def head_answers(model: TRM, states: np.ndarray) -> np.ndarray:
    """Tokens [tick, cell] that the output head reads from states [tick, pos, d_model]."""
    z = torch.from_numpy(states).to(model.lm_head.weight.device).float()
    return model.readout(z)[0].argmax(-1).to(torch.uint8).cpu().numpy()


def run(config: LensConfig, tell: Tell, progress: Progress) -> dict[str, Any]:
    with opening(config, "z_L,z_H", tell, whole_boards=True) as store:
        model = open_model(store, config.ckpt, config.device).model
        with results_of("lens", config, TABLES) as results:
            readers = {site: SiteReader(store, site) for site in SITES}
            curves, numbers = read_all(store, model, readers, progress)
            solved = final_solved(store)
            said = said_of(store)
            per_step = model.config.h_cycles * (model.config.l_cycles + 1)
            starts = [step * per_step for step in range(store.n_steps)]
            groups = {"solved": solved, "failed": ~solved}
            for name, group in groups.items():
                if group.sum() < FEWEST:
                    tell(f"{int(group.sum())} {name} puzzles: a comparison needs {FEWEST}")
            over_time = _over_time(curves, readers, groups, config.seed)
            table = _table(numbers, groups, config.seed)
            title = f"What the output head reads from {' and '.join(SITES)} at every tick"
            results.figure("lens", lens_figure(over_time, CURVES, starts, title), over_time)
            results.table("decisions", table)
            last = over_time.groupby(["site", "curve", "outcome"], sort=False).tail(1)
            return results.finish(
                said
                | {"n_solved": int(solved.sum()), "settings": {"seed": config.seed}}
                | {"decisions": table.to_dict("records"), "last_tick": last.to_dict("records")}
                | {"auc_for_failed": _auc(numbers, solved, config.seed)}
            )


def read_all(
    store: Store, model: TRM, readers: dict[str, SiteReader], progress: Progress
) -> tuple[dict[tuple[str, str], np.ndarray], dict[tuple[str, str], np.ndarray]]:
    """By site and name: curves [puzzle, tick] and numbers [puzzle]. One puzzle in memory."""
    curves: dict[tuple[str, str], list[np.ndarray]] = {}
    numbers: dict[tuple[str, str], list[float]] = {}
    for puzzle in range(store.n_puzzles):
        progress(puzzle, store.n_puzzles)
        label, last = store["labels"][puzzle], store["predictions"][puzzle, -1]
        blank, everything = store["inputs"][puzzle] == 1, np.ones(len(label), bool)
        for site, reader in readers.items():
            answers = head_answers(model, reader.read(puzzle))
            at, changes = decided(answers), revisions(answers)
            found = {
                "right": agreement(answers, label, blank),
                "exact": (agreement(answers, label, everything) == 1).astype(float),
                "final": agreement(answers, last, blank),
                "decided": decided_share(at, blank, len(answers)),
            }
            for name, values in found.items():
                curves.setdefault((site, name), []).append(values)
            ticks = np.asarray(reader.indices)[at]
            means = (mean_among(v, blank) for v in (ticks, changes, (changes > 0).astype(int)))
            for name, value in zip(NUMBERS, means, strict=True):
                numbers.setdefault((site, name), []).append(float(value))
    progress(store.n_puzzles, store.n_puzzles)
    return (
        {key: np.stack(values) for key, values in curves.items()},
        {key: np.array(values) for key, values in numbers.items()},
    )


def _over_time(
    curves: dict[tuple[str, str], np.ndarray],
    readers: dict[str, SiteReader],
    groups: dict[str, np.ndarray],
    seed: int,
) -> pd.DataFrame:
    """Rows of site, curve, outcome, tick: mean over puzzles and its 95 % bootstrap interval."""
    rows = []
    for (site, name), values in curves.items():
        for outcome, group in groups.items():
            if not group.any():
                continue
            mean, low, high = mean_with_bounds(values[group], seed)
            frame = {"tick": readers[site].indices, "mean": mean, "low": low, "high": high}
            known = {"site": site, "curve": name, "outcome": outcome, "n": int(group.sum())}
            rows.append(pd.DataFrame(frame).assign(**known))
    return pd.concat(rows, ignore_index=True)


def _table(
    numbers: dict[tuple[str, str], np.ndarray], groups: dict[str, np.ndarray], seed: int
) -> pd.DataFrame:
    rows = []
    for (site, name), values in numbers.items():
        for outcome, group in groups.items():
            if group.any():
                mean, low, high = map(float, mean_with_bounds(values[group], seed))
                row = {"site": site, "number": name, "what": NUMBERS[name], "outcome": outcome}
                n = int(np.isfinite(values[group]).sum())
                rows.append(row | {"n": n, "mean": mean, "low": low, "high": high})
    return pd.DataFrame(rows)


def _auc(
    numbers: dict[tuple[str, str], np.ndarray], solved: np.ndarray, seed: int
) -> dict[str, dict[str, float]]:
    """How well each number tells failed puzzles from solved ones (puzzles with blank cells)."""
    found = {}
    for (site, name), values in numbers.items():
        there = np.isfinite(values)
        found[f"{site} {name}"] = auc_with_bounds(values[there], ~solved[there], seed)
    return found


def lines(summary: dict[str, Any]) -> list[str]:
    return [
        f"{row['site']} of {row['n']} {row['outcome']} puzzles: {row['what']}: "
        f"{row['mean']:.3g} [{row['low']:.3g}, {row['high']:.3g}]"
        for row in summary["decisions"]
        if row["mean"] is not None
    ]
