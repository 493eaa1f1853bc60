"""An SAE on the page: which features are active, where and when, and what they mean in a run."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import scipy.sparse
import torch
from torch import Tensor

from trm_interp.core.checkpoints.folder import Checkpoint
from trm_interp.explore.edits import Feature, Node
from trm_interp.explore.recent import Recent
from trm_interp.explore.runs import Run, Written
from trm_interp.runtime.errors import UserError
from trm_interp.runtime.shapes import Float
from trm_interp.sae.applied import encode
from trm_interp.sae.meaning import facts_of, head_push, meaning_of
from trm_interp.sae.saved import load_sae, provenance_of
from trm_interp.sae.steer import Change, edit_of

if TYPE_CHECKING:
    from trm_interp.explore.inside import Evaluations
    from trm_interp.explore.session import Session

Order = Literal["activation", "cells", "moments"]
SHOWN_FACTS, SHOWN_PUSHES = 4, 3
MOST_KEPT = 24  # activities of runs, and courses of features
AT_ONCE = 64  # moments that are encoded together
MOST_VALUES = 50_000_000  # of activations that are in memory at once


class Active(NamedTuple):
    """A feature in a cell at a moment: its activation, less its mean over the other cells, and less
    its mean over the other moments of the cell."""

    feature: int
    activation: float
    over_cells: float
    over_moments: float


@dataclass(frozen=True, eq=False)
class Activity:
    """Of all features over one run. mean: float32 [cell, feature] over moments; largest, density:
    [feature] over cells and moments; ends: [step x cell, feature], at the ends of supervision
    steps."""

    mean: Float[np.ndarray, "cell feature"]
    largest: Float[np.ndarray, " feature"]
    density: Float[np.ndarray, " feature"]
    ends: scipy.sparse.csc_matrix


@dataclass(frozen=True, eq=False)
class Features:
    """An SAE that fits the checkpoint. `site`: what it reads, a state or a site inside evaluations
    that write the states `within` (none for a state); `ticks`: numbers of the
    evaluations that it was trained on, None for all; `takes_mean`: of every row the mean of its
    puzzle and position over these is taken first; `pages`: folder with pages of features."""

    sae: Any
    path: Path
    site: str
    ticks: frozenset[int] | None
    takes_mean: bool
    pages: Path | None = None
    within: tuple[str, ...] = ()
    _recent: Recent = field(default_factory=lambda: Recent(MOST_KEPT), repr=False)

    @property
    def d_sae(self) -> int:
        return self.sae.cfg.d_sae

    @property
    def is_inside(self) -> bool:
        """Whether it reads a site inside evaluations."""
        return bool(self.within)

    def written(self, session: "Evaluations", node: Node) -> Written:
        """What the site was, whenever it was written or edited, over a run."""
        return session.captured(node) if self.is_inside else session.written(node, self.site)

    @cached_property
    def rows(self) -> Float[Tensor, "feature d_model"]:
        """The decoder."""
        return self.sae.W_dec.detach().float()

    def static(self, session: "Evaluations", node: Node) -> Tensor | float:
        """[1, pos, d_model], what is taken from rows before they are encoded: of the plain run of
        the same puzzle, as `steer` does it, since that of a running one is known at its end."""
        if not self.takes_mean:
            return 0.0
        root = node.root
        return self._recent.once(("static", root), lambda: self._mean(self.written(session, root)))

    def _mean(self, written: Written) -> Tensor:
        inside = [
            at
            for at, moment in enumerate(written.moments.tolist())
            if moment and (self.ticks is None or moment - 1 in self.ticks)
        ]
        return written.values[inside].float().mean(0, keepdim=True)

    def change(
        self, session: "Evaluations", node: Node, edit: Feature
    ) -> Callable[[Tensor], Tensor]:
        """What is done with the site [batch, pos, d_model], as `trm-interp steer` does it."""
        prefix = session.model.config.prefix
        at = None if edit.cells is None else [prefix + cell for cell in edit.cells]
        change = Change(edit.feature, edit.mode, edit.value)
        return edit_of(self.sae.encode, self.rows, change, at, self.static(session, node))

    # What is active

    def _encoded(self, session: "Session", run: Run, z: Tensor) -> Float[Tensor, "n cell feature"]:
        """Of states [n, pos, d_model], less the prefix."""
        x = (z.float() - self.static(session, run.node))[:, session.model.config.prefix :]
        return encode(self.sae, x)

    def _parts(self, session: "Session", run: Run, values: Tensor) -> Iterator[Tensor]:
        """[moment, cell, feature] of states [moment, pos, d_model], some moments at a time."""
        most = MOST_VALUES // (values.shape[1] * self.d_sae)
        for part in values.split(max(1, min(AT_ONCE, most))):
            yield self._encoded(session, run, part).cpu()

    def activity(self, session: "Session", run: Run) -> Activity:
        """Of all features over a run."""
        return self._recent.once(("activity", run.node), lambda: self._activity(session, run))

    def _activity(self, session: "Session", run: Run) -> Activity:
        written = self.written(session, run.node)
        first = int(written.moments[0])  # inside evaluations there is nothing at the start
        lasts = np.bincount(written.index(session.last), minlength=len(written.moments))
        weights = torch.from_numpy(lasts / lasts.sum()).float()  # moments that a value lasts
        cells, n = session.task.cells, self.d_sae
        mean, largest, fired = torch.zeros(cells, n), torch.zeros(n), torch.zeros(n)
        for acts in self._parts(session, run, written.values):
            share, weights = weights[: len(acts)], weights[len(acts) :]
            mean += torch.einsum("t,tcf->cf", share, acts)
            largest = torch.maximum(largest, acts.amax((0, 1)))
            fired += torch.einsum("t,tf->f", share, (acts > 0).float().mean(1))
        last = written.index(session.last)[np.array(session.ends) - first]
        ends = [
            scipy.sparse.csr_matrix(acts.flatten(0, 1).numpy())
            for acts in self._parts(session, run, written.values[last])
        ]
        sparse = scipy.sparse.csc_matrix(scipy.sparse.vstack(ends))
        return Activity(mean.numpy(), largest.numpy(), fired.numpy(), sparse)

    def active(
        self, session: "Session", run: Run, moment: int, cell: int, order: Order, most: int = 8
    ) -> list[Active]:
        """Features that are active in a cell at a moment, at most so many, in this order."""
        z, n = self._now(session, run, moment)
        if z is None:
            return []
        acts = self._encoded(session, run, z)[0].cpu().numpy()
        mean = self.activity(session, run).mean[cell]
        here = acts[cell]
        others = (acts.sum(0) - here) / max(len(acts) - 1, 1)
        apart = (here - others, here - (mean * n - here) / max(n - 1, 1))
        score = {"activation": here, "cells": apart[0], "moments": apart[1]}[order]
        fires = np.flatnonzero(here > 0)
        first = fires[np.argsort(-score[fires], kind="stable")][:most]
        return [Active(int(f), *(float(of[f]) for of in (here, *apart))) for f in first]

    def _now(self, session: "Session", run: Run, moment: int) -> tuple[Tensor | None, int]:
        """The site [1, pos, d_model] at a moment, None before it is there; and how many moments of
        the run have it."""
        if not self.is_inside:
            return getattr(session.states_at(run.node, moment), self.site), session.last + 1
        written = self.written(session, run.node)
        at = int(np.searchsorted(written.moments, moment, side="right")) - 1
        there = session.last + 1 - int(written.moments[0])
        return (None if at < 0 else written.values[at : at + 1]), there

    def course(
        self, session: "Session", run: Run, feature: int
    ) -> Float[np.ndarray, "moment cell"]:
        """Activation of one feature at every moment; 0 before the site is there."""
        key = ("course", run.node, feature)
        return self._recent.once(key, lambda: self._course(session, run, feature))

    def _course(self, session: "Session", run: Run, feature: int) -> np.ndarray:
        written = self.written(session, run.node)
        # copies: a view would keep the activations of all features
        parts = [acts[..., feature].clone() for acts in self._parts(session, run, written.values)]
        course = torch.cat(parts).numpy()[written.index(session.last)]
        return np.pad(course, ((int(written.moments[0]), 0), (0, 0)))

    # What it means

    def page(self, session: "Session", run: Run, feature: int) -> list[tuple[str, str]]:
        """What can be said of a feature from one run, as the dashboard says it of many: names and
        texts."""
        activity, task, tokens = self.activity(session, run), session.task, session.task.tokens
        size = f"{activity.largest[feature]:.3g}, {activity.density[feature]:.2%} of cells"
        rows = [("largest here, fires in", size)]
        weight = session.model.logit_weight
        if weight is not None:
            row = self.rows[feature : feature + 1].cpu().numpy()
            answers = task.answer_tokens
            push = head_push(row, weight.detach().float().cpu().numpy(), answers)[0]
            most = np.argsort(-push)[:SHOWN_PUSHES]
            names = ", ".join(f"{tokens[answers[i]]} {push[i]:+.2f}" for i in most)
            rows.append(("pushes logits of", names))
        facts = _facts(session, run, activity.ends[:, [feature]])
        return [*rows, ("tells apart (AUC; 0.5 is chance)", facts or "nothing: it does not fire")]


def _facts(session: "Session", run: Run, acts: scipy.sparse.csc_matrix) -> str:
    """The facts that one column of activations at the ends of steps separates best."""
    if not acts.nnz:
        return ""
    guesses = run.answer.tokens[session.ends]
    steps = list(range(len(guesses)))
    facts = facts_of(session.task, run.inputs[-1], run.labels[-1], guesses, steps)
    meaning = meaning_of(acts, [facts], session.task.cells, seed=0)
    gap = np.nan_to_num(np.abs(meaning.auc[0] - 0.5))
    best = [i for i in np.argsort(-gap, kind="stable")[:SHOWN_FACTS] if gap[i] > 0]
    control = np.nan_to_num(np.abs(meaning.control[0] - 0.5)).max() + 0.5
    words = ", ".join(f"{meaning.names[i]} {meaning.auc[0, i]:.2f}" for i in best)
    return f"{words}; cells that trade their facts reach {control:.2f}" if words else "nothing"


# Opening


def open_features(path: Path | str, checkpoint: Checkpoint, pages: Path | None = None) -> Features:
    """The SAE in a folder. UserError where it does not fit the checkpoint."""
    path = Path(path)
    sae, provenance = load_sae(path, checkpoint.model.device), provenance_of(path)
    config = checkpoint.model.config
    if sae.cfg.d_in != config.d_model:
        raise UserError(
            f"{path} is {sae.cfg.d_in} wide, states of {checkpoint.path} are {config.d_model}: "
            "give an SAE that was trained on this checkpoint"
        )
    if provenance is None:
        raise UserError(f"{path} does not say which state it reads: train one with `train-sae`")
    if not provenance.is_of(checkpoint.sha256):
        raise UserError(
            f"{path} was trained on checkpoint {provenance.checkpoints}, {checkpoint.path} is "
            f"{checkpoint.sha256[:12]}: open it with its own (--ckpt)"
        )
    if provenance.shuffle is not None:
        raise UserError(f"{path} was trained on shuffled ticks, which no run has: give another SAE")
    ticks = None if provenance.ticks is None else frozenset(provenance.ticks)
    site, within = _site(path, provenance.sites, checkpoint)
    takes_mean = provenance.centre == "puzzle"
    return Features(sae, path, site, ticks, takes_mean, _pages(pages), within)


def _site(path: Path, sites: Sequence[str], checkpoint: Checkpoint) -> tuple[str, tuple[str, ...]]:
    """The first site that the explorer shows, and the states whose evaluations have it inside."""
    model, config = checkpoint.model, checkpoint.model.config
    shown = dict.fromkeys((model.answer, model.latent))
    for site in sites:
        states = config.schedule.states
        within = tuple(name for name in states if site in model.site_names(config, name))
        if site in shown or within:
            return site, within
    raise UserError(
        f"{path} reads {', '.join(sites)[:80]}; the explorer shows SAEs of states, "
        f"{' or '.join(shown)}, and of sites inside evaluations"
    )


def _pages(folder: Path | None) -> Path | None:
    if folder is not None and not (folder / "dashboard.html").is_file():
        raise UserError(f"{folder}: no dashboard.html here; `trm-interp features` writes one")
    return folder
