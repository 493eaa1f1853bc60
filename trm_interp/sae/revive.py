"""Dead features are reinitialised from badly reconstructed rows.

After Bricken et al. (2023), "Towards Monosemanticity", appendix on resampling: a feature that has
not fired for a while takes the direction of a row, drawn with probability proportional to the
square of its loss. Rows are drawn without replacement here, so that no two features are alike, and
a decoder row gets the mean norm of those that fire (their decoders have norm 1).
"""

from typing import Any

import numpy as np
import torch
from sae_lens import TrainingSAE
from torch import Tensor

from trm_interp.runtime.shapes import Bool, Float

ENCODER_SHARE = 0.2  # norm of a revived encoder column, in mean norms of those that fire
# features that must pass a threshold, or be among the k largest, to fire at all
COMPETING_SHARE = 1.0
COMPETING = ("topk", "batchtopk", "jumprelu")


@torch.no_grad()
def resample(
    sae: TrainingSAE[Any],
    optimizer: torch.optim.Optimizer,
    rows: Float[Tensor, "batch d_model"],
    reconstructed: Float[Tensor, "batch d_model"],
    dead: Bool[Tensor, " feature"],
    seed: int,
    step: int,
) -> Bool[Tensor, " feature"]:
    """Give dead features the directions of badly explained rows; which of them were revived.

    The weights of the others stay. A function of its arguments alone, so that a resumed run does
    the same. Adam's moments of the revived ones are reset.
    """
    loss = (reconstructed.float() - rows.float()).square().sum(1).cpu().double().numpy()
    chance = np.square(loss)
    numbers = dead.nonzero().flatten()
    n = min(len(numbers), np.count_nonzero(chance))
    revived = torch.zeros_like(dead)
    if not n:
        return revived
    rng = np.random.default_rng([seed, 0x2E5A, step])
    drawn = rng.choice(len(chance), n, replace=False, p=chance / chance.sum())
    numbers = numbers[:n]
    revived[numbers] = True
    direction = rows[torch.from_numpy(drawn).to(rows.device)].float() - sae.b_dec.float()
    direction /= direction.norm(dim=1, keepdim=True).clamp(min=1e-12)
    others = ~dead if not dead.all() else dead
    competes = sae.cfg.architecture() in COMPETING
    share = COMPETING_SHARE if competes else ENCODER_SHARE
    weights = dict(sae.named_parameters())
    encoder, decoder, _ = (weights.pop(name) for name in ("W_enc", "W_dec", "b_dec"))
    encoder_norm = share * encoder[:, others].norm(dim=0).mean()
    decoder_norm = decoder[others].norm(dim=1).mean()
    encoder[:, numbers] = (direction * encoder_norm).T.to(encoder)
    decoder[numbers] = (direction * decoder_norm).to(decoder)
    _forget(optimizer, encoder, (slice(None), numbers))
    _forget(optimizer, decoder, (numbers,))
    for name, weight in weights.items():
        if weight.shape == dead.shape:  # biases, gates and thresholds: as at the start
            weight[numbers] = sae.cfg.jumprelu_init_threshold if name == "threshold" else 0.0
            _forget(optimizer, weight, (numbers,))
    return revived


def _forget(optimizer: torch.optim.Optimizer, weight: Tensor, at: tuple[Any, ...]) -> None:
    """Adam's moments of these entries back to 0."""
    for name in ("exp_avg", "exp_avg_sq"):
        if name in optimizer.state[weight]:
            optimizer.state[weight][name][at] = 0.0
