"""Rows of a store as an SAE sees them: one site, tick after tick, [tick, pos, d_model]."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from trm_interp.core.clock import Tick
from trm_interp.recording.schema import all_finite
from trm_interp.recording.settings import Centre
from trm_interp.recording.sites import RESIDUAL
from trm_interp.recording.store import Store
from trm_interp.runtime.errors import UserError
from trm_interp.runtime.shapes import Float, Int


def run_clock(store: Store) -> list[Tick]:
    """Every tick of the runs in a store, in order; a tick's index is its place here."""
    return store.schedule.ticks(store.n_steps)


def spell(indices: Sequence[int]) -> str:
    """Indices in words: ranges of at least three.

    >>> spell([0, 1, 2, 3, 7, 9, 10])
    '0-3, 7, 9, 10'
    """
    runs: list[list[int]] = []
    for index in indices:
        if runs and index == runs[-1][-1] + 1:
            runs[-1].append(index)
        else:
            runs.append([index])
    parts = [[f"{run[0]}-{run[-1]}"] if len(run) > 2 else map(str, run) for run in runs]
    return ", ".join(text for part in parts for text in part)


@dataclass(frozen=True)
class View:
    """How rows are read.

    centre: "puzzle" takes from every row the mean of its puzzle and position over the ticks that
    are read, which leaves what moves; "rows" takes nothing. shuffle: a seed permutes the ticks of
    each coordinate on its own, within puzzle and position: every coordinate keeps its values there,
    what they do together at a tick is lost, and so is their order in time.
    """

    centre: Centre = "rows"
    shuffle: int | None = None

    @property
    def words(self) -> str | None:
        """What is done to the rows; None for rows as they are."""
        parts = ["each puzzle's mean over its ticks taken away"] if self.centre == "puzzle" else []
        if self.shuffle is not None:
            parts.append("the ticks of each coordinate shuffled on their own")
        return ", ".join(parts) or None


AS_STORED = View()


class SiteReader:
    """One site of an open store.

    ticks: those that are read, as `Tick`s; indices: the same in the numbering of the run.
    UserError where the store lacks the site or one of the ticks, with what it has.
    """

    def __init__(
        self,
        store: Store,
        site: str,
        ticks: Sequence[int] | None = None,
        view: View = AS_STORED,
    ) -> None:
        held = [name for name in store.names if "step" in store[name].dims[:2]]
        held = [name for name in held if store[name].dims[-1] == "d_model"]
        if site not in held:
            raise UserError(
                f"{store.path} holds no {site!r}; it holds {', '.join(held)}: give one of these, "
                "or record another store with `trm-interp collect --sites`"
            )
        self.store, self.site, self.view = store, site, view
        self._array = store[site]
        clock, kept = run_clock(store), set(store.steps)
        in_site = set(store.recursion.ticks(site, store.n_steps))
        if "l_cycle" not in self._array.dims:
            in_site = {tick for tick in in_site if tick.ends_cycle}
        stored = [i for i, t in enumerate(clock) if t in in_site and t.step in kept]
        self.indices = stored if ticks is None else list(ticks)
        if missing := sorted(set(self.indices) - set(stored)):
            raise UserError(
                f"{store.path} holds no {site} at tick {missing[0]}; it holds ticks {spell(stored)}"
            )
        self.ticks = [clock[i] for i in self.indices]
        steps = [t.step for t in self.ticks]
        self._steps = slice(min(steps), max(steps) + 1)
        read = [i for i in stored if steps and min(steps) <= clock[i].step <= max(steps)]
        self._pick = None if read == self.indices else [read.index(i) for i in self.indices]
        self.n_pos, self.d_model = self._array.shape[-2:]

    @property
    def rows(self) -> int:
        """Rows of one puzzle."""
        return len(self.indices) * self.n_pos

    @property
    def ticks_per_cycle(self) -> int:
        """Rows in time of one H-cycle: the period that the schedule forces."""
        first = self.ticks[0]
        return sum(t.step == first.step and t.h_cycle == first.h_cycle for t in self.ticks)

    def read(self, puzzle: int) -> Float[np.ndarray, "tick pos d_model"]:
        """All ticks of one puzzle, as stored but for the view, in the precision of the store.
        UserError names puzzle and tick of a bad number."""
        values = self._stored(puzzle)
        if self.view.shuffle is not None:
            rng = np.random.default_rng([self.view.shuffle, puzzle, *self.site.encode()])
            values = rng.permuted(values, axis=0)
        if self.view.centre == "puzzle":
            return (values - values.mean(axis=0, dtype=np.float32)).astype(values.dtype)
        return values

    def static(self, puzzle: int) -> Float[np.ndarray, "pos d_model"]:
        """The mean of a puzzle over the ticks that are read, in float32: what `centre` takes."""
        return self._stored(puzzle).mean(axis=0, dtype=np.float32)

    def _stored(self, puzzle: int) -> Float[np.ndarray, "tick pos d_model"]:
        values = self._array[puzzle, self._steps].reshape(-1, self.n_pos, self.d_model)
        if self._pick is not None:
            values = values[self._pick]
        self._check(values, puzzle)
        return values

    def _check(self, values: np.ndarray, puzzle: int) -> None:
        if not all_finite(values):
            at = int(np.flatnonzero(~np.isfinite(values).all(axis=(1, 2)))[0])
            raise UserError(
                f"{self.store.path}: {self.site} of puzzle {puzzle} (from 0) is not finite at tick "
                f"{self.indices[at]} ({self.ticks[at].name}): record it again"
            )


def open_sites(
    store: Store,
    sites: Sequence[str],
    ticks: Sequence[int] | None = None,
    view: View = AS_STORED,
) -> list[SiteReader]:
    """Readers of several sites, which must be of one width. With `ticks`, each where it has them.

    UserError for a tick that none of them has.
    """
    readers = [SiteReader(store, site, view=view) for site in sites]
    if len({reader.d_model for reader in readers}) > 1:
        widths = ", ".join(f"{r.site} {r.d_model}" for r in readers)
        raise UserError(f"{store.path}: sites of several widths cannot be pooled ({widths})")
    if ticks is None:
        return readers
    stored = sorted({i for reader in readers for i in reader.indices})
    if missing := sorted(set(ticks) - set(stored)):
        raise UserError(
            f"{store.path} holds no {', '.join(sites)} at tick {missing[0]}; "
            f"it holds ticks {spell(stored)}"
        )
    chosen = [[i for i in ticks if i in reader.indices] for reader in readers]
    return [
        SiteReader(store, reader.site, indices, view)
        for reader, indices in zip(readers, chosen, strict=True)
        if indices
    ]


def expanded(store: Store, names: Sequence[str]) -> list[str]:
    """Sites by name. `states` stands for all states that the store holds, `resid` for its sites in
    the residual stream. UserError where there are none."""
    groups = {
        "states": [name for name in store.names if name in store.states],
        "resid": [name for name in store.names if name.endswith(RESIDUAL)],
    }
    sites: list[str] = []
    for name in names:
        if name in groups and not groups[name]:
            held = ", ".join(store.names)
            raise UserError(f"{store.path} holds no sites of {name!r}; it holds {held}")
        sites += groups.get(name) or [name]
    return list(dict.fromkeys(sites))


def final_solved(store: Store) -> np.ndarray:
    """bool [puzzle]: solved at the last supervision step."""
    return store["solved"][:, -1].astype(bool)


def split_puzzles(
    inputs: Int[np.ndarray, "puzzle cell"], held_out: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Training and held-out puzzles, in store order. Copies of a board stay on one side; symmetric
    ones are not looked for: `data check` finds them in a file, and the sets that ship have none.

    UserError where one of the two would be empty.
    """
    _, board = np.unique(inputs, axis=0, return_inverse=True)
    board = board.ravel()
    order = np.random.default_rng([seed, 0x5AE]).permutation(board.max() + 1)
    n = round(held_out * len(order))
    out = np.isin(board, order[:n])
    if out.all() or not out.any():
        raise UserError(
            f"{len(order)} different puzzles cannot be split into {1 - held_out:.0%} for training "
            f"and {held_out:.0%} held out: record more, or change --held-out"
        )
    return np.flatnonzero(~out), np.flatnonzero(out)


def board_keys(inputs: Int[np.ndarray, "puzzle cell"]) -> list[str]:
    """A short name of every board, the same in every store.

    >>> a, b, c = board_keys(np.array([[1, 2], [1, 3], [1, 2]]))
    >>> a == c, a == b, len(a)
    (True, False, 12)
    """
    rows = np.ascontiguousarray(inputs, np.uint8)
    return [hashlib.sha256(row.tobytes()).hexdigest()[:12] for row in rows]
