"""The puzzles of one store or of several, numbered one after another, as an SAE sees them."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from trm_interp.recording.opening import finished_puzzles
from trm_interp.recording.site_reader import (
    AS_STORED,
    SiteReader,
    View,
    expanded,
    final_solved,
    open_sites,
    spell,
)
from trm_interp.recording.store import Store
from trm_interp.runtime.errors import UserError
from trm_interp.runtime.shapes import Bool, Float, Int
from trm_interp.runtime.work import silent

MIXED_FLAG = "--mixed-checkpoints"


@dataclass(frozen=True)
class Pool:
    """Open stores that fit together. `readers`: of every store, one a site."""

    stores: tuple[Store, ...]
    sites: tuple[str, ...]
    readers: tuple[tuple[SiteReader, ...], ...]
    close: Callable[[], None]

    def __enter__(self) -> "Pool":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    @property
    def d_model(self) -> int:
        return self.readers[0][0].d_model

    @property
    def ticks(self) -> list[int]:
        """Those that any site has, in the numbering of the run."""
        return sorted({i for reader in self.readers[0] for i in reader.indices})

    @property
    def rows_per_puzzle(self) -> int:
        return sum(reader.rows for reader in self.readers[0])

    @property
    def inputs(self) -> Int[np.ndarray, "puzzle cell"]:
        return np.concatenate([store["inputs"][:] for store in self.stores])

    @property
    def solved(self) -> Bool[np.ndarray, " puzzle"]:
        """Solved at the last supervision step."""
        return np.concatenate([final_solved(store) for store in self.stores])

    @property
    def checkpoints(self) -> list[str | None]:
        """The different ones that the stores were recorded from, in order."""
        return list(dict.fromkeys(store.identity.checkpoint_sha256 for store in self.stores))

    @property
    def sha256(self) -> str:
        """Of the store; of several those of all, in order."""
        return ", ".join(store.sha256 for store in self.stores)

    def read(self, puzzle: int) -> Iterator[Float[np.ndarray, "row d_model"]]:
        """The rows of a puzzle, site after site, as stored but for the view."""
        at = int(np.searchsorted(self._firsts, puzzle, side="right")) - 1
        within = puzzle - int(self._firsts[at])
        for reader in self.readers[at]:
            yield reader.read(within).reshape(-1, reader.d_model)

    def shares(self, puzzles: Int[np.ndarray, " chosen"]) -> list[int]:
        """How many of these puzzles are of which store."""
        at = np.searchsorted(self._firsts, puzzles, side="right") - 1
        return np.bincount(at, minlength=len(self.stores)).tolist()

    @cached_property
    def _firsts(self) -> Int[np.ndarray, " store"]:
        """Number of the first puzzle of every store."""
        return np.cumsum([0, *(store.n_puzzles for store in self.stores[:-1])])


def open_pool(
    paths: Sequence[Path],
    sites: Sequence[str],
    ticks: Sequence[int] | None = None,
    view: View = AS_STORED,
    mixed: bool = False,
    tell: Callable[[str], None] = silent,
) -> Pool:
    """Open stores whose rows can be trained on together; `close` closes all.

    UserError names two that do not fit: the same store twice, or stores that differ in sites,
    width, cells, ticks, or (without `mixed`) the checkpoint.
    """
    with ExitStack() as stack:
        stores = tuple(stack.enter_context(finished_puzzles(path, tell)) for path in paths)
        names = tuple(expanded(stores[0], sites))
        readers = tuple(tuple(open_sites(store, names, ticks, view)) for store in stores)
        facts = [_facts(s, expanded(s, sites), r) for s, r in zip(stores, readers, strict=True)]
        _require_fit(stores, facts, mixed)
        return Pool(stores, names, readers, stack.pop_all().close)


def _facts(store: Store, sites: list[str], readers: Sequence[SiteReader]) -> dict[str, Any]:
    """What stores that are pooled must have in common."""
    return {
        "sites": ", ".join(sites),
        "width": readers[0].d_model,
        "cells": store.model.cells,
        "positions": readers[0].n_pos,
        "ticks": "; ".join(f"{spell(r.indices)} of {r.site}" for r in readers),
        "checkpoint": str(store.identity.checkpoint_sha256)[:12],
    }


def _require_fit(stores: Sequence[Store], facts: Sequence[dict[str, Any]], mixed: bool) -> None:
    for i, store in enumerate(stores):
        twins = [other for other in stores[:i] if other.sha256 == store.sha256]
        if twins:
            raise UserError(f"{twins[0].path} and {store.path} are the same store: name it once")
    for (one, first), (other, second) in pairwise(zip(stores, facts, strict=True)):
        for name in first:
            known = name != "checkpoint" or one.identity.checkpoint_sha256 is not None
            if (first[name] == second[name] and known) or (name == "checkpoint" and mixed):
                continue
            advice = {
                "checkpoint": f"{MIXED_FLAG} pools them all the same",
                "ticks": "give --ticks that both hold",
            }.get(name, "train an SAE on each")
            raise UserError(
                f"{one.path} and {other.path} cannot be pooled: {name} "
                f"{first[name]} and {second[name]}; {advice}"
            )
