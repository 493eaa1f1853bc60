"""A trained SAE beside the store that it is applied to: checked to fit, ready to encode."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from sae_lens import SAE
from torch import Tensor

from trm_interp.core.checkpoints.folder import Checkpoint, load_checkpoint
from trm_interp.recording.site_reader import SiteReader, board_keys, final_solved
from trm_interp.recording.store import Store
from trm_interp.runtime.errors import UserError
from trm_interp.sae.config import OnSAE
from trm_interp.sae.saved import Provenance, load_sae, provenance_of
from trm_interp.subjects.opening import open_device

Progress = Callable[[int, int], None]
ROWS_AT_ONCE = 4096  # encoded together: bounds what a gate and a magnitude take


def quiet(done: int, of: int) -> None:
    """Progress that nobody watches."""


class Encoded(NamedTuple):
    """One puzzle: rows x [tick, pos, d_model] and activations [tick, pos, feature]."""

    puzzle: int
    x: Tensor
    acts: Tensor


@dataclass(frozen=True)
class Opened:
    """`puzzles`: those that are looked at; `known`: provenance of the SAE, None if not ours.

    `mismatch` says in words what `--force-mismatch` let pass.
    """

    sae: SAE[Any]
    known: Provenance | None
    path: Path
    store: Store
    reader: SiteReader
    puzzles: np.ndarray
    device: torch.device
    mismatch: str | None

    @property
    def site(self) -> str:
        return self.reader.site

    @property
    def d_sae(self) -> int:
        return self.sae.cfg.d_sae

    @property
    def solved(self) -> np.ndarray:
        """bool [puzzle] of those that are looked at: solved at the last supervision step."""
        return final_solved(self.store)[self.puzzles]

    @property
    def n_trained_on(self) -> int:
        """How many of the puzzles the SAE was trained on: 0 unless all puzzles were asked for."""
        return int(trained_on(self.known, self.store)[self.puzzles].sum())

    @property
    def said(self) -> dict[str, Any]:
        """What a result was measured on."""
        return {
            "sae": str(self.path),
            "site": self.site,
            "n_puzzles": len(self.puzzles),
            "n_trained_on": self.n_trained_on,
            "n_solved": int(self.solved.sum()),
            "ticks": len(self.reader.indices),
            "store_sha256": self.store.sha256,
            "checkpoint_sha256": self.store.identity.checkpoint_sha256,
            "mismatch": self.mismatch,
            "d_in": self.sae.cfg.d_in,
            "d_sae": self.d_sae,
            "arch": (self.known and self.known.arch) or self.sae.cfg.architecture(),
            "gated_variant": self.known.gated_variant if self.known else None,
        }

    def encode(self, progress: Progress = quiet) -> Iterator[Encoded]:
        """Every puzzle in turn, on the device."""
        for done, puzzle in enumerate(self.puzzles):
            progress(done, len(self.puzzles))
            x = torch.from_numpy(self.reader.read(int(puzzle))).to(self.device).float()
            yield Encoded(int(puzzle), x, encode(self.sae, x))
        progress(len(self.puzzles), len(self.puzzles))


@torch.no_grad()
def encode(sae: SAE[Any], x: Tensor) -> Tensor:
    """Activations [..., feature] of rows [..., d_model], some rows at a time."""
    rows = x.flatten(0, -2)
    acts = torch.empty(len(rows), sae.cfg.d_sae, device=x.device)
    for first in range(0, len(rows), ROWS_AT_ONCE):
        part = slice(first, first + ROWS_AT_ONCE)
        acts[part] = sae.encode(rows[part])
    return acts.view(*x.shape[:-1], -1)


@contextmanager
def opening(config: OnSAE, tell: Callable[[str], None] = print) -> Iterator[Opened]:
    """SAE and store, checked against each other; the store is closed at the end.

    Held out are the puzzles whose boards the SAE was not trained on, in whichever store they are.
    """
    device = open_device(config.device)
    sae = load_sae(config.sae, device)
    known = provenance_of(config.sae)
    with Store(config.store, allow_incomplete=True) as store:
        if not store.complete:
            tell(f"{store.path} is unfinished: using its {store.n_puzzles} complete puzzles")
        if not store.n_puzzles:
            raise UserError(f"{store.path} holds no complete puzzle yet")
        site = config.site or (known.sites[0] if known else None)
        if site is None:
            raise UserError(f"{config.sae} does not say which site it is for: give --site")
        reader = SiteReader(store, site)
        there = set(reader.indices)
        trained = there if not known or known.ticks is None else set(known.ticks)
        if trained & there and not there <= trained:
            reader = SiteReader(store, site, sorted(trained & there))
        mismatch = _mismatch(config, sae, known, store, reader)
        yield Opened(
            sae,
            known,
            config.sae,
            store,
            reader,
            _puzzles(config, known, store),
            device,
            mismatch,
        )


def _mismatch(
    config: OnSAE, sae: SAE[Any], known: Provenance | None, store: Store, reader: SiteReader
) -> str | None:
    """UserError where SAE and store do not fit, or what is wrong if that was allowed."""
    if sae.cfg.d_in != reader.d_model:
        raise UserError(
            f"{config.sae} is {sae.cfg.d_in} wide, {reader.site} of {store.path} is "
            f"{reader.d_model} wide"
        )
    wrong = []
    theirs, ours = known.checkpoint_sha256 if known else None, store.identity.checkpoint_sha256
    if known and theirs != ours:
        wrong.append(f"checkpoint {str(theirs)[:12]}, the store's is {str(ours)[:12]}")
    if known and reader.site not in known.sites:
        wrong.append(f"trained on {', '.join(known.sites)[:80]}, applied to {reader.site}")
    if known and known.ticks is not None and not set(known.ticks) & set(reader.indices):
        wrong.append(f"trained on none of the ticks of {reader.site} that the store holds")
    if not wrong:
        return None
    if not config.force_mismatch:
        raise UserError(f"{config.sae}: {'; '.join(wrong)}; --force-mismatch goes on all the same")
    return "; ".join(wrong)


def _puzzles(config: OnSAE, known: Provenance | None, store: Store) -> np.ndarray:
    """Store indices to look at: the first `limit` whose boards were not trained on."""
    chosen = np.arange(store.n_puzzles)
    if not config.all_puzzles:
        chosen = chosen[~trained_on(known, store)]
    if not len(chosen):
        raise UserError(
            f"{config.sae} was trained on every puzzle of {store.path}: record others, "
            "or give --all-puzzles"
        )
    return chosen[: config.limit]


def trained_on(known: Provenance | None, store: Store) -> np.ndarray:
    """bool [puzzle]: an SAE of this provenance was trained on the puzzle's board."""
    return np.isin(board_keys(store["inputs"][:]), known.train_boards if known else [])


def open_model(opened: Opened, ckpt: str | None, force: bool) -> tuple[Checkpoint, str | None]:
    """The checkpoint that the store was recorded from, and what `force` let pass.

    UserError for one with other weights.
    """
    source = ckpt or opened.store.checkpoint_path
    if source is None:
        raise UserError(f"{opened.store.path} does not say where its checkpoint is: give --ckpt")
    checkpoint = load_checkpoint(source, opened.device, opened.store.model.cells)
    ours = opened.store.checkpoint_sha256
    if checkpoint.sha256 == ours:
        return checkpoint, None
    wrong = f"{checkpoint.path} has weights {checkpoint.sha256[:12]}, the store's {str(ours)[:12]}"
    if not force or checkpoint.model.config.d_model != opened.sae.cfg.d_in:
        raise UserError(f"{wrong}; --force-mismatch goes on all the same where widths agree")
    return checkpoint, wrong
