"""Activations for training: an infinite, seekable stream of shuffled rows.

Puzzles come in a new order every epoch, a group of them at a time; the rows of a group are
shuffled together. While one group is consumed a thread reads the next one, so two groups are in
memory: half of the buffer each. Order and shuffles are functions of (seed, epoch, group), so any
position can be had at once.
"""

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from trm_interp.core.counter import hash64
from trm_interp.recording.site_reader import AS_STORED, SiteReader, View, open_sites
from trm_interp.recording.store import Store
from trm_interp.runtime.errors import UserError
from trm_interp.runtime.limits import require_memory


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


class ActivationStream:
    """Batches [batch, d_model] of float32 rows, centred and scaled, without an end.

    `solved`, one entry a puzzle of `puzzles`, asks for balance. The stream opens the store itself
    and reads it in a thread of its own; `close` ends that.
    """

    def __init__(
        self,
        store: Path,
        sites: Sequence[str],
        puzzles: np.ndarray,
        *,
        batch_size: int,
        buffer_bytes: int,
        seed: int,
        ticks: Sequence[int] | None = None,
        solved: np.ndarray | None = None,
        scaling: Scaling | None = None,
        device: torch.device | str = "cpu",
        view: View = AS_STORED,
    ) -> None:
        self._store = Store(store, allow_incomplete=True)
        self.readers = open_sites(self._store, sites, ticks, view)
        self.puzzles, self.solved, self.seed = puzzles, solved, seed
        self.batch_size, self.device = batch_size, torch.device(device)
        self.scaling = scaling
        self.rows_per_puzzle = sum(reader.rows for reader in self.readers)
        self.d_model = self.readers[0].d_model
        self.n_puzzles = len(puzzle_order(puzzles, solved, seed, 0))  # of an epoch
        self.group = _group_size(self, buffer_bytes)
        shape = (self.group * self.rows_per_puzzle, self.d_model)
        self._buffers = [np.empty(shape, np.float16) for _ in range(2)]
        self._pool = ThreadPoolExecutor(1, "activations")
        self._ahead: tuple[tuple[int, int], Future[np.ndarray]] | None = None
        self._group: tuple[tuple[int, int], np.ndarray] | None = None
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
        batch = torch.empty(self.batch_size, self.d_model)
        filled = 0
        while filled < self.batch_size:
            epoch, offset = self._position
            index, at = divmod(offset, self.group * self.rows_per_puzzle)
            rows = self._rows(epoch, index)[at : at + self.batch_size - filled]
            batch[filled : filled + len(rows)] = torch.from_numpy(rows)
            filled += len(rows)
            offset += len(rows)
            end = offset >= self.rows_per_epoch
            self._position = Position(epoch + 1, 0) if end else Position(epoch, offset)
        batch = batch.to(self.device, non_blocking=True)
        if self.scaling is None:
            return batch
        return batch.sub_(self.scaling.mean.to(self.device)).div_(self.scaling.scale)

    def close(self) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._store.close()

    def __enter__(self) -> "ActivationStream":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _rows(self, epoch: int, index: int) -> np.ndarray:
        """The shuffled rows of a group; starts reading the one after it."""
        here = (epoch, index)
        if self._group is not None and self._group[0] == here:
            return self._group[1]
        ahead, self._ahead = self._ahead, None
        if ahead is None or ahead[0] != here:
            if ahead is not None:
                ahead[1].result()  # its buffer is being written
            ahead = (here, self._pool.submit(self._load, 0, *here))
        rows = ahead[1].result()
        self._group = (here, rows)
        free = 1 if rows.base is self._buffers[0] else 0
        last = (index + 1) * self.group >= self.n_puzzles
        after = (epoch + 1, 0) if last else (epoch, index + 1)
        self._ahead = (after, self._pool.submit(self._load, free, *after))
        return rows

    def _load(self, buffer: int, epoch: int, index: int) -> np.ndarray:
        order = puzzle_order(self.puzzles, self.solved, self.seed, epoch)
        chosen = order[index * self.group : (index + 1) * self.group]
        n = len(chosen) * self.rows_per_puzzle
        rows = self._buffers[buffer][:n]
        places = np.random.default_rng([self.seed, epoch, index]).permutation(n)
        done = 0
        for puzzle in np.sort(chosen):  # neighbours in a shard are read one after another
            for reader in self.readers:
                values = reader.read(int(puzzle)).reshape(-1, self.d_model)
                rows[places[done : done + len(values)]] = values
                done += len(values)
        return rows


def _group_size(stream: ActivationStream, buffer_bytes: int) -> int:
    """Puzzles in half of the buffer. UserError where memory, buffer or batch do not fit."""
    one = stream.rows_per_puzzle * stream.d_model * np.dtype(np.float16).itemsize
    require_memory(buffer_bytes, "the shuffle buffer", "lower --buffer-mb")
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
    return min(buffer_bytes // (2 * one), stream.n_puzzles)


def measure_scaling(readers: Sequence[SiteReader], puzzles: Sequence[int]) -> Scaling:
    """Mean of these puzzles' rows, and root mean square of what remains, over coordinates."""
    n, total, square = 0, 0.0, 0.0
    for puzzle in puzzles:
        for reader in readers:
            rows = reader.read(int(puzzle)).reshape(-1, reader.d_model).astype(np.float32)
            total = total + rows.sum(axis=0, dtype=np.float64)
            square = square + np.square(rows).sum(axis=0, dtype=np.float64)
            n += len(rows)
    mean = np.asarray(total) / n
    variance = np.asarray(square) / n - np.square(mean)
    scale = float(np.sqrt(variance.mean()))
    if not scale > 0:
        raise UserError(f"{readers[0].site} is the same in every row: nothing to learn from")
    return Scaling(torch.from_numpy(mean).float(), scale)


def stream_state(stream: ActivationStream) -> dict[str, Any]:
    """What a resumed run needs to go on with the next batch."""
    return {"seed": stream.seed, **stream.position._asdict()}
