"""How much of one model's answer state does another one understand? A trained link between them.

Model A runs for some supervision steps. A link maps its answer state, position by position, to the
answer state that model B begins with; B's other states begin as ever, and B goes on. Both models
are frozen: only the link is trained, on puzzles that are not measured, until B's answer is right.

B sees the puzzle itself as well, so a link is worth what it adds to links that carry nothing that
was computed: the states of an untrained model of A's build, which know the clues and no more.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from trm_interp.analysis.estimates import Estimate, Number, Share
from trm_interp.analysis.outcomes import share_with_bounds
from trm_interp.analysis.resample import mean_estimate, ratio_with_bounds
from trm_interp.core.link import Link
from trm_interp.core.losses import PAD, answer_losses
from trm_interp.core.models.base import RecursiveModel, States
from trm_interp.figures.stitch import stitch_figure
from trm_interp.runtime.arrays import Arrays, Shapes
from trm_interp.runtime.errors import UserError
from trm_interp.runtime.limits import counted
from trm_interp.runtime.records import Record
from trm_interp.runtime.runs import Run
from trm_interp.runtime.shards import divided, is_shard, shard_ends
from trm_interp.studies.memory import for_stitch
from trm_interp.studies.results import Figures, OnCheckpointResult, Progress, Tell, results_of
from trm_interp.studies.settings import StitchConfig
from trm_interp.studies.subject import Subject, finite
from trm_interp.subjects.opening import open_both, open_device, read_checkpoint, require_task

Config = StitchConfig
APART = ("out", "static", "style", "width", "overwrite", "resume")
APART += ("source", "to", "puzzles", "device")
MEASURES = ("exact", "cells", "loss")
LINK, UNTRAINED, AS_IT_BEGINS, OTHER = (
    "link",
    "link from an untrained model",
    "link before training",
    "link, state of another puzzle",
)
CONTROLS = (UNTRAINED, AS_IT_BEGINS, OTHER)


@dataclass(frozen=True, kw_only=True)
class Arm(Record):
    """Puzzles solved, share of their cells that are right, and stablemax loss in nats per cell."""

    exact: Share
    cells: Estimate
    loss: Estimate


@dataclass(frozen=True, kw_only=True)
class StitchResult(OnCheckpointResult):
    """`arms`: B behind the trained link, behind the controls, and both models alone. `n_fitted`:
    puzzles that links were trained on, none of which are measured.

    `gained`: how much lower the loss is behind the link than behind each control, over the same
    puzzles. `understood`: of what B itself gains by as many steps as A ran, the share that the
    state of A brings, both beyond the link from an untrained model; None where B gains nothing.
    """

    to: str
    to_sha256: str
    settings: dict[str, Any]
    n_fitted: int
    arms: dict[str, Arm]
    gained: dict[str, Estimate]
    understood: Estimate


Result = StitchResult


class Measured(NamedTuple):
    """Of every puzzle: solved (0 or 1), share of its cells right, loss."""

    exact: np.ndarray
    cells: np.ndarray
    loss: np.ndarray

    @classmethod
    def cat(cls, parts: list["Measured"]) -> "Measured":
        return cls(*map(np.concatenate, zip(*parts, strict=True)))


class Stitched(NamedTuple):
    """The arms by name, and the training loss of both links, [link step]."""

    arms: dict[str, Measured]
    losses: dict[str, np.ndarray]


def run(config: StitchConfig, tell: Tell, progress: Progress) -> StitchResult:
    """Train both links, measure all arms. `resume` goes on with the arms that are missing."""
    source, target, fitted = open_pair(config, tell)
    for_stitch(source, target, config)
    identity = {k: v for k, v in asdict(config).items() if k not in APART} | {
        "device": source.device.type,
        "checkpoint_sha256": source.checkpoint.sha256,
        "to_sha256": target.checkpoint.sha256,
        "data_sha256": dict(source.puzzles.sha256),
    }
    names = ("arms", "puzzles", "fit")
    with results_of(
        "stitch", config, names, identity=identity, tell=tell, progress=progress
    ) as results:
        stitched = run_all(source, target, fitted, config, results.run)
        result, tables = measure(source, target, config, stitched, len(fitted.puzzles))
        results.write(figures(result, tables), tables)
        return results.finish(result)


def open_pair(config: StitchConfig, tell: Tell) -> tuple[Subject, Subject, Subject]:
    """Model A and model B on the puzzles that are measured, and A on those for the links.

    UserError where B is of another task, or the file has too few puzzles.
    """
    device = open_device(config.device)
    most = config.limit + config.fit
    checkpoint, puzzles = open_both(
        config.source, config.puzzles, device, most, config.skip_bad, tell
    )
    target = read_checkpoint(config.to, device, puzzles.task.cells, checkpoint.identifiers)
    require_task(puzzles, target)
    if len(puzzles) <= config.limit:
        raise UserError(
            f"{puzzles.source}: {counted(len(puzzles), 'puzzle')} for --limit {config.limit} and "
            f"none left for the links: lower --limit or give more --puzzles"
        )
    if len(puzzles) < most:
        tell(f"{len(puzzles) - config.limit} puzzles for the links, not {config.fit}")
    shown, rest = (puzzles.subset(at) for at in (slice(config.limit), slice(config.limit, None)))
    first = Subject(checkpoint, shown, device, config.batch_size)
    return first, replace(first, checkpoint=target), replace(first, puzzles=rest)


def run_all(
    source: Subject, target: Subject, fitted: Subject, config: StitchConfig, run: Run
) -> Stitched:
    """All arms, in parts that are saved one by one: models alone, and each link. A shard does
    some of them, and ends here."""
    n, total = len(source.puzzles), 2 * config.link_steps
    alone = {
        f"A alone, {counted(config.steps, 'step')}": (source, config.steps),
        f"B alone, {counted(config.then, 'step')}": (target, config.then),
        longer(config): (target, config.steps + config.then),
    }
    linked = {LINK: [LINK, AS_IT_BEGINS, OTHER], UNTRAINED: [UNTRAINED]}
    works: list[tuple[str, Shapes, Callable[[], Arrays]]] = [
        (f"alone-{i}", dict.fromkeys(MEASURES, (n,)), partial(_alone, *of))
        for i, of in enumerate(alone.values())
    ]
    for i, (model, names) in enumerate(
        zip((source.model, _untrained(source, config)), linked.values(), strict=True)
    ):
        shapes = {f"{arm}-{m}": (n,) for arm in range(len(names)) for m in MEASURES}
        pair, done = Pair(model, source, target, fitted, config), i * config.link_steps
        advance = partial(lambda done, step: run.advance(done + step, total), done)
        works.append(
            (
                f"link-{i}",
                shapes | {"fit": (config.link_steps,)},
                partial(pair.part, names, advance),
            )
        )
    pieces = divided([name for name, _, _ in works], lambda i: works[i][2]())
    parts = [
        run.part(name, shapes, get)
        for (name, shapes, _), get in zip(works, pieces, strict=not is_shard())
    ]
    shard_ends()
    run.advance(total, total)
    arms = dict(zip(alone, (Measured(**part) for part in parts), strict=False))
    losses = {}
    for (name, names), saved in zip(linked.items(), parts[len(alone) :], strict=True):
        losses[name] = saved["fit"]
        for arm, its_name in enumerate(names):
            arms[its_name] = Measured(**{m: saved[f"{arm}-{m}"] for m in MEASURES})
    return Stitched(arms, losses)


def _untrained(source: Subject, config: StitchConfig) -> RecursiveModel:
    """A model of the build of A."""
    trained = source.model
    fresh = type(trained)(trained.config, torch.Generator().manual_seed(config.seed))
    return fresh.to(source.device).eval()


def longer(config: StitchConfig) -> str:
    """The arm in which B runs as long as both together."""
    return f"B alone, {counted(config.steps + config.then, 'step')}"


@torch.no_grad()
def _alone(subject: Subject, steps: int) -> Arrays:
    parts = []
    for rows in subject.batches():
        state, x = subject.begin(rows)
        parts.append(_read(subject, rows, _advanced(subject.model, state, x, steps)))
    return Measured.cat(parts)._asdict()


def _advanced(model: RecursiveModel, state: States, x: Tensor, steps: int) -> States:
    for step in range(steps):
        state, _ = model.advance(state, x, step)
    return state


def _read(subject: Subject, rows: slice, state: States) -> Measured:
    model = subject.model
    logits = model.readout(model.answer_of(state)).logits
    labels = subject.labels[rows].to(model.device)
    loss, solved = answer_losses(logits, labels)
    labelled = labels != PAD
    right = (logits.argmax(-1) == labels) & labelled
    cells = right.sum(-1) / labelled.sum(-1).clamp(min=1)
    return Measured(*(of.double().cpu().numpy() for of in (solved, cells, loss)))


@dataclass
class Pair:
    """A link from `model`, which stands for A, to the model of `target`."""

    model: RecursiveModel
    source: Subject
    target: Subject
    fitted: Subject
    config: StitchConfig

    def part(self, names: list[str], advance: Callable[[int], None]) -> Arrays:
        """Train a link; the measures of these arms and its losses, as a part holds them."""
        ours, theirs = self.model.config.d_model, self.target.model.config.d_model
        generator = torch.Generator().manual_seed(self.config.seed)
        link = Link(ours, theirs, self.config.hidden or theirs, generator).to(self.target.device)
        given = self.states_of(self.source)
        found = {AS_IT_BEGINS: self.measured(link, given)} if AS_IT_BEGINS in names else {}
        losses = self.fit(link, advance)
        for name in names:
            if name not in found:
                found[name] = self.measured(link, given.roll(1, 0) if name == OTHER else given)
        arms = {
            f"{i}-{m}": values
            for i, name in enumerate(names)
            for m, values in found[name]._asdict().items()
        }
        return {**arms, "fit": losses}

    @torch.no_grad()
    def states_of(self, subject: Subject) -> Tensor:
        """A's answer state at every cell after its steps, [puzzle, cell, d_model], on the CPU."""
        source = replace(subject, checkpoint=replace(subject.checkpoint, model=self.model))
        parts = []
        for rows in source.batches():
            state = _advanced(self.model, *source.begin(rows), self.config.steps)
            parts.append(self.model.answer_of(state)[:, -self.model.config.cells :].cpu())
        return torch.cat(parts)

    def continued(self, link: Link, given: Tensor, subject: Subject, rows: Any) -> States:
        """B's states from a start whose answer state is the link's at every cell."""
        model = self.target.model
        b = replace(subject, checkpoint=self.target.checkpoint)
        state, x = b.begin(rows)
        own = model.answer_of(state)[:, : -model.config.cells]
        begun = torch.cat([own, link(given.to(model.device)).to(own.dtype)], 1)
        return _advanced(model, state._replace(**{model.answer: begun}), x, self.config.then)

    def fit(self, link: Link, advance: Callable[[int], None]) -> np.ndarray:
        """Train the link on B's answers, AdamW with a cosine to 0; the loss of every step."""
        config, losses = self.config, []
        given, labels = self.states_of(self.fitted), self.fitted.labels
        optimizer = torch.optim.AdamW(link.parameters(), lr=config.lr, weight_decay=0.01)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, config.link_steps)
        order = torch.Generator().manual_seed(config.seed)
        model = self.target.model.requires_grad_(False)
        for step in range(config.link_steps):
            rows = torch.randint(len(labels), (config.batch_size,), generator=order)
            state = self.continued(link, given[rows], self.fitted, rows)
            logits = model.readout(model.answer_of(state)).logits
            loss = answer_losses(logits, labels[rows].to(model.device))[0].mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            losses.append(float(loss.detach()))
            advance(step + 1)
        return finite(np.array(losses), "the loss of the link", range(len(losses)))

    @torch.no_grad()
    def measured(self, link: Link, given: Tensor) -> Measured:
        """What B answers to these states."""
        target, parts = self.target, []
        for rows in target.batches():
            state = self.continued(link, given[rows], target, rows)
            parts.append(_read(target, rows, state))
        return Measured.cat(parts)


def measure(
    source: Subject, target: Subject, config: StitchConfig, stitched: Stitched, n_fitted: int
) -> tuple[StitchResult, dict[str, pd.DataFrame]]:
    """The numbers and the tables of these arms."""
    arms, seed = stitched.arms, config.seed
    for name, arm in arms.items():
        finite(arm.loss, f"the loss of {name}", source.puzzles.lines)
    loss = {name: arm.loss for name, arm in arms.items()}
    gain, whole = loss[UNTRAINED] - loss[LINK], loss[UNTRAINED] - loss[longer(config)]
    understood = ratio_with_bounds(gain, whole, seed)
    result = StitchResult(
        **source.provenance,
        to=str(target.checkpoint.path),
        to_sha256=target.checkpoint.sha256,
        settings=asdict(config),
        n_fitted=n_fitted,
        arms={
            name: Arm(
                exact=Share.of(share_with_bounds(arm.exact > 0)),
                cells=mean_estimate(arm.cells, seed),
                loss=mean_estimate(arm.loss, seed),
            )
            for name, arm in arms.items()
        },
        gained={name: mean_estimate(loss[name] - loss[LINK], seed) for name in CONTROLS},
        understood=Estimate.of(understood if whole.mean() > 0 else NOTHING),
    )
    lines = source.puzzles.lines
    puzzles = [
        pd.DataFrame({"line": lines, "arm": name, **arm._asdict()}) for name, arm in arms.items()
    ]
    fit = [
        pd.DataFrame({"link": name, "training_step": range(1, len(of) + 1), "loss": of})
        for name, of in stitched.losses.items()
    ]
    return result, {"puzzles": pd.concat(puzzles), "fit": pd.concat(fit)}


NOTHING: dict[str, Number] = {"value": None, "low": None, "high": None}


def figures(result: StitchResult, tables: dict[str, pd.DataFrame]) -> Figures:
    """All arms, the link first."""
    rows = [
        {
            "arm": name,
            "is_link": name == LINK,
            "exact": arm.exact.share,
            "exact_low": arm.exact.low,
            "exact_high": arm.exact.high,
            **{
                f"{measure}{end}": getattr(getattr(arm, measure), part)
                for measure in ("cells", "loss")
                for end, part in (("", "value"), ("_low", "low"), ("_high", "high"))
            },
        }
        for name, arm in sorted(result.arms.items(), key=lambda item: item[0] != LINK)
    ]
    title = f"{_titled(result)}, {counted(result.n, 'puzzle')}"
    table = pd.DataFrame(rows)
    return {"arms": (stitch_figure(table, title), table)}


def _titled(result: StitchResult) -> str:
    steps, then = result.settings["steps"], result.settings["then"]
    to = result.to.rstrip("/").rpartition("/")[2]
    return f"A = {result.model_name} ({counted(steps, 'step')}) to B = {to} ({then} more)"


def lines(result: StitchResult) -> list[str]:
    """The result in words."""
    arms = [
        f"{name}: {arm.exact.share:.1%} solved, cells right {arm.cells.text('.1%')}, "
        f"loss {arm.loss.text()}"
        for name, arm in result.arms.items()
    ]
    gained = [f"less loss than {name}: {of.text('+.3f')}" for name, of in result.gained.items()]
    return [
        f"{_titled(result)}, {counted(result.n, 'puzzle')}; links of {result.n_fitted} others",
        *arms,
        *gained,
        f"understood, of what B gains by its own steps: {result.understood.text('.0%')}",
    ]
