"""What a study looks at: a checkpoint with puzzles, or a store, checked before any work."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from textwrap import shorten
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trm_interp.core.checkpoints.folder import Checkpoint
from trm_interp.core.infer import Readouts, embedded, run_batch
from trm_interp.core.models.base import RecursiveModel, States
from trm_interp.core.when_compiled import compile_where_it_pays
from trm_interp.recording.opening import finished_puzzles, recorded_checkpoint
from trm_interp.recording.site_reader import spell
from trm_interp.recording.store import Store
from trm_interp.runtime.arrays import Arrays
from trm_interp.runtime.errors import UserError
from trm_interp.runtime.shards import divided, noted, numbered
from trm_interp.search.settings import ROLES
from trm_interp.studies.results import Tell
from trm_interp.studies.settings import OnCheckpoint, OnRuns, OnStore
from trm_interp.subjects.opening import open_both, open_device
from trm_interp.tasks.base import PuzzleSet, Task

RESID, STREAM = "resid", "hook_resid_post"  # short for the residual stream, whose sites end so


@dataclass(frozen=True)
class Subject:
    """A checkpoint and puzzles of its size."""

    checkpoint: Checkpoint
    puzzles: PuzzleSet
    device: torch.device
    batch_size: int
    compiled: bool = False

    @property
    def model(self) -> RecursiveModel:
        return self.checkpoint.model

    @property
    def task(self) -> Task:
        return self.puzzles.task

    @property
    def inputs(self) -> Tensor:
        """Tokens [puzzle, cell]."""
        return torch.from_numpy(self.puzzles.inputs)

    @property
    def labels(self) -> Tensor:
        return torch.from_numpy(self.puzzles.labels)

    def batches(self) -> Iterator[slice]:
        for first in range(0, len(self.puzzles), self.batch_size):
            yield slice(first, min(first + self.batch_size, len(self.puzzles)))

    def in_pieces(self, stage: str, compute: Callable[[slice], Arrays]) -> Iterator[Arrays]:
        """What `compute` gives for every batch; of a shard nothing (`runtime.shards`)."""
        rows = list(self.batches())
        for get in divided(numbered(stage, len(rows)), lambda i: compute(rows[i])):
            yield get()

    def embedded(self, rows: slice = slice(None), dtype: torch.dtype = torch.float32) -> Tensor:
        """The embedded input of some puzzles."""
        given = self.puzzles.tensors.at(rows)
        return embedded(self.model, given.inputs, dtype, given.identifiers)

    def begin(self, rows: slice, dtype: torch.dtype = torch.float32) -> tuple[States, Tensor]:
        """The model's own start and the embedded input of some puzzles."""
        x = self.embedded(rows, dtype)
        return self.model.initial_state(x), x

    def run(self, rows: slice, steps: int, **how: Any) -> Readouts:
        """Some puzzles through the model; `how` as in `core.infer.run_batch`."""
        inputs, labels, own = self.puzzles.tensors.at(rows)
        return run_batch(self.model, inputs, labels, steps, identifiers=own, **how)

    @property
    def provenance(self) -> dict[str, Any]:
        """What a result was measured on: the first fields of an `OnCheckpointResult`."""
        return {
            "ckpt": str(self.checkpoint.path),
            "checkpoint_sha256": self.checkpoint.sha256,
            "puzzles": self.puzzles.source,
            "data_sha256": dict(self.puzzles.sha256),
            "n": len(self.puzzles),
            "skipped": len(self.puzzles.skipped),
            "batch_size": self.batch_size,
            "device": self.device.type,
            "compiled": self.compiled,
        }

    def compiled_for(
        self, config: OnRuns, steps: int, tell: Tell, earlier: bool | None = None
    ) -> "Subject":
        """The same for `steps` supervision steps in all, its networks compiled where that pays.

        `earlier`: as in `core.when_compiled.compile_where_it_pays`.
        """
        choice = config.compile
        compiled = compile_where_it_pays(self.model, choice, steps, tell=tell, earlier=earlier)
        noted(compiled=compiled)
        return replace(self, compiled=compiled)


def open_subject(config: OnCheckpoint, tell: Tell = print, float64: bool = False) -> Subject:
    """UserError for a missing checkpoint, missing puzzles or a missing device.

    `float64`: on a device that has it.
    """
    device = open_device(config.device, float64)
    checkpoint, puzzles = open_both(
        config.ckpt, config.puzzles, device, config.limit, config.skip_bad, tell
    )
    return Subject(checkpoint, puzzles, device, config.batch_size)


@contextmanager
def opening(config: OnStore, tell: Tell) -> Iterator[Store]:
    """The store; of an unfinished one its finished puzzles, with a notice."""
    with finished_puzzles(config.store, tell) as store:
        noted(**{f"store {store.path}": store.sha256})
        yield store


def site_of(store: Store, name: str) -> str:
    """The site that `--site` names: a state, by its name or its role (`answer`, `latent`); a site
    inside an evaluation; or with `resid` the residual stream behind the last block that the store
    has. It is stored at all steps. UserError for any other name."""
    inside = [site for site in store.names if store[site].dims[-1] == "d_model"]
    inside = [site for site in inside if "step" in store[site].dims and site not in store.states]
    residual = [site for site in inside if site.endswith(STREAM)]
    if name in ROLES:
        name = getattr(store, name)
    elif name == RESID and residual:
        name = residual[-1]
    if name not in (*store.states, *inside, RESID):
        names = ", ".join((*store.states, *ROLES, *([RESID] if residual else []), *inside))
        names = shorten(names, 200, placeholder=" ...")
        raise UserError(f"--site {name[:40]}: {store.path} has no such site; give one of {names}")
    require(store, name)
    return name


def require(store: Store, *names: str, whole_boards: bool = False) -> None:
    """Unless the store holds all of these arrays at all steps, with `whole_boards` at all positions
    as well, a UserError names everything that it lacks, and how to record it."""
    wrong, options = [], []
    if lacking := [name for name in names if name not in store.names]:
        holds = shorten(", ".join(store.names), 100, placeholder=" ...")
        wrong.append(f"lacks {', '.join(lacking)}; it holds {holds}")
        options.append(f"--sites {','.join(names)}")
    if store.steps != list(range(store.n_steps)):
        wrong.append(f"kept the states of steps {spell(store.steps)} of {store.n_steps}")
        options.append(f"--steps {store.n_steps}")
    positions = store.model.prefix + store.model.cells
    if whole_boards and len(store.positions) != positions:
        wrong.append(f"kept {len(store.positions)} of {positions} positions")
        options.append("without --positions")
    if wrong:
        problem = "; ".join(wrong)
        raise UserError(f"{store.path} {problem}: record again with collect {' '.join(options)}")


def provenance_of(store: Store) -> dict[str, Any]:
    """What a result was measured on: the first fields of an `OnStoreResult`."""
    return {
        "store": str(store.path),
        "store_sha256": store.sha256,
        "checkpoint_sha256": store.identity.checkpoint_sha256,
        "data_sha256": store.identity.data_sha256,
        "n": store.n_puzzles,
        "batch_size": store.identity.batch_size,
        "device": store.identity.device,
    }


def open_model(store: Store, ckpt: str = "", device: str = "auto") -> Checkpoint:
    """The checkpoint that a store was recorded from. UserError for one with other weights."""
    checkpoint, mismatch = recorded_checkpoint(store, ckpt, open_device(device))
    if mismatch:
        raise UserError(mismatch)
    return checkpoint


def finite(values: np.ndarray, what: str, puzzles: np.ndarray | range) -> np.ndarray:
    """The values, if all are finite. UserError names the first puzzle where one is not."""
    wrong = ~np.isfinite(values).reshape(len(values), -1).all(1)
    if wrong.any():
        first = puzzles[int(wrong.argmax())]
        raise UserError(f"{what} is not finite, first in puzzle {first} (from 0)")
    return values
