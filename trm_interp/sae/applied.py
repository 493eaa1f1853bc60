"""A trained SAE applied to a store: checked to fit, ready to encode."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from sae_lens import SAE
from torch import Tensor

from trm_interp.core.checkpoints.folder import Checkpoint
from trm_interp.recording.opening import finished_puzzles, recorded_checkpoint
from trm_interp.recording.site_reader import (
    AS_STORED,
    SiteReader,
    board_keys,
    expanded,
    final_solved,
)
from trm_interp.recording.store import Store
from trm_interp.runtime.errors import UserError
from trm_interp.runtime.runs import quiet
from trm_interp.runtime.shards import noted
from trm_interp.sae.saved import Provenance, load_sae, provenance_of
from trm_interp.sae.settings import OnSAE
from trm_interp.subjects.opening import open_device

Progress = Callable[[int, int], None]
ROWS_AT_ONCE = 4096  # encoded together: bounds what a gate and a magnitude take


class Encoded(NamedTuple):
    """One puzzle: rows x [tick, pos, d_model] and activations [tick, pos, feature]."""

    puzzle: int
    x: Tensor
    acts: Tensor


@dataclass(frozen=True)
class AppliedSAE:
    """An SAE, a store, and which of the store's sites, puzzles and ticks are looked at.

    `readers`: one a site, of which all but `sae-eval` have a single one. `puzzles`: store indices.
    `provenance`: what the SAE says of its training, None if it is not
    ours. `mismatch`: what `--force-mismatch` let pass, in words.
    """

    sae: SAE[Any]
    provenance: Provenance | None
    path: Path
    store: Store
    readers: tuple[SiteReader, ...]
    puzzles: np.ndarray
    device: torch.device
    mismatch: str | None

    @property
    def reader(self) -> SiteReader:
        """Of the first site."""
        return self.readers[0]

    @property
    def site(self) -> str:
        """The name of the site, or of all of them."""
        return ",".join(reader.site for reader in self.readers)

    @property
    def rows_per_puzzle(self) -> int:
        return sum(reader.rows for reader in self.readers)

    @property
    def d_sae(self) -> int:
        return self.sae.cfg.d_sae

    @property
    def weights_sha256(self) -> str:
        """Of its encoder and decoder and what else it has learned."""
        found = hashlib.sha256()
        for name, tensor in sorted(self.sae.state_dict().items()):
            found.update(name.encode())
            found.update(tensor.float().cpu().contiguous().numpy().tobytes())
        return found.hexdigest()

    @property
    def solved(self) -> np.ndarray:
        """bool [puzzle] of those that are looked at: solved at the last supervision step."""
        return final_solved(self.store)[self.puzzles]

    @property
    def by_outcome(self) -> dict[str, np.ndarray]:
        """The solved and the failed puzzles, as masks [puzzle]."""
        return {"solved": self.solved, "failed": ~self.solved}

    @property
    def n_trained_on(self) -> int:
        """How many of the puzzles the SAE was trained on: 0 unless all puzzles were asked for."""
        return int(trained_on(self.provenance, self.store)[self.puzzles].sum())

    @property
    def measured_on(self) -> dict[str, Any]:
        """What a result was measured on."""
        trained = self.provenance
        return {
            "sae": str(self.path),
            "site": self.site,
            "n_puzzles": len(self.puzzles),
            "n_trained_on": self.n_trained_on,
            "n_solved": int(self.solved.sum()),
            "ticks": len({i for reader in self.readers for i in reader.indices}),
            "view": self.reader.view.words,
            "store_sha256": self.store.sha256,
            "checkpoint_sha256": self.store.identity.checkpoint_sha256,
            "mismatch": self.mismatch,
            "d_in": self.sae.cfg.d_in,
            "d_sae": self.d_sae,
            "arch": (trained and trained.arch) or self.sae.cfg.architecture(),
            "gated_variant": trained.gated_variant if trained else None,
        }

    def encode(self, progress: Progress = quiet) -> Iterator[Encoded]:
        """Every puzzle in turn, at the first site, on the device."""
        for done, puzzle in enumerate(self.puzzles):
            progress(done, len(self.puzzles))
            x = self.rows(self.reader, int(puzzle))
            yield Encoded(int(puzzle), x, encode(self.sae, x))
        progress(len(self.puzzles), len(self.puzzles))

    def rows(self, reader: SiteReader, puzzle: int) -> Tensor:
        """float32 [tick, pos, d_model] of one site of a puzzle, on the device."""
        return torch.from_numpy(reader.read(puzzle)).to(self.device).float()


@torch.no_grad()
def encode(sae: SAE[Any], x: Tensor) -> Tensor:
    """Activations [..., feature] of rows [..., d_model], some rows at a time."""
    rows = x.flatten(0, -2)
    acts = torch.empty(len(rows), sae.cfg.d_sae, device=x.device)
    for first in range(0, len(rows), ROWS_AT_ONCE):
        part = slice(first, first + ROWS_AT_ONCE)
        acts[part] = sae.encode(rows[part])
    return acts.view(*x.shape[:-1], sae.cfg.d_sae)  # rows may be none


@contextmanager
def applying(config: OnSAE, tell: Callable[[str], None] = print) -> Iterator[AppliedSAE]:
    """SAE and store, checked against each other; the store is closed at the end.

    Held out are the puzzles whose boards the SAE was not trained on, in whichever store they are.
    """
    device = open_device(config.device)
    sae = load_sae(config.sae, device)
    provenance = provenance_of(config.sae)
    with finished_puzzles(config.store, tell) as store:
        readers = _readers(config, provenance, store)
        mismatch = _mismatch(config, sae, provenance, store, readers)
        puzzles = _puzzles(config, provenance, store)
        applied = AppliedSAE(sae, provenance, config.sae, store, readers, puzzles, device, mismatch)
        noted(**{f"store {store.path}": store.sha256, "sae": applied.weights_sha256})
        yield applied


def _readers(config: OnSAE, provenance: Provenance | None, store: Store) -> tuple[SiteReader, ...]:
    """Every site as the SAE was trained on it. UserError where neither the command nor the SAE
    names one."""
    names = config.sites(provenance.sites if provenance else [])
    if not names:
        raise UserError(f"{config.sae} does not say which site it is for: give --site")
    return tuple(_reader(site, provenance, store) for site in expanded(store, names))


def _reader(site: str, provenance: Provenance | None, store: Store) -> SiteReader:
    """A site at the ticks that the SAE was trained on, where the store has any of them."""
    view = provenance.view if provenance else AS_STORED
    reader = SiteReader(store, site, view=view)
    stored = set(reader.indices)
    trained = set(provenance.ticks) if provenance and provenance.ticks is not None else stored
    if trained & stored and not stored <= trained:
        return SiteReader(store, site, sorted(trained & stored), view)
    return reader


def _mismatch(
    config: OnSAE,
    sae: SAE[Any],
    provenance: Provenance | None,
    store: Store,
    readers: Sequence[SiteReader],
) -> str | None:
    """UserError if SAE and store do not match; what does not match if that was allowed."""
    for reader in readers:
        if sae.cfg.d_in != reader.d_model:
            raise UserError(
                f"{config.sae} is {sae.cfg.d_in} wide, {reader.site} of {store.path} is "
                f"{reader.d_model} wide"
            )
    wrong = []
    if provenance:
        ours = store.identity.checkpoint_sha256
        if not provenance.is_of(ours):
            wrong.append(f"checkpoint {provenance.checkpoints}, the store's is {str(ours)[:12]}")
        for reader in readers:
            if reader.site not in provenance.sites:
                sites = ", ".join(provenance.sites)[:80]
                wrong.append(f"trained on {sites}, applied to {reader.site}")
            if provenance.ticks is not None and not set(provenance.ticks) & set(reader.indices):
                wrong.append(f"trained on none of the ticks of {reader.site} that the store holds")
    if not wrong:
        return None
    if not config.force_mismatch:
        raise UserError(f"{config.sae}: {'; '.join(wrong)}; --force-mismatch goes on all the same")
    return "; ".join(wrong)


def _puzzles(config: OnSAE, provenance: Provenance | None, store: Store) -> np.ndarray:
    """Store indices to look at: the first `limit` whose boards were not trained on."""
    chosen = np.arange(store.n_puzzles)
    if not config.all_puzzles:
        chosen = chosen[~trained_on(provenance, store)]
    if not len(chosen):
        raise UserError(
            f"{config.sae} was trained on every puzzle of {store.path}: record others, "
            "or give --all-puzzles"
        )
    return chosen[: config.limit]


def trained_on(provenance: Provenance | None, store: Store) -> np.ndarray:
    """bool [puzzle]: an SAE of this provenance was trained on the puzzle's board."""
    boards = provenance.train_boards if provenance else []
    return np.isin(board_keys(store["inputs"][:]), boards)


def model_of(applied: AppliedSAE, ckpt: str | None, force: bool) -> tuple[Checkpoint, str | None]:
    """The checkpoint that the store was recorded from, and what `force` let pass.

    UserError for one with other weights.
    """
    checkpoint, wrong = recorded_checkpoint(applied.store, ckpt, applied.device)
    widths_agree = checkpoint.model.config.d_model == applied.sae.cfg.d_in
    if wrong and not (force and widths_agree):
        raise UserError(f"{wrong}; --force-mismatch goes on all the same where widths agree")
    return checkpoint, wrong
