"""Is what can be read from a state used? Probes and SAE features, each beside its ablation.

Probes of candidates (or facts), of the solution, of violations and of whether a cell is answered
right are trained on the asked cells of some puzzles. On the others their directions are taken out
of the state, and the runs go on. What that costs is compared with random directions, as many, with
random mixtures of the states, which hold as much of their variance, and with the directions of
probes of shuffled labels; for SAE features with others that fire about as often and as strongly.
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd

from trm_interp.analysis.estimates import Estimate
from trm_interp.analysis.resample import mean_estimate
from trm_interp.figures.used import used_figure
from trm_interp.patch.patching import OUTCOMES
from trm_interp.recording.site_reader import split_puzzles
from trm_interp.runtime.arrays import Arrays
from trm_interp.runtime.limits import counted
from trm_interp.runtime.records import Record
from trm_interp.runtime.runs import Run
from trm_interp.runtime.shards import divided, noted, shard_ends
from trm_interp.studies.ablated import (
    CONTROLS,
    Fitted,
    Removal,
    fit,
    measured,
)
from trm_interp.studies.asked_rows import KINDS, batches, moments_of
from trm_interp.studies.causal_settings import UsedConfig
from trm_interp.studies.memory import for_used
from trm_interp.studies.results import Figures, OnCheckpointResult, Progress, Tell, results_of
from trm_interp.studies.sae_of_state import StateSAE, open_state_sae
from trm_interp.studies.subject import Subject, open_subject

Config = UsedConfig
APART = ("out", "static", "style", "width", "overwrite", "resume", "ckpt", "puzzles", "device")
LOSS = OUTCOMES.index("loss")
SHOWN = OUTCOMES[:3]  # exact, cells, loss


@dataclass(frozen=True, kw_only=True)
class Ablated(Record):
    """What taking out some directions of a state changes at the end of the run.

    `moment`: supervision steps done; `label`: a kind of labels or one of them; `what`: probes or
    features; `dims`: how many. `auc`: how well they tell the label there, on unseen puzzles;
    `moved`: how far the state moves, RMS; `exact`, `cells`, `loss`: changes, the loss in nats per
    cell; `beyond`: the change of the loss less that of each control, in the same puzzles.
    """

    moment: int
    site: str
    label: str
    what: str
    dims: int
    auc: Estimate
    moved: Estimate
    exact: Estimate
    cells: Estimate
    loss: Estimate
    beyond: dict[str, Estimate]

    @property
    def is_used(self) -> bool:
        """Whether it costs more loss than every control, by the intervals."""
        return bool(self.beyond) and all((one.low or 0) > 0 for one in self.beyond.values())


@dataclass(frozen=True, kw_only=True)
class UsedResult(OnCheckpointResult):
    """`n_train`, `n_test`: puzzles; `solved`: of the held-out ones, as they are; `loss`: their mean
    loss. `seen_by_sae`: held-out puzzles that the SAE was trained on, None without one. `ablated`:
    whole kinds of labels; single ones are in the table."""

    settings: dict[str, Any]
    n_train: int
    n_test: int
    solved: int
    loss: float
    seen_by_sae: int | None
    ablated: list[Ablated]


Result = UsedResult


def run(config: UsedConfig, tell: Tell, progress: Progress) -> UsedResult:
    """Fit on some puzzles, take out on the others. `resume` continues a run that was killed."""
    subject = open_subject(config, tell)
    sae = None if config.sae is None else open_state_sae(config.sae, subject)
    noted(sae=None if sae is None else sae.identity)
    for_used(subject, config)
    train, test = split_puzzles(subject.puzzles.inputs, config.held_out, config.seed)
    subject = subject.compiled_for(config, config.steps * config.limit * 20, tell)
    identity = {k: v for k, v in asdict(config).items() if k not in APART} | {
        "sae": "None" if sae is None else sae.identity,
        "compiled": subject.compiled,
        "device": subject.device.type,
        "checkpoint_sha256": subject.checkpoint.sha256,
        "data_sha256": dict(subject.puzzles.sha256),
    }
    with results_of(
        "used", config, ("used",), identity=identity, tell=tell, progress=progress
    ) as results:
        fitted, arrays = take_out(subject, config, train, test, sae, results.run)
        table = ablation_table(fitted.removals, arrays, config.seed)
        solved = arrays["unchanged"][:, OUTCOMES.index("exact")]
        result = UsedResult(
            **subject.provenance,
            settings=asdict(config) | {"sae": None if config.sae is None else str(config.sae)},
            n_train=len(train),
            n_test=len(test),
            solved=int(solved.sum()),
            loss=float(arrays["unchanged"][:, LOSS].mean()),
            seen_by_sae=None if sae is None else sae.n_trained_on(subject, test),
            ablated=whole_kinds(table),
        )
        results.write(figures(result, table), {})
        return results.finish(result)


def take_out(
    subject: Subject,
    config: UsedConfig,
    train: np.ndarray,
    test: np.ndarray,
    sae: StateSAE | None,
    run: Run,
) -> tuple[Fitted, Arrays]:
    """What was fitted, and the arrays of `measured` over all held-out puzzles. Progress counts
    reruns; fits count as a tenth of the work."""
    moments = moments_of(subject, config)
    share = len(moments) * 10
    fitted = fit(subject, config, moments, train, sae, lambda done: run.advance(done, share))
    total, done = len(test) * len(fitted.removals), 0

    def advance(more: int) -> None:
        nonlocal done
        done += more
        run.advance(total + 9 * done, total * 10)

    work = list(batches(subject, config, moments, test))
    names = [f"measured-{name}" for name, _ in work]
    pieces = divided(names, lambda i: measured(subject, config, fitted, work[i][1](), sae, advance))
    parts = [run.part(name, None, get) for name, get in zip(names, pieces, strict=False)]
    shard_ends()
    axis = {"unchanged": 0}
    arrays = {
        name: np.concatenate([part[name] for part in parts], axis.get(name, 1)) for name in parts[0]
    }
    return fitted, arrays


def ablation_table(removals: list[Removal], arrays: Arrays, seed: int) -> pd.DataFrame:
    """A row for everything that is taken out: means over held-out puzzles with their intervals,
    controls as the mean of their draws; `beyond_CONTROL`: the loss less that of the control."""
    by_row: dict[tuple[Any, ...], list[int]] = {}
    for i, one in enumerate(removals):
        key = one.moment.done, one.moment.site, one.label, one.what, one.dims
        by_row.setdefault(key, []).append(i)
    losses = {key: arrays["change"][own, :, LOSS].mean(0) for key, own in by_row.items()}
    rows = []
    for key, own in by_row.items():
        done, site, label, what, dims = key
        row = dict(zip(("moment", "site", "label", "what", "dims"), key, strict=True))
        row |= _estimated("auc", arrays["auc"][own].mean(0), seed)
        row |= _estimated("moved", arrays["moved"][own].mean(0), seed)
        for name in SHOWN:
            change = arrays["change"][own, :, OUTCOMES.index(name)].mean(0)
            row |= _estimated(name, change, seed)
        for control in CONTROLS.get(what, ()):
            other = _control(losses, done, site, label, control, dims)
            if other is not None:
                row |= _estimated(f"beyond_{control}", losses[key] - other, seed)
        rows.append(row | {"n": arrays["change"].shape[1]})
    return pd.DataFrame(rows)


def _control(losses: dict, done: int, site: str, label: str, what: str, dims: int) -> Any:
    """The losses of a control: of this label, or of all with as many dimensions."""
    own = losses.get((done, site, label, what, dims))
    return losses.get((done, site, "", what, dims)) if own is None else own


def _estimated(name: str, values: np.ndarray, seed: int) -> dict[str, float]:
    there = values[np.isfinite(values)]
    if not len(there):
        return {name: np.nan, f"{name}_low": np.nan, f"{name}_high": np.nan}
    of = mean_estimate(there, seed)
    ends = {"": of.value, "_low": of.low, "_high": of.high}
    return {f"{name}{end}": np.nan if value is None else value for end, value in ends.items()}


def whole_kinds(table: pd.DataFrame) -> list[Ablated]:
    """The probes and features of whole kinds of labels."""
    of_kinds = []
    for row in table.to_dict("records"):
        if row["what"] in CONTROLS and row["label"] in KINDS:
            of_kinds.append(
                Ablated(
                    moment=int(row["moment"]),
                    site=row["site"],
                    label=row["label"],
                    what=row["what"],
                    dims=int(row["dims"]),
                    **{name: _estimate(row, name) for name in ("auc", "moved", *SHOWN)},
                    beyond={
                        control: _estimate(row, f"beyond_{control}")
                        for control in CONTROLS[row["what"]]
                        if f"beyond_{control}" in row and pd.notna(row[f"beyond_{control}"])
                    },
                )
            )
    return of_kinds


def _estimate(row: dict[str, Any], name: str) -> Estimate:
    ends = (row[name], row[f"{name}_low"], row[f"{name}_high"])
    value, low, high = (None if pd.isna(end) else float(end) for end in ends)
    return Estimate(value=value, low=low, high=high)


def figures(result: UsedResult, table: pd.DataFrame) -> Figures:
    """The change of the loss over moments, beside that of the controls."""
    title = f"{result.model_name}: what taking out directions costs, {result.n_test} unseen puzzles"
    kinds = list(dict.fromkeys(one.label for one in result.ablated))
    how = "at every step from there on" if result.settings["lasting"] else "once"
    return {"used": (used_figure(table, kinds, CONTROLS, how, title), table)}


def lines(result: UsedResult) -> list[str]:
    """Of every kind and state the moment at which it costs the most."""
    text = [
        f"probes of {counted(result.n_train, 'puzzle')}, taken out in {result.n_test} others, of "
        f"which {result.solved} are solved; loss {result.loss:.4f} nats per cell"
    ]
    if result.seen_by_sae:
        text.append(f"the SAE was trained on {result.seen_by_sae} of the held-out puzzles")
    groups: dict[tuple[str, str, str], list[Ablated]] = {}
    for one in result.ablated:
        groups.setdefault((one.label, one.site, one.what), []).append(one)
    for (label, site, what), each in groups.items():
        one = max(each, key=lambda one: one.loss.value or 0.0)
        beyond = ", ".join(f"{name} {of.text('+.3f')}" for name, of in one.beyond.items())
        verdict = "used" if one.is_used else "not shown to be used"
        where = f"{label}, {what} in {site} after step {one.moment}"
        text.append(
            f"{where}: AUC {one.auc.text('.2f')}; without "
            f"{'it' if one.dims == 1 else 'them'} loss {one.loss.text('+.3f')}, exact "
            f"{one.exact.text('+.2f')}; loss beyond that without {beyond}: {verdict}"
        )
    return text
