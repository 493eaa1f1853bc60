"""`trm-interp steer`: change one feature while the model runs, and see what becomes of the puzzles.

The state keeps what the SAE does not explain: only (new activation - old) times the decoder row is
added. Controls are features that fire about as often and as strongly; each gets the same change
(ablation of itself, or the same length along its own row).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from rich.table import Table
from torch import Tensor

from trm_interp.analysis.estimates import Estimate
from trm_interp.core.clock import Tick
from trm_interp.recording.site_reader import SiteReader
from trm_interp.runtime.arrays import Arrays
from trm_interp.runtime.errors import UserError
from trm_interp.runtime.file_run import FileRun
from trm_interp.runtime.limits import counted, parse_indices, shown
from trm_interp.runtime.outputs import own_json
from trm_interp.runtime.runs import quiet
from trm_interp.runtime.shapes import Float, Int
from trm_interp.runtime.shards import divided, shard_ends
from trm_interp.sae.applied import AppliedSAE, Progress, applying
from trm_interp.sae.measures import Usage, feature_usage
from trm_interp.sae.results import Effect, FeatureEffect, Steering
from trm_interp.sae.settings import SteerConfig
from trm_interp.sae.splice import (
    Edit,
    Edits,
    Outcome,
    Place,
    check_spliceable,
    estimates,
    open_loop,
    static_parts,
)

COMMAND = "steer"
Mode = Literal["ablate", "clamp", "steer"]
NEAREST = 0.05  # share of the features that fire from which controls are drawn


@dataclass(frozen=True)
class Recognised:
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
    static: Float[Tensor, "batch pos d_model"] | float = 0.0,
) -> Edit:
    """The edit of a state [batch, pos, d_model] that makes this change at some positions.

    ablate: activation to 0. clamp: to `value`. steer: `value` more, whether it fires or not.
    `static`: what is taken from the state before it is encoded, see `splice.Place`.
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
            coded = part - (static[:, at] if isinstance(static, Tensor) else static)
            more = target - encode(coded)[..., change.feature]
        edited = state.clone()
        edited[:, at] = (part + more[..., None] * row).to(state.dtype)
        return edited

    return edit


def matched_controls(usage: Usage, feature: int, n: int, seed: int) -> Int[np.ndarray, " control"]:
    """Random features among those nearest in log firing share and log mean activation.

    UserError where fewer than n others fire.
    """
    return matched(usage.density, usage.mean_activation, feature, n, seed)


def matched(
    density: Float[np.ndarray, " feature"],
    mean: Float[np.ndarray, " feature"],
    feature: int,
    n: int,
    seed: int,
) -> Int[np.ndarray, " control"]:
    """`matched_controls` by firing share and mean activation."""
    fires = np.flatnonzero((density > 0) & (np.arange(len(density)) != feature))
    if len(fires) < n:
        raise UserError(f"only {len(fires)} other features fire: lower --controls to that or less")
    use = np.log(np.stack([density[fires], mean[fires]]))
    own = np.log(np.array([[density[feature]], [mean[feature]]]))
    distance = np.abs(use - own).sum(0)
    near = fires[np.argsort(distance, kind="stable")[: max(n, round(NEAREST * len(fires)))]]
    return np.sort(np.random.default_rng([seed, 0xC0]).choice(near, n, replace=False))


def effect(clean: Outcome, changed: Outcome, seed: int, step: int = -1) -> Effect:
    """Change of a step's exact and cell accuracy and loss, paired; 95 % over puzzles."""
    differences = {
        name: getattr(changed, name)[:, step].astype(float) - before[:, step].astype(float)
        for name, before in clean._asdict().items()
    }
    return Effect(**estimates(differences, seed))


def run(
    config: SteerConfig, tell: Callable[[str], None] = print, progress: Progress = quiet
) -> Steering:
    """The effects of the feature and of its controls, as the command reports them. A shard runs
    some of them.

    `rank_p`: share of the controls, and the feature itself, with at least its effect on the loss.
    """
    inputs = {"sae": config.sae, "store": config.store, "ckpt": config.ckpt}
    with applying(config, tell) as applied:
        if config.feature >= applied.d_sae:
            raise UserError(f"--feature {shown(config.feature)}: there are {applied.d_sae}, from 0")
        if config.out is None:
            return _steer(config, applied, progress)
        with FileRun(
            config.out,
            COMMAND,
            own_json(Recognised, COMMAND),
            overwrite=config.overwrite,
            inputs=inputs,
            tell=tell,
            progress=progress,
        ) as output:
            result = _steer(config, applied, output.advance)
            output.write_json(result.to_json())
    return result


def _steer(config: SteerConfig, applied: AppliedSAE, progress: Progress) -> Steering:
    check_spliceable(applied)
    usage = feature_usage(applied)
    if not usage.density[config.feature]:
        raise UserError(f"feature {config.feature} never fires on these puzzles")
    loop, mismatch = open_loop(applied, config.ckpt, config.force_mismatch, config.batch_size)
    ticks = _ticks(applied, config.ticks)
    positions = _positions(applied, config.cells)
    controls = matched_controls(usage, config.feature, config.controls, config.seed)
    mean_row = torch.from_numpy(usage.mean_row)
    place = Place(applied.site, ticks, mean_row, static_parts(applied, applied.reader))
    rows = applied.sae.W_dec.detach().float()
    features = [config.feature, *controls.tolist()]
    values = [_value(config, usage, rows, feature) for feature in features]

    def compute(i: int) -> Arrays:
        if not i:
            return loop.run()._asdict()
        progress(i - 1, len(features))
        change = Change(features[i - 1], config.mode, values[i - 1])
        return loop.run(partial(_edits, applied, place, rows, change, positions))._asdict()

    names = ["clean", *(f"feature-{feature}" for feature in features)]
    outcomes = [Outcome(**get()) for get in divided(names, compute)]
    shard_ends()
    clean, *changed = outcomes
    effects = [
        FeatureEffect(
            feature=feature,
            value=value,
            **vars(effect(clean, of, config.seed)),
            after_last_change=effect(clean, of, config.seed, ticks[-1].step),
        )
        for feature, value, of in zip(features, values, changed, strict=True)
    ]
    progress(len(features), len(features))
    return Steering(
        **applied.measured_on,
        model_mismatch=mismatch,
        mode=config.mode,
        relative_value=None if config.mode == "ablate" else config.value,
        steps=loop.n_steps,
        ticks_changed=len(ticks),
        last_change=ticks[-1].step,
        cells_changed=config.cells or "all",
        clean={name: float(values[:, -1].mean()) for name, values in clean._asdict().items()},
        feature=effects[0],
        controls=effects[1:],
        rank_p=_rank(effects),
    )


def _edits(
    applied: AppliedSAE,
    place: Place,
    rows: Tensor,
    change: Change,
    positions: Sequence[int] | None,
    puzzles: slice,
) -> Edits:
    """The change at every hook point, for a batch of puzzles."""
    edit = edit_of(applied.sae.encode, rows, change, positions, place.of(puzzles))
    return dict.fromkeys(place.hooks, edit)


def _rank(effects: list[FeatureEffect]) -> float:
    """Share of the effects on the loss that are at least the first one's."""
    lost = np.array([abs(_known(one.loss.value)) for one in effects])
    return float((lost >= lost[0]).mean())


def _known(number: float | None) -> float:
    return np.nan if number is None else number


def _value(config: SteerConfig, usage: Usage, rows: Tensor, feature: int) -> float:
    """The activation for this feature: a share of the largest one; a control moves as far."""
    own = config.value * float(usage.largest[config.feature])
    if config.mode == "clamp":
        return config.value * float(usage.largest[feature])
    return own * float(rows[config.feature].norm() / rows[feature].norm().clamp(min=1e-12))


def _ticks(applied: AppliedSAE, ticks: str | None) -> list[Tick]:
    """These ticks of the run. UserError where the site is not written."""
    return SiteReader(applied.store, applied.site, parse_indices(ticks, "ticks")).ticks


def _positions(applied: AppliedSAE, cells: str | None) -> list[int] | None:
    chosen = parse_indices(cells, "cells")
    if chosen is None:
        return None
    model = applied.store.model
    if chosen[-1] >= model.cells:
        raise UserError(f"--at-cells {cells}: cells are 0 to {model.cells - 1}")
    return [model.prefix + cell for cell in chosen]


def lines(result: Steering) -> list[Table | str]:
    """A table for people, the feature above its controls, and what it means."""
    parts: list[Table | str] = [_effects_table(result)]
    effects = [result.feature, *result.controls]
    parts.append(
        f"at least this effect on the loss: {result.rank_p:.0%} of the feature and its "
        f"{len(result.controls)} controls"
    )
    losses = [_known(one.after_last_change.loss.value) for one in effects]
    if result.last_change < result.steps - 1:
        parts.append(
            f"after supervision step {result.last_change + 1}, that of the last change: loss "
            f"{losses[0]:+.4f}, of the controls {min(losses[1:]):+.4f} to {max(losses[1:]):+.4f}"
        )
    if mismatch := result.mismatch or result.model_mismatch:
        parts.append(f"mismatch: {mismatch}")
    return parts


def _effects_table(result: Steering) -> Table:
    clean = result.clean
    table = Table(
        title=f"{result.mode} feature {result.feature.feature} at "
        f"{counted(result.ticks_changed, 'tick')}, "
        f"cells {result.cells_changed}, {counted(result.n_puzzles, 'puzzle')}",
        caption=f"change at the last step; clean: exact {clean['exact']:.3f}, cells "
        f"{clean['cells']:.3f}, loss {clean['loss']:.4f} nats per cell",
    )
    for heading in ("feature", "exact", "cells right", "loss"):
        table.add_column(heading, justify="right")
    for one in (result.feature, *result.controls):
        name = f"{one.feature}" + ("" if one is result.feature else " (control)")
        table.add_row(name, *(_signed(change) for change in (one.exact, one.cells, one.loss)))
    return table


def _signed(change: Estimate) -> str:
    return change.text("+.4f")
