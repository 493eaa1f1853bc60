"""What training an SAE computes and writes, by its settings; and a step of it to be timed."""

from collections.abc import Callable

import torch
from sae_lens.saes.sae import TrainStepInput

from trm_interp.core.ranks import Ranks
from trm_interp.sae.settings import TrainSAEConfig
from trm_interp.sae.train import require_fit
from trm_interp.sae.trainer import make_sae

# of a row with the encoder or the decoder, forward and backward. The bias of the decoder is taken
# from the row first, so its gradient goes back through the encoder; our gated SAE multiplies the
# bias alone, and decodes its gates as well (in the paper's pairing with a frozen decoder).
PRODUCTS = 6
GATED_PRODUCTS = {"saelens": 8, "paper": 7}
BIASES = {"gated": 3, "jumprelu": 2}  # numbers a feature besides its weights, 1 elsewhere
COPIES = 4  # the SAE that is saved; weights and two moments in the state of its training


def row_flops(config: TrainSAEConfig, d_model: int) -> int:
    """Floating-point operations of one row in one optimizer step; a multiply-add is two."""
    products = GATED_PRODUCTS[config.gated_variant] if config.arch == "gated" else PRODUCTS
    return products * 2 * d_model * config.expansion * d_model


def folder_bytes(config: TrainSAEConfig, d_model: int) -> int:
    """Of the folder of a finished SAE, but for its tables and cards."""
    d_sae = config.expansion * d_model
    numbers = d_sae * (2 * d_model + BIASES.get(config.arch, 1)) + d_model
    return COPIES * 4 * numbers


def timed_step(
    config: TrainSAEConfig, d_model: int, device: torch.device
) -> Callable[[int], object]:
    """An optimizer step on so many random rows. UserError where the SAE does not fit here."""
    require_fit(config, d_model, Ranks(device))
    sae = make_sae(config, d_model, device)
    optimizer = torch.optim.Adam(sae.parameters(), lr=config.lr)
    dead = torch.zeros(sae.cfg.d_sae, dtype=torch.bool, device=device)
    coefficients = {name: 1.0 for name in sae.get_coefficients()}

    @torch.enable_grad()
    def step(n: int) -> None:
        rows = torch.randn(n, d_model, device=device)
        with torch.autocast(device.type, torch.bfloat16, enabled=config.autocast):
            loss = sae.training_forward_pass(
                TrainStepInput(rows, coefficients, dead, 0, False)
            ).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step
