"""`trm-interp steer`: change one feature while the model runs, and see what becomes of the puzzles.

The state keeps what the SAE does not explain: only (new activation - old) times the decoder row is
added. Controls are features that fire about as often and as strongly; each gets the same change
(ablation of itself, or the same length along its own row).
"""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from rich.table import Table
from torch import Tensor

from trm_interp.analysis.resample import mean_with_bounds
from trm_interp.cli.tables import show
from trm_interp.core.clock import Tick
from trm_interp.recording.site_reader import SiteReader
from trm_interp.runtime.errors import UserError
from trm_interp.runtime.files import plain, write_json
from trm_interp.runtime.limits import parse_indices, shown
from trm_interp.runtime.locks import locked_beside
from trm_interp.runtime.outputs import require_replaceable
from trm_interp.runtime.shapes import Float, Int
from trm_interp.sae.config import SteerConfig
from trm_interp.sae.measures import Usage, usage
from trm_interp.sae.opened import Opened, Progress, opening, quiet
from trm_interp.sae.splice import Edit, Outcome, hook_name, open_loop

Mode = Literal["ablate", "clamp", "steer"]
NEAREST = 0.05  # share of the features that fire from which controls are drawn


@dataclass(frozen=True)
class Steered:
    """What every result file has, by which it is recognised."""

    mode: str
    feature: dict[str, Any]
    controls: list[dict[str, Any]]
    rank_p: float


class Change(NamedTuple):
    """What is done to a feature. `value` is an activation; not used by ablate."""

    feature: int
    mode: Mode
    value: float


def edit_of(
    encode: Callable[[Tensor], Tensor],
    rows: Float[Tensor, "feature d_model"],
    change: Change,
    positions: Sequence[int] | None = None,
) -> Edit:
    """The edit of a state [batch, pos, d_model] that makes this change at some positions.

    ablate: activation to 0. clamp: to `value`. steer: `value` more, whether it fires or not.
    """
    row = rows[change.feature]

    @torch.no_grad()
    def edit(state: Tensor) -> Tensor:
        at = slice(None) if positions is None else list(positions)
        part = state[:, at].float()
        if change.mode == "steer":
            more = torch.full(part.shape[:-1], change.value, device=part.device)
        else:
            target = change.value if change.mode == "clamp" else 0.0
            more = target - encode(part)[..., change.feature]
        edited = state.clone()
        edited[:, at] = (part + more[..., None] * row).to(state.dtype)
        return edited

    return edit


def matched_controls(found: Usage, feature: int, n: int, seed: int) -> Int[np.ndarray, " control"]:
    """Random features among those nearest in log firing share and log mean activation.

    UserError where fewer than n others fire.
    """
    fires = np.flatnonzero((found.density > 0) & (np.arange(len(found.density)) != feature))
    if len(fires) < n:
        raise UserError(f"only {len(fires)} other features fire: lower --controls to that or less")
    use = np.log(np.stack([found.density[fires], found.average[fires]]))
    own = np.log(np.array([[found.density[feature]], [found.average[feature]]]))
    distance = np.abs(use - own).sum(0)
    near = fires[np.argsort(distance, kind="stable")[: max(n, round(NEAREST * len(fires)))]]
    return np.sort(np.random.default_rng([seed, 0xC0]).choice(near, n, replace=False))


def effect(
    clean: Outcome, changed: Outcome, seed: int, step: int = -1
) -> dict[str, dict[str, float]]:
    """Change of a step's exact and cell accuracy and loss, paired; 95 % over puzzles."""
    effects = {}
    for name in Outcome._fields:
        before, after = (getattr(run, name)[:, step].astype(float) for run in (clean, changed))
        mean, low, high = mean_with_bounds(after - before, seed)
        effects[name] = {"value": float(mean), "low": float(low), "high": float(high)}
    return effects


def steer(
    config: SteerConfig, tell: Callable[[str], None] = print, progress: Progress = quiet
) -> dict[str, Any]:
    """The feature's effect beside its controls', as the command reports it.

    `rank_p`: share of the controls, and the feature itself, with at least its effect on the loss.
    """
    held = locked_beside(config.out) if config.out else nullcontext()
    with opening(config, tell) as opened, held:
        if config.out:
            require_replaceable(config.out, Steered, "steer", config.overwrite)
        if config.feature >= opened.d_sae:
            raise UserError(f"--feature {shown(config.feature)}: there are {opened.d_sae}, from 0")
        found = usage(opened)
        if not found.density[config.feature]:
            raise UserError(f"feature {config.feature} never fires on these puzzles")
        loop, wrong = open_loop(opened, config.ckpt, config.force_mismatch, config.batch_size)
        ticks = _ticks(opened, config.ticks)
        names = [hook_name(opened.site, tick) for tick in ticks]
        positions = _positions(opened, config.cells)
        controls = matched_controls(found, config.feature, config.controls, config.seed)
        rows = opened.sae.W_dec.detach().float()
        clean = loop.run()
        effects: list[dict[str, Any]] = []
        for done, feature in enumerate([config.feature, *controls.tolist()]):
            progress(done, 1 + len(controls))
            value = _value(config, found, rows, feature)
            edit = edit_of(opened.sae.encode, rows, Change(feature, config.mode, value), positions)
            changed = loop.run(names, edit)
            row = {"feature": feature, "value": value, **effect(clean, changed, config.seed)}
            at_once = effect(clean, changed, config.seed, ticks[-1].step)
            effects.append({**row, "after_last_change": at_once})
        progress(1 + len(controls), 1 + len(controls))
        lost = np.array([abs(e["loss"]["value"]) for e in effects])
        result = {
            **opened.said,
            "model_mismatch": wrong,
            "mode": config.mode,
            "relative_value": None if config.mode == "ablate" else config.value,
            "steps": loop.n_steps,
            "ticks_changed": len(names),
            "last_change": ticks[-1].step,
            "cells_changed": config.cells or "all",
            "clean": {name: float(getattr(clean, name)[:, -1].mean()) for name in Outcome._fields},
            "feature": effects[0],
            "controls": effects[1:],
            "rank_p": float((lost >= lost[0]).mean()),
        }
        if config.out:
            write_json(config.out, plain(result))
    return result


def _value(config: SteerConfig, found: Usage, rows: Tensor, feature: int) -> float:
    """The activation for this feature: a share of the largest one; a control moves as far."""
    own = config.value * float(found.largest[config.feature])
    if config.mode == "clamp":
        return config.value * float(found.largest[feature])
    return own * float(rows[config.feature].norm() / rows[feature].norm().clamp(min=1e-12))


def _ticks(opened: Opened, ticks: str | None) -> list[Tick]:
    """These ticks of the run. UserError where the site is not written."""
    chosen = parse_indices(ticks, "ticks")
    reader = SiteReader(opened.store, opened.site)
    if chosen is not None:
        reader = SiteReader(opened.store, opened.site, chosen)
    return reader.ticks


def _positions(opened: Opened, cells: str | None) -> list[int] | None:
    chosen = parse_indices(cells, "cells")
    if chosen is None:
        return None
    model = opened.store.model
    if chosen[-1] >= model.cells:
        raise UserError(f"--cells {cells}: cells are 0 to {model.cells - 1}")
    return [model.prefix + cell for cell in chosen]


def report(result: dict[str, Any]) -> None:
    """A table for people: the feature above its controls."""
    clean, controls = result["clean"], result["controls"]
    table = Table(
        title=f"{result['mode']} feature {result['feature']['feature']} at "
        f"{result['ticks_changed']} ticks, cells {result['cells_changed']}, "
        f"{result['n_puzzles']} puzzles",
        caption=f"change at the last step; clean: exact {clean['exact']:.3f}, cells "
        f"{clean['cells']:.3f}, loss {clean['loss']:.4f} nats per cell",
    )
    for heading in ("feature", "exact", "cells right", "loss"):
        table.add_column(heading, justify="right")
    for at, row in enumerate([result["feature"], *controls]):
        cells = [
            f"{row[name]['value']:+.4f} [{row[name]['low']:+.4f}, {row[name]['high']:+.4f}]"
            for name in Outcome._fields
        ]
        table.add_row(f"{row['feature']}" + ("" if at == 0 else " (control)"), *cells)
    show(table)
    print(
        f"at least this effect on the loss: {result['rank_p']:.0%} of the feature and its "
        f"{len(controls)} controls"
    )
    losses = [row["after_last_change"]["loss"]["value"] for row in (result["feature"], *controls)]
    if result["last_change"] < result["steps"] - 1:
        print(
            f"after supervision step {result['last_change'] + 1}, that of the last change: loss "
            f"{losses[0]:+.4f}, of the controls {min(losses[1:]):+.4f} to {max(losses[1:]):+.4f}"
        )
    if wrong := result["mismatch"] or result["model_mismatch"]:
        print(f"mismatch: {wrong}")
