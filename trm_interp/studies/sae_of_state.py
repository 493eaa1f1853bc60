"""An SAE that was trained on a state of a model, used while the model runs."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sae_lens import SAE
from torch import Tensor

from trm_interp.recording.site_reader import board_keys
from trm_interp.runtime.errors import UserError
from trm_interp.runtime.shapes import Float
from trm_interp.sae.saved import load_sae, provenance_of
from trm_interp.studies.subject import Subject


@dataclass(frozen=True, eq=False)
class StateSAE:
    """`rows` [feature, d_model] of the decoder; `trained_on`: boards of its training."""

    path: Path
    sae: SAE[Any]
    site: str
    device: torch.device
    trained_on: frozenset[str]

    @property
    def rows(self) -> Float[Tensor, "feature d_model"]:
        return self.sae.W_dec.detach().float()

    @property
    def identity(self) -> str:
        """Its path and a hash of its decoder: what is trained there again is another one."""
        decoder = self.rows.cpu().contiguous().numpy().tobytes()
        return f"{self.path} {hashlib.sha256(decoder).hexdigest()[:12]}"

    def without(self, features: tuple[int, ...]) -> Callable[[Tensor], Tensor]:
        """What takes some features out of a state [row, pos, d_model]; the rest of it stays."""
        chosen = list(features)

        @torch.no_grad()
        def edit(state: Tensor) -> Tensor:
            acts = self.sae.encode(state.float().flatten(0, 1))[:, chosen]
            return (state.float() - (acts @ self.rows[chosen]).view(state.shape)).to(state.dtype)

        return edit

    def n_trained_on(self, subject: Subject, puzzles: np.ndarray) -> int:
        """How many of these puzzles the SAE was trained on."""
        return sum(key in self.trained_on for key in board_keys(subject.puzzles.inputs[puzzles]))


def open_state_sae(path: Path, subject: Subject) -> StateSAE:
    """UserError for an SAE of another model, of a site that is no state, or of rows that a running
    state cannot be turned into."""
    trained = provenance_of(path)
    if trained is None:
        raise UserError(f"{path} does not say which state it is of: train it with train-sae")
    states = subject.model.state_names
    site = next((site for site in trained.sites if site in states), None)
    if site is None:
        raise UserError(
            f"{path} was trained on {', '.join(trained.sites)[:80]}: give one of a state, "
            f"{' or '.join(states)}"
        )
    if not trained.is_of(subject.checkpoint.sha256):
        theirs, ours = trained.checkpoints, subject.checkpoint.sha256[:12]
        raise UserError(f"{path} was trained on checkpoint {theirs}, this one is {ours}: give that")
    view = trained.view
    if view.shuffle is not None or view.centre != "rows":
        raise UserError(f"{path} was trained on {view.words}, not on states as they are in a run")
    sae = load_sae(path, subject.device)
    if sae.cfg.d_in != subject.model.config.d_model:
        raise UserError(
            f"{path} is {sae.cfg.d_in} wide, states are {subject.model.config.d_model} wide"
        )
    return StateSAE(path, sae, site, subject.device, frozenset(trained.train_boards))
