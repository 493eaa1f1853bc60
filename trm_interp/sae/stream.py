"""Activations for training: an infinite, seekable stream of shuffled rows.

Puzzles come in a new order every epoch, a group of them at a time; the rows of a group are
shuffled together. While one group is consumed a thread reads the next one, so two groups are in
memory: half of the buffer each. Order and shuffles are functions of (seed, epoch, group), so any
position can be had at once.

Batches do not depend on the number of processes. Each of several reads puzzles of its own, a part
of every group, and delivers those rows of a batch that are theirs: about as many as the others.
"""

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from trm_interp.core.counter import hash64
from trm_interp.runtime.errors import UserError
from trm_interp.runtime.limits import require_memory
from trm_interp.runtime.shapes import Float, Int
from trm_interp.sae.pool import Pool


class Scaling(NamedTuple):
    """x -> (x - mean) / scale: mean 0, and mean square 1 per coordinate."""

    mean: Tensor  # float32 [d_model]
    scale: float


class Position(NamedTuple):
    """Where a stream stands: rows of this epoch that were delivered."""

    epoch: int
    offset: int


def puzzle_order(
    puzzles: np.ndarray, solved: np.ndarray | None, seed: int, epoch: int
) -> np.ndarray:
    """Puzzles of one epoch. With `solved` [puzzle], failed and solved ones take turns.

    The rarer kind then repeats, in a new order each time, until the other has been seen once.

    >>> sorted(puzzle_order(np.arange(4), None, seed=0, epoch=1).tolist())
    [0, 1, 2, 3]
    >>> order = puzzle_order(np.arange(4), np.array([True, True, True, False]), 0, 0)
    >>> order[1::2].tolist(), sorted(order[::2].tolist())
    ([3, 3, 3], [0, 1, 2])
    """

    def shuffled(some: np.ndarray, turn: int) -> np.ndarray:
        keys = hash64(seed, epoch, turn, torch.from_numpy(some.astype(np.int64)))
        return some[np.argsort(keys.numpy(), kind="stable")]

    if solved is None:
        return shuffled(puzzles, 0)
    kinds = [puzzles[solved], puzzles[~solved]]
    if not all(map(len, kinds)):
        raise UserError("nothing to balance: the training puzzles are all of one outcome")
    length = max(map(len, kinds))
    repeated = [
        np.concatenate([shuffled(kind, turn) for turn in range(-(-length // len(kind)))])[:length]
        for kind in kinds
    ]
    return np.stack(repeated, axis=1).ravel()


class Group(NamedTuple):
    """What one process holds of a group of puzzles. `places`, ascending: where its `rows` are among
    the `n` shuffled rows of the group."""

    rows: Float[np.ndarray, "row d_model"]
    places: Int[np.ndarray, " row"]
    n: int


class ActivationStream:
    """Batches of float32 rows, centred and scaled, without an end: [batch, d_model], or of process
    `rank` of `size` its rows of each batch, whose numbers in the batch are then in `places`.

    `puzzles`: those of the pool that are read; `solved`, one entry for each, asks for balance.
    `buffer_bytes`: of all processes together. The stream reads in a thread of its own; `close` ends
    that, and closes the pool.
    """

    def __init__(
        self,
        pool: Pool,
        puzzles: np.ndarray,
        *,
        batch_size: int,
        buffer_bytes: int,
        seed: int,
        solved: np.ndarray | None = None,
        scaling: Scaling | None = None,
        device: torch.device | str = "cpu",
        rank: int = 0,
        size: int = 1,
    ) -> None:
        self.pool, self.rank, self.size = pool, rank, size
        self.puzzles, self.solved, self.seed = puzzles, solved, seed
        self.batch_size, self.device = batch_size, torch.device(device)
        self.scaling = scaling
        self.rows_per_puzzle, self.d_model = pool.rows_per_puzzle, pool.d_model
        self.n_puzzles = len(puzzle_order(puzzles, solved, seed, 0))  # of an epoch
        self.group = _group_size(self, buffer_bytes)
        shape = (-(-self.group // size) * self.rows_per_puzzle, self.d_model)
        self._buffers = [np.empty(shape, np.float16) for _ in range(2)]
        self._threads = ThreadPoolExecutor(1, "activations")
        self._ahead: tuple[tuple[int, int], Future[Group]] | None = None
        self._group: tuple[tuple[int, int], Group] | None = None
        self.places = torch.arange(0)
        self.seek(Position(0, 0))

    @property
    def position(self) -> Position:
        return self._position

    def seek(self, position: Position) -> None:
        """Go on from there: the next batch is the one that would have followed."""
        if not 0 <= position.offset < self.rows_per_epoch or position.epoch < 0:
            raise ValueError(f"{position} is not in an epoch of {self.rows_per_epoch} rows")
        self._position = position

    @property
    def rows_per_epoch(self) -> int:
        return self.n_puzzles * self.rows_per_puzzle

    def __iter__(self) -> "ActivationStream":
        return self

    def __next__(self) -> Tensor:
        parts: list[Tensor] = []
        places: list[Tensor] = []
        filled = 0
        while filled < self.batch_size:
            epoch, offset = self._position
            index, at = divmod(offset, self.group * self.rows_per_puzzle)
            group = self._rows(epoch, index)
            end = min(at + self.batch_size - filled, group.n)
            mine = slice(*np.searchsorted(group.places, [at, end]))
            parts.append(torch.from_numpy(group.rows[mine]).float())
            places.append(torch.from_numpy(group.places[mine] - at + filled))
            filled += end - at
            offset += end - at
            over = offset >= self.rows_per_epoch
            self._position = Position(epoch + 1, 0) if over else Position(epoch, offset)
        self.places = torch.cat(places)
        batch = torch.cat(parts).to(self.device, non_blocking=True)
        if self.scaling is None:
            return batch
        return batch.sub_(self.scaling.mean.to(self.device)).div_(self.scaling.scale)

    def close(self) -> None:
        self._threads.shutdown(wait=True, cancel_futures=True)
        self.pool.close()

    def __enter__(self) -> "ActivationStream":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _rows(self, epoch: int, index: int) -> Group:
        """The shuffled rows of a group; starts reading the one after it."""
        here = (epoch, index)
        if self._group is not None and self._group[0] == here:
            return self._group[1]
        ahead, self._ahead = self._ahead, None
        if ahead is None or ahead[0] != here:
            if ahead is not None:
                ahead[1].result()  # its buffer is being written
            ahead = (here, self._threads.submit(self._load, 0, *here))
        group = ahead[1].result()
        self._group = (here, group)
        free = 1 if group.rows.base is self._buffers[0] else 0
        last = (index + 1) * self.group >= self.n_puzzles
        after = (epoch + 1, 0) if last else (epoch, index + 1)
        self._ahead = (after, self._threads.submit(self._load, free, *after))
        return group

    def _load(self, buffer: int, epoch: int, index: int) -> Group:
        order = puzzle_order(self.puzzles, self.solved, self.seed, epoch)
        chosen = order[index * self.group : (index + 1) * self.group]
        n = len(chosen) * self.rows_per_puzzle
        shuffled = np.random.default_rng([self.seed, epoch, index]).permutation(n)
        # neighbours in a store are read one after another, by one process
        shares = np.array_split(np.sort(chosen), self.size)
        first = sum(map(len, shares[: self.rank])) * self.rows_per_puzzle
        mine = shares[self.rank]
        own = shuffled[first : first + len(mine) * self.rows_per_puzzle]
        is_own = np.zeros(n, bool)
        is_own[own] = True
        where = (np.cumsum(is_own) - 1)[own]
        rows = self._buffers[buffer][: len(own)]
        done = 0
        for puzzle in mine:
            for values in self.pool.read(int(puzzle)):
                rows[where[done : done + len(values)]] = values
                done += len(values)
        return Group(rows, np.flatnonzero(is_own), n)


def _group_size(stream: ActivationStream, buffer_bytes: int) -> int:
    """Puzzles in half of the buffer. UserError where memory, buffer or batch do not fit."""
    one = stream.rows_per_puzzle * stream.d_model * np.dtype(np.float16).itemsize
    require_memory(buffer_bytes // stream.size, "the shuffle buffer", "lower --buffer-mb")
    if 2 * one > buffer_bytes:
        raise UserError(
            f"a buffer of {buffer_bytes / 1e6:.0f} MB does not hold two puzzles of "
            f"{one / 1e6:.1f} MB: raise --buffer-mb, or take fewer --ticks"
        )
    if stream.rows_per_epoch < stream.batch_size:
        raise UserError(
            f"{stream.rows_per_epoch} rows of training puzzles are fewer than a batch of "
            f"{stream.batch_size}: record more, or lower --batch-size"
        )
    group = min(buffer_bytes // (2 * one), stream.n_puzzles)
    if group < stream.size:
        raise UserError(
            f"{stream.size} processes have {group} puzzles to read at a time: raise --buffer-mb, "
            "record more, or start fewer processes"
        )
    return group


def measure_scaling(pool: Pool, puzzles: Sequence[int]) -> Scaling:
    """Mean of these puzzles' rows, and root mean square of what remains, over coordinates."""
    n, total, square = 0, 0.0, 0.0
    for puzzle in puzzles:
        for values in pool.read(int(puzzle)):
            rows = values.astype(np.float32)
            total = total + rows.sum(axis=0, dtype=np.float64)
            square = square + np.square(rows).sum(axis=0, dtype=np.float64)
            n += len(rows)
    mean = np.asarray(total) / n
    variance = np.asarray(square) / n - np.square(mean)
    scale = float(np.sqrt(variance.mean()))
    if not scale > 0:
        raise UserError(f"{pool.sites[0]} is the same in every row: nothing to learn from")
    return Scaling(torch.from_numpy(mean).float(), scale)


def stream_state(stream: ActivationStream) -> dict[str, Any]:
    """What a resumed run needs to go on with the next batch."""
    return {"seed": stream.seed, **stream.position._asdict()}
